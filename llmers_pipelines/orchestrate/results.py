"""The published results: experiments of a toml, run from stored cells, written as one document."""

from __future__ import annotations

import dataclasses
import json
import platform
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config import ConfigError, Method, Settings
from ..plan import Evaluate, Node, walk
from ..store.manifests import Manifest
from .build import Plan, build_plan
from .compare import collect, evaluation_of, leaderboard
from .context import StepContext
from .plumbing import TINY, TOKENS, make_tiny, plumbing_table, with_tiny_model
from .records import recipe_digest
from .views_report import planted_table, views_table

_UNUSED = (
    "no recorded answer was used, though the experiment rests on them: see the note of its texts "
    "(`llmers trace`); answers that may have seen held-out rows ask for accept_contaminated = true"
)
_LIBRARIES = ("torch", "transformers", "dagster", "mlflow", "duckdb", "numpy")


@dataclass(frozen=True)
class Experiment:
    """One data set, the methods compared on it, and how."""

    name: str
    dataset: str
    methods: tuple[Method, ...]
    seeds: int = 1
    controls: tuple[str, ...] = ()
    encoder: str = "auto"
    note: str = ""
    accept_contaminated: bool = False  # answers that may have seen held-out rows; marked as such
    recorded: bool = False  # rests on recorded answers: a fault where none of them was used
    plumbing: bool = False  # its language model is a tiny one: shows that a path works, no lift
    view: str = ""  # another sight of the data set (data/views.py)
    of: str = ""  # name of the experiment whose views these are
    answers: str = ""  # plumbing: "tiny" asks that model what the data set has no answers for
    tokens: int = TOKENS  # plumbing: the most of such an answer; a form may need more

    def settings(self, base: Settings) -> Settings:
        own = dataclasses.replace(
            base, dataset=self.dataset, methods=self.methods, seeds=self.seeds,
            controls=self.controls, encoder=self.encoder, view=self.view,
            accept_contaminated=base.accept_contaminated or self.accept_contaminated,
        )  # fmt: skip
        if not self.plumbing:
            return own
        return with_tiny_model(own, answers=self.answers == TINY, tokens=self.tokens)


def load_experiments(path: Path) -> list[Experiment]:
    """Read the experiments of ``path``; a fault names the file and the experiment."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    out = []
    for row in document.get("experiment", []):
        try:
            methods = tuple(Method(**m) for m in row.pop("methods"))
            row["controls"] = tuple(row.get("controls", ()))
            views = row.pop("views", None)
            out.append(Experiment(methods=methods, **row))
            if views is not None:
                out[-1:] = [seen_as(out[-1], view) for view in views]
            if out[-1].answers not in ("", TINY) or (out[-1].answers and not out[-1].plumbing):
                raise TypeError(f"answers = {out[-1].answers!r}: {TINY!r}, with plumbing = true")
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path}: experiment {row.get('name')!r}: {error}") from error
    return out


def seen_as(experiment: Experiment, view: str) -> Experiment:
    """Return ``experiment`` under one of its views; "" is the data set as it is."""
    name = f"{experiment.name}, seen as {view}" if view else experiment.name
    return dataclasses.replace(experiment, name=name, view=view, of=experiment.name)


def run_experiment(
    experiment: Experiment, base: Settings, on_step: Callable[[str, str, float], None]
) -> list[dict[str, Any]]:
    """Materialize the evaluations of ``experiment`` and return the run's failures.

    What a failed check holds is behind the asset that it holds, which tells which check it was.
    """
    from .launch import launch

    settings = experiment.settings(base)
    plan = build_plan(settings)
    if experiment.plumbing:
        make_tiny(plan, settings)
    nodes = evaluation_nodes(plan)
    report = launch(plan, nodes, experiment.dataset, settings, on_step=on_step)
    done = ("materialized", "reused")
    failed = [r for r in report["assets"] if "error" in r or r["status"] not in done]
    if experiment.recorded and not failed and not recorded_answers(plan, experiment, settings):
        failed.append({"key": experiment.name, "status": "failed", "error": _UNUSED})
    return failed


def recorded_answers(plan: Plan, experiment: Experiment, settings: Settings) -> int:
    """Return how many recorded answers of a language model the experiment's texts rest on."""
    ctx = StepContext(settings, experiment.dataset)
    asked = [n for n in evaluation_nodes(plan) if n.verb in ("generate", "teach")]
    made = [ctx.manifests.of(ctx.dataset, n) for n in asked]
    return sum(int(m.counts.get("recorded", 0)) for m in made if m is not None)


def evaluation_nodes(plan: Plan) -> list[Node]:
    """Return the evaluations of a plan and all that they need, without the registry."""
    return walk([n for n in plan.nodes if isinstance(n, Evaluate)])


def write_results(
    experiments: list[Experiment], base: Settings, command: str, out: Path
) -> dict[str, list[dict[str, Any]]]:
    """Write ``out`` from what is stored; return the record of lifts by recipe."""
    lines = _head(command)
    record: dict[str, list[dict[str, Any]]] = {}
    plumbing = []
    for experiment in experiments:
        settings = experiment.settings(base)
        plan = build_plan(settings)
        if experiment.plumbing:
            plumbing.append((experiment.name, plan, settings))
            continue
        if experiment.view:  # a row of the table of views, and no lift of its own
            continue
        chosen = [m.evaluate for m in plan.methods]
        rows = collect(settings, experiment.dataset, None, chosen, as_run=True)
        lines += [f"## {experiment.name}", ""]
        if all(r["is_baseline"] for r in rows):
            lines += ["Not run yet.", ""]
            continue
        board = leaderboard(settings, experiment.dataset, rows).splitlines()
        board = [f"#{line}" if line.startswith("## ") else line for line in board[2:]]
        lines += [*_facts(plan, experiment, settings), *_unlike(plan, experiment, settings), ""]
        lines += [*board, ""]
        lines += _slices(rows) + _cost(plan, experiment, settings)
        verdicts = {r["method"]: (r["verdict"], r["reasons_method"]) for r in rows}
        for row in _lifts(plan, experiment, settings, verdicts):
            record.setdefault(row.pop("recipe"), []).append(row)
    viewed = [(e.of, e.view, build_plan(own), own, e.plumbing) for e in experiments
              if e.of and (own := e.settings(base))]  # fmt: skip
    lines += views_table(viewed)
    lines += [*plumbing_table(plumbing), *planted_table(viewed)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return record


def _head(command: str) -> list[str]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    return [
        "# Results",
        "",
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d} ({platform.machine()}, "
        f"Python {platform.python_version()}, {versions}). Do not edit: run the command again. "
        "Stored cells are read back, so an interrupted run goes on where it stopped.",
        "",
        "A lift is *claimed* only when the base is not behind the conventional baselines (ItemKNN, "
        "EASE; DeepFM, DIN), the paired interval over users and the spread over at least three "
        "seeds exclude zero, the p corrected over the methods of a table is below .05, and the "
        "method beats every control that fits its slot, none of which may be left out: permuted "
        "owners, random rows, shuffled rankings, pairs drawn at random or by popularity, the "
        "untrained use of the same texts (the blend of ItemKNN and text-kNN) and, where texts are "
        "generated, a template without a language model. The blend reads the texts, so it is a "
        "control of the method and not one of the baselines by which the base counts as strong; "
        "where a base is behind it, the table shows that. One seed makes a result *exploratory*.",
        "",
    ]


def _facts(plan: Plan, experiment: Experiment, settings: Settings) -> list[str]:
    ctx = StepContext(settings, experiment.dataset)
    lines = []
    for node in plan.nodes:
        if node.verb == "table" and getattr(node, "table", "") == "splits":
            manifest = ctx.manifests.current(ctx.dataset, node.name)
            if manifest is not None:
                c = manifest.counts
                lines.append(
                    f"- `{node.name}` @ `{manifest.data_version}`: {c['users']} users, "
                    f"{c['items']} items, train {c['train']}, validation {c['valid']}, test "
                    f"{c['test']}, protocol {c['protocol']}"
                )
    tables = [n.name for n in plan.nodes if getattr(n, "table", "") in ("items", "interactions")]
    for name in tables:
        manifest = ctx.manifests.current(ctx.dataset, name)
        if manifest is not None:
            lines.append(f"- `{name}` @ `{manifest.data_version}`, {manifest.rows} rows")
    seeds = "one seed: *exploratory*" if experiment.seeds < 3 else f"{experiment.seeds} seeds"
    if experiment.recorded:
        count = recorded_answers(plan, experiment, settings)
        lines.append(f"- recorded answers used: {count}" if count else f"- **Void**: {_UNUSED}")
    if experiment.note:
        lines.append(f"- {experiment.note}")
    return [f"- {seeds}; encoder {experiment.encoder}; controls "
            f"{', '.join(experiment.controls)}", *lines]  # fmt: skip


def _unlike(plan: Plan, experiment: Experiment, settings: Settings) -> list[str]:
    """Return a line for each method that is not there, or there with other seeds than asked for."""
    ctx = StepContext(settings, experiment.dataset)
    lines = []
    for method in plan.methods:
        manifest = evaluation_of(ctx.manifests, ctx.dataset, method.evaluate)
        if manifest is None:
            lines.append(f"- {method.slug}: not run yet")
        elif method.train.backbone.closed_form:
            continue  # one seed says all
        elif (seeds := _seeds(manifest, ctx)) not in (0, experiment.seeds):
            lines.append(f"- {method.slug}: {seeds} of {experiment.seeds} seeds so far")
    return lines


def _seeds(manifest: Manifest, ctx: StepContext) -> int:
    """Return how many seeds the enhanced arm of a stored evaluation has."""
    summary = json.loads((ctx.manifests.path(manifest) / "summary.json").read_text())
    return sum(name.partition("/")[0] == "enhanced" for name in summary["cells"])


def _slices(rows: list[dict[str, Any]]) -> list[str]:
    from ..evaluate.report import between, number, percent

    mine = [r for r in rows if not r["is_baseline"] and r["metric"] == r["primary"]]
    if not mine:
        return []
    lines = ["### By slice", "",
             "| method | slice | targets | base | enhanced | difference | 95 % interval "
             "| relative |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in mine:
        if r["enhanced"] is None:
            continue
        lines.append(
            f"| {r['method']} | {r['slice']} | {r['targets']} | {number(r['base'])} | "
            f"{number(r['enhanced'])} | {number(r['difference'], signed=True)} | "
            f"{between(r['low'], r['high'])} | {percent(r['relative'])} |"
        )
    return [*lines, ""]


def _cost(plan: Plan, experiment: Experiment, settings: Settings) -> list[str]:
    ctx = StepContext(settings, experiment.dataset)
    lines = ["### Cost", "",
             "| asset | rows | LLM calls | re-used | recorded answers | quarantined | seconds |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for node in evaluation_nodes(plan):
        manifest = ctx.manifests.of(ctx.dataset, node)
        if manifest is None or node.verb not in ("generate", "embed", "teach", "tune"):
            continue
        c = manifest.counts
        reused = int(c.get("cache_hits", 0)) + int(c.get("cached", 0))  # answers, or vectors
        lines.append(f"| {node.name} | {manifest.rows} | {int(c.get('llm_calls', 0))} | {reused} | "
                     f"{int(c.get('recorded', 0))} | {int(c.get('quarantined', 0))} | "
                     f"{manifest.seconds:.0f} |")  # fmt: skip
    lines += ["", "| method | arm | seed | best epoch | CPU seconds |", "|---|---|---|---|---|"]
    for method in plan.methods:
        manifest = evaluation_of(ctx.manifests, ctx.dataset, method.evaluate)
        if manifest is None:
            continue
        summary = json.loads((ctx.manifests.path(manifest) / "summary.json").read_text())
        for name, cell in summary["cells"].items():
            arm, seed = name.split("/")
            if arm in ("enhanced", *experiment.controls) or method.base is None:
                lines.append(f"| {method.slug} | {arm} | {seed} | {cell['best_epoch']} | "
                             f"{cell['cpu_seconds']:.0f} |")  # fmt: skip
    return [*lines, ""]


def _lifts(
    plan: Plan, experiment: Experiment, settings: Settings, verdicts: dict[str, tuple[str, Any]]
) -> list[dict[str, Any]]:
    ctx = StepContext(settings, experiment.dataset)
    out = []
    for method in plan.methods:
        manifest = evaluation_of(ctx.manifests, ctx.dataset, method.evaluate)
        if manifest is None or method.base is None:
            continue
        verdict, reasons = verdicts[method.slug]
        out.append({
            "recipe": method.recipe.slug, "method": method.slug, "dataset": experiment.dataset,
            "task": method.task, "verdict": verdict, "reasons": reasons,
            "metrics": manifest.info["metrics"],
            "seeds": _seeds(manifest, ctx), "data_version": manifest.data_version,
            "digest": recipe_digest(method.recipe.slug),
        })  # fmt: skip
    return out
