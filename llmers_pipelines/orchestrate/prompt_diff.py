"""Two revisions of a prompt task on the same rows: what is kept of each, and what differs."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..llm.preview import CHARACTERS_PER_TOKEN
from ..plan import Generate, PlanError
from .build import Plan
from .context import StepContext, StepError
from .prompt_figures import Answered, agreement, compare, most_different, refusals
from .prompts import generating

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Kept:
    """Answers of one revision that were published: by row id, with who answered and since when."""

    revision: str
    asset: str
    data_version: str
    created: str
    rows: dict[str, dict[str, Any]]
    model: str = ""


def kept_revisions(node: Generate, ctx: StepContext) -> dict[str, Kept]:
    """Return the newest materialization of each revision of ``node``'s task on this data set."""
    found: dict[str, Kept] = {}
    task = node.task.prompt_revision.split("-r")[0]
    for manifest in reversed(ctx.manifests.versions(ctx.dataset, f"{node.prefix}/*")):
        path = ctx.manifests.path(manifest) / "rows.parquet"
        revision = manifest.info.get("prompt_revision", "")
        template = manifest.name.endswith("__template")
        if revision.split("-r")[0] != task or revision in found or not path.is_file() or template:
            continue
        table = pq.read_table(path)
        rows = {str(r[node.task.id_column]): r for r in table.to_pylist()}
        found[revision] = Kept(revision, manifest.name, manifest.data_version, manifest.created,
                               rows, manifest.info.get("model", ""))  # fmt: skip
    return found


def diff(
    plan: Plan,
    node: Generate,
    ctx: StepContext,
    *,
    old: str = "",
    new: str = "",
    sample: int = 100,
    seed: int = 0,
    ask: bool = False,
    top: int = 3,
) -> dict[str, Any]:
    """Return figures of two revisions on ``sample`` seeded rows that the data set has now.

    A revision's answers are those of its newest materialization; those of the revisions that the
    plan renders now come from the response store, and with ``ask`` what is missing there is asked
    and stored. Defaults: ``new`` is ``node``'s own revision, ``old`` the newest other one.
    Raises ``PlanError`` for a revision of which nothing is known.
    """
    from .steps.generate import entity_rows

    kept = kept_revisions(node, ctx)
    nodes = {n.task.prompt_revision: n for n in generating(plan, _name(node))} | {
        node.task.prompt_revision: node
    }
    new = new or node.task.prompt_revision
    old = old or next((r for r in kept if r != new), "") or next((r for r in nodes if r != new), "")
    for revision in (old, new):
        if revision not in kept and revision not in nodes:
            known = ", ".join(dict.fromkeys((*kept, *nodes)))
            what = (
                f"revision {revision!r} is not known" if revision else "there is no older revision"
            )
            raise PlanError(f"{node.name}: {what}; kept or renderable on {ctx.dataset!r}: {known}")
    rows = {str(r[node.task.id_column]): r for r in entity_rows(node, ctx)}
    ids = sorted(rows)
    for revision in (old, new):  # what cannot be rendered must have been kept
        if revision not in nodes:
            ids = [i for i in ids if i in kept[revision].rows]
    if not ids:
        raise StepError(f"{node.name}: no row of now has an answer under {old!r}")
    drawn = np.random.default_rng(seed).choice(len(ids), min(sample, len(ids)), replace=False)
    chosen = {ids[i]: rows[ids[i]] for i in sorted(drawn)}
    (before, from_), (after, to) = (
        _side(nodes.get(r), kept.get(r), node, chosen, ctx, ask) for r in (old, new)
    )
    before, after, how = _with_tokens(node, ctx, before, after)
    return {
        "task": _name(node), "asset": node.name, "dataset": ctx.dataset, "rows": len(chosen),
        "seed": seed, "tokens": how,
        "from": {"revision": old, **from_}, "to": {"revision": new, **to},
        "figures": compare(before, after, seed=seed),
        "refusals": {"from": refusals(before), "to": refusals(after)},
        "agreement": agreement(before, after, seed=seed),
        "most_different": most_different(before, after, top),
        "prompt": _prompts(before, after, nodes.get(old), nodes.get(new), chosen, ctx),
    }  # fmt: skip


def _name(node: Generate) -> str:
    return node.task.prompt_revision.split("-r")[0]


def _with_tokens(
    node: Generate, ctx: StepContext, *sides: Sequence[Answered]
) -> tuple[list[Answered], list[Answered], str]:
    """Return the sides with the length of each text in tokens, and how it was counted."""
    from .steps.generate import engine_for

    engine, _, _ = engine_for(node, ctx)
    own = getattr(engine, "text_tokens", None)
    how = (
        "the model's own tokenizer"
        if own
        else f"estimate: {CHARACTERS_PER_TOKEN} characters a token"
    )
    count = own or (lambda text: -(-len(text) // CHARACTERS_PER_TOKEN))
    before, after = ([dataclasses.replace(a, tokens=count(a.text)) if a.text else a for a in side]
                     for side in sides)  # fmt: skip
    engine.close()
    return before, after, how


def _side(
    own: Generate | None, kept: Kept | None, node: Generate, rows: Rows,
    ctx: StepContext, ask: bool,
) -> tuple[list[Answered], dict[str, Any]]:  # fmt: skip
    """Return the answers of one revision to ``rows``, in order, and where they come from."""
    if own is not None:
        table, model, source = _now(own, rows, ctx, ask)
        answered = sum(raw is not None for raw in table["raw"].to_pylist())
        if answered or kept is None or kept.model != model:  # another model answered then
            by_id = {str(r[own.task.id_column]): r for r in table.to_pylist()}
            return ([_answered(own, i, by_id[i], rows[i]) for i in rows],
                    {"source": source, "model": model, "answered": answered})  # fmt: skip
    assert kept is not None
    answers = [_answered(own or node, i, kept.rows.get(i, {}), rows[i]) for i in rows]
    return answers, {
        "source": f"{kept.asset} @ {kept.data_version} of {kept.created}", "model": kept.model,
        "answered": sum(a.raw is not None for a in answers),
    }  # fmt: skip


def _now(node: Generate, rows: Rows, ctx: StepContext, ask: bool) -> tuple[pa.Table, str, str]:
    """Return the rows that a run gives; without ``ask`` an engine that costs is not called."""
    from ..llm.budget import Budget
    from ..llm.runner import run_task
    from ..store.responses import ResponseStore
    from .steps.generate import engine_for, prompt_context, sampling_of

    engine: Any
    engine, _, _ = engine_for(node, ctx)
    source = "the response store" + (" and new answers" if ask else "")
    if engine.info.kind == "template":
        source = "the template, no language model"
    elif not ask or engine.info.kind == "recorded":
        engine = _Silent(engine)
    budget = Budget(ctx.settings.budget_calls, ctx.settings.budget_tokens)
    try:
        found = run_task(
            node.task, list(rows.values()), engine, ResponseStore(ctx.settings.data / "responses"),
            sampling=sampling_of(ctx), budget=budget, context=prompt_context(ctx), progress=False,
        )  # fmt: skip
    finally:
        engine.close()
    return found.rows, engine.info.label, source


class _Silent:
    """An engine by name only: what is not stored stays unanswered."""

    def __init__(self, engine: Any) -> None:
        self.info = engine.info
        self._engine = engine

    def generate(self, requests: Sequence[Any], *, halt: Any = None) -> Any:
        return iter(())

    def close(self) -> None:
        self._engine.close()


def _answered(node: Generate, row_id: str, row: Mapping[str, Any], catalog: Any) -> Answered:
    """Return a published row as judged by the present parser and grounding rule."""
    raw = row.get("raw")
    out = Answered(row_id, row.get("status") or "no_answer", row.get("reason") or "", raw,
                   key=row.get("request_key") or "")  # fmt: skip
    if raw is None:
        return out
    parsed = node.task.parse(raw)
    if parsed.value is None:
        return dataclasses.replace(out, valid=False)
    accepted = out.status in ("ok", "repaired")
    text = (row.get("text") or node.task.text(parsed.value)) if accepted else None
    return dataclasses.replace(
        out, valid=True, value=parsed.value if accepted else None, text=text,
        grounded=not node.task.ground(parsed.value, catalog),
    )  # fmt: skip


def _prompts(
    before: Sequence[Answered], after: Sequence[Answered], old: Generate | None,
    new: Generate | None, rows: Rows, ctx: StepContext,
) -> dict[str, Any] | None:  # fmt: skip
    """Return a line by line difference of one row's prompt; None where one side is unknown."""
    for a, b in zip(before, after, strict=True):
        first, second = (_prompt(node, answer, rows[answer.row_id], ctx)
                         for node, answer in ((old, a), (new, b)))  # fmt: skip
        if first and second:
            lines = difflib.unified_diff(first, second, "from", "to", lineterm="", n=1)
            return {"id": a.row_id, "diff": list(lines)}
    return None


def _prompt(node: Generate | None, answer: Answered, row: Any, ctx: StepContext) -> list[str]:
    """Return a prompt as lines: rendered now, or as it was stored with the answer."""
    from ..llm.pictures import plain_message
    from ..store.responses import ResponseStore
    from .steps.generate import prompt_context

    if node is not None:
        messages = [plain_message(m) for m in node.task.render(row, prompt_context(ctx))]
    else:
        stored = ResponseStore(ctx.settings.data / "responses").records([answer.key])
        messages = json.loads(stored[0]["request"])["messages"] if stored else []
    return [f"{m['role']}| {line}" for m in messages for line in str(m["content"]).splitlines()]
