"""The search itself: trials are cells of their own arm, budgeted, pruned, each an MLflow run."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...models.fit import Fit
from ...plan import sha, walk
from ...registry.mlflow_store import MlflowStore
from ...registry.tuning_run import PARENT, close_search, open_search, parent_of, tell_search
from ...train.trained import Interrupted
from ..cells import TRIAL, Watch, cell_key, discard_checkpoint, log_run, run_cell
from ..choices import asks
from ..context import StepContext, StepError
from ..publish import stale_because
from .outcome import Outcome, outcome_of
from .space import Arm, SpaceError
from .study import Asked, Study, Trial, opened

FREE = ("auto", "template", "recorded")  # engines whose answers cost nothing


class Pruned(Exception):
    """The validation of a trial is behind that of the others at this epoch."""


@dataclass(frozen=True)
class Budget:
    """``trials`` of each arm, earlier calls included; ``seconds`` of this call, 0 = no bound."""

    trials: int = 20
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.trials < 1 or self.seconds < 0:
            raise StepError("a budget is at least 1 trial, and seconds above 0 (0 = no bound)")


@dataclass
class Search:
    """One call of ``llmers tune``. ``tell`` hears a line per trial."""

    arms: Sequence[Arm]
    ctx: StepContext
    budget: Budget
    seed: int = 0
    pruner: str = "median"
    tell: Callable[[str], None] = lambda text: None
    clock: Callable[[], float] = time.monotonic

    def run(self) -> tuple[list[Outcome], bool]:
        """Return what was found for each arm, and whether every trial of the budget was made."""
        self._store = MlflowStore.from_settings(self.ctx.settings)
        main = self.arms[0]
        path = self.ctx.settings.data / "tuning" / self.ctx.dataset / f"{main.node.slug}.db"
        with opened(
            path, [self._name(a) for a in self.arms], [a.drawn for a in self.arms], seed=self.seed,
            pruner=self.pruner, epochs=[_epochs(a) for a in self.arms],
        ) as studies:  # fmt: skip
            self._parent = open_search(
                self._store, studies[0].note.get("mlflow_run", ""), dataset=self.ctx.dataset,
                task=main.task, name=main.node.slug, tags={"search": "yes"},
                params={"trials": self.budget.trials, "seed": self.seed, "pruner": self.pruner,
                        **{f"search.{a.name}.{n}": str(d)
                           for a in self.arms for n, d in a.space.items()}},
            )  # fmt: skip
            studies[0].write_down("mlflow_run", self._parent)
            done = False
            try:
                done = self._trials(studies)
            finally:
                trials = [s.trials() for s in studies]
                equal = min(map(len, trials))  # a search that stopped is ahead in one arm
                found = [outcome_of(a, t[:equal], self._parent, self.ctx.dataset)
                         for a, t in zip(self.arms, trials, strict=True)]  # fmt: skip
                tags = {f"{o.arm}.{k}": str(v) for o in found for k, v in o.summary().items()}
                close_search(self._store, self._parent, done=done, tags=tags)
            return found, done

    def _name(self, arm: Arm) -> str:
        """Name the stored search: other data, code, ranges or seeds are another search."""
        node = arm.train(arm.fixed)
        ranges = {n: str(d) for n, d in arm.space.items()}
        what = [cell_key(node, TRIAL, 0, self.ctx), ranges, self.seed, self.pruner]
        return f"{arm.name}-{sha(what, 12)}"

    def _trials(self, studies: Sequence[Study]) -> bool:
        """Make the trials, the arm with the fewest first, so that budgets stay equal."""
        self._until = self.clock() + self.budget.seconds if self.budget.seconds else float("inf")
        made = {a.name: len(s.trials()) for a, s in zip(self.arms, studies, strict=True)}
        begun = False  # every call brings the search on, by an epoch at least
        while min(made.values()) < self.budget.trials:
            if begun and self.clock() >= self._until:
                return False
            begun = True
            at = min(range(len(self.arms)), key=lambda n: made[self.arms[n].name])
            try:
                self._trial(self.arms[at], studies[at])
            except Interrupted:
                return False
            made[self.arms[at].name] += 1
        return True

    def _trial(self, arm: Arm, study: Study) -> None:
        before = study.trials()
        asked = study.ask(arm.default)
        started = self.clock()
        twin = next((t for t in before if t.settings == asked.settings), None)
        why = ""
        if twin is not None:  # of few values some come twice: the answer is known
            for epoch, valid in twin.epochs.items():
                asked.hear(epoch, valid)
            value, why = twin.value, twin.why
            self._repeated(arm, asked, twin, len(before))
        else:
            value, why = self._trained(arm, asked, len(before))
        asked.ends(value, self.clock() - started, why)
        trials = study.trials()
        best = max((t.value for t in trials if t.value is not None), default=None)
        if best is not None:
            tell_search(self._store, self._parent, {f"best_{arm.name}": best}, len(trials))
        self.tell(_line(arm, trials[-1], self.budget.trials, best, again=twin is not None))

    def _trained(self, arm: Arm, asked: Asked, number: int) -> tuple[float | None, str]:
        """Train one trial, or read it back; return its value, or why there is none."""
        heard: list[dict[str, Any]] = []
        watch = self._watch(arm, asked, number)

        def epoch(record: dict[str, Any]) -> None:
            heard.append(record)
            valid = record.get("valid")
            behind = valid is not None and asked.hear(int(record["epoch"]), float(valid))
            if behind and not node.backbone.closed_form:  # that one is at its end already
                raise Pruned
            if self.clock() >= self._until:
                raise Interrupted

        try:
            node = arm.train(asked.settings)
        except SpaceError as error:
            return self._failed(arm, None, asked, error, watch, heard)
        try:
            cell = run_cell(node, TRIAL, 0, self.ctx, dataclasses.replace(watch, epoch=epoch))
        except Pruned:
            at = heard[-1]["epoch"]
            discard_checkpoint(node, TRIAL, 0, self.ctx)
            self._log(arm, node, heard, watch, pruned=str(at))
            return None, f"pruned at epoch {at}"
        except (ArithmeticError, ValueError, RuntimeError) as error:
            return self._failed(arm, node, asked, error, watch, heard)
        if not cell.trained_now:
            told = json.loads((cell.folder / "training.json").read_text())["epochs"]
            for record in told:
                if record["valid"] is not None:
                    asked.hear(int(record["epoch"]), float(record["valid"]))
            if parent_of(self._store, cell.record["mlflow_run"]) != self._parent:
                log_run(node, told, cell.record, self.ctx, watch)
        return float(cell.record["best_valid"]), ""

    def _failed(
        self, arm: Arm, node: Any, asked: Asked, error: Exception, watch: Watch,
        heard: Sequence[Mapping[str, Any]],
    ) -> tuple[None, str]:  # fmt: skip
        if asked.first:
            raise error  # the settings as they are cannot be trained: nothing to search beside
        if node is not None:
            discard_checkpoint(node, TRIAL, 0, self.ctx)
        self._log(arm, node, heard, watch, failed=str(error))
        return None, f"failed: {error}"

    def _repeated(self, arm: Arm, asked: Asked, twin: Trial, number: int) -> None:
        """Leave a run of a trial whose answer an earlier one had."""
        try:
            node = arm.train(asked.settings)
        except SpaceError:
            node = None
        epochs = [{"epoch": e, "valid": v, "seconds": 0.0} for e, v in sorted(twin.epochs.items())]
        named, _, what = twin.why.partition(": ")
        failed = {"failed": what} if named == "failed" else {}
        pruned = {"pruned": str(max(twin.epochs))} if twin.pruned else {}
        marks = {"repeats": str(twin.number), **failed, **pruned}
        self._log(arm, node, epochs, self._watch(arm, asked, number), value=twin.value, **marks)

    def _watch(self, arm: Arm, asked: Asked, number: int) -> Watch:
        """Return what the run of a trial is marked with."""
        tags = {PARENT: self._parent, "search_arm": arm.name, "trial": str(number)}
        return Watch(tags=tags, params={f"trial.{n}": v for n, v in asked.settings.items()})

    def _log(
        self, arm: Arm, node: Any, epochs: Sequence[Mapping[str, Any]], watch: Watch, *,
        value: float | None = None, **marks: str,
    ) -> None:  # fmt: skip
        """Leave the run of a trial that has no cell of its own; ``node`` None: it cannot be."""
        known = [e["valid"] for e in epochs if e["valid"] is not None]
        if value is None and "pruned" in marks:
            value = max(known)
        record = {"arm": TRIAL, "seed": 0, "seconds": sum(e["seconds"] for e in epochs),
                  "best_valid": value}  # fmt: skip
        marked = dataclasses.replace(watch, tags={**watch.tags, **marks})
        if node is not None:
            log_run(node, list(map(dict, epochs)), record, self.ctx, marked)
            return
        with self._store.training_run(
            dataset=self.ctx.dataset, task=arm.task, asset_key=arm.node.name,
            params={"arm": TRIAL, "seed": 0, **watch.params}, data_versions={},
            dagster_run_id=self.ctx.run_id,
            tags={"arm": TRIAL, "seed": "0", "experiment": "yes", "published": "no", **marked.tags},
        ):
            pass


def make_inputs(arms: Sequence[Arm], ctx: StepContext) -> None:
    """Make what the trainings read and is not there yet; paid answers are never bought here."""
    from ..build import build_plan
    from ..launch import launch

    if (task := arms[0].task) not in ctx.description.tasks:
        raise StepError(
            f"data set {ctx.dataset!r} has no split {task!r}; it has "
            f"{', '.join(ctx.description.tasks) or 'none'}"
        )
    nodes = walk([n for a in arms for n in a.node.inputs])
    missing = [n for n in nodes if ctx.manifests.current(ctx.dataset, n.name) is None]
    for node in [] if missing else nodes:
        if why := stale_because(node, ctx):
            ctx.log(f"{node.name} is not fresh ({why}); its stored version is used")
    if not missing:
        return
    wanted = walk(missing)
    paid = [n for n in wanted if asks(n) and ctx.settings.engine not in FREE
            and stale_because(n, ctx)]  # fmt: skip
    if paid:
        raise StepError(
            f"{paid[0].name} has not been made for data set {ctx.dataset!r}, and the engine "
            f"{ctx.settings.engine!r} may cost; run `llmers run {paid[0].name} --dataset "
            f"{ctx.dataset}` first"
        )
    ctx.log(f"{len(missing)} assets that the trainings read are made first")
    report = launch(build_plan(arms[0].settings), wanted, ctx.dataset, ctx.settings)
    behind = [r for r in report["assets"] if r["status"] not in ("materialized", "reused")]
    for row in sorted(behind, key=lambda r: "error" not in r):  # what failed, before what waits
        raise StepError(f"{row['key']}: {row.get('error', row['status'])}")


def _epochs(arm: Arm) -> tuple[int, int]:
    """Return the fewest and the most epochs that a trial may have."""
    fit = getattr(arm.node.backbone, "fit", None)
    if not isinstance(fit, Fit):
        return 0, 1
    most = arm.space.get("fit.epochs")
    bound = fit.epochs if most is None else max(_numbers(most))
    return int(arm.default.get("fit.min_epochs", fit.min_epochs)), int(bound)


def _numbers(found: Any) -> tuple[float, ...]:
    return tuple(found.values) if hasattr(found, "values") else (found.low, found.high)


def _line(arm: Arm, trial: Trial, most: int, best: float | None, *, again: bool) -> str:
    changed = {n: v for n, v in trial.settings.items() if v != arm.default.get(n)}
    told = ", ".join(f"{n} = {v}" for n, v in changed.items()) or "as it is"
    value = f"{trial.value:.4f}" if trial.value is not None else trial.why
    shown = f" (best {best:.4f})" if best is not None else ""
    time_taken = "known already" if again else f"{trial.seconds:.1f} s"
    return f"{arm.name} {trial.number + 1}/{most}: {value}{shown}, {time_taken}: {told}"


def document(
    found: Sequence[Outcome], search: Search, *, done: bool, seconds: float
) -> Mapping[str, Any]:
    """Return the document of ``llmers tune --json``."""
    return {
        "dataset": search.ctx.dataset, "complete": done, "seconds": round(seconds, 2),
        "trials": search.budget.trials, "seed": search.seed, "pruner": search.pruner,
        "metric": found[0].metric, "arms": [o.document() for o in found],
    }  # fmt: skip
