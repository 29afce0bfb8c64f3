"""Prompt tasks of the plan: which assets ask them, who reads the answers, one row's question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plan import Generate, Node, PlanError, snake
from ..prompts import all_tasks
from .build import Plan, bind
from .context import StepContext, StepError


def list_tasks(plan: Plan) -> list[dict[str, Any]]:
    """Return one row per prompt task and asset that asks it; unused tasks have no asset."""
    rows = []
    for name, kind in all_tasks().items():
        nodes = [n for n in generating(plan, name) if n.llm != "template"]
        for node in nodes or [None]:
            task = node.task if node is not None else kind()
            readers = [n.name for n in plan.nodes if node is not None and node in n.inputs]
            rows.append({
                "name": name, "prompt_revision": task.prompt_revision, "entity": task.entity,
                "produces": task.produces, "asset": node.name if node is not None else None,
                "schema": None if task.free_text else sorted(task.answer.model_fields),
                "read_by": readers,
                "methods": list(plan.owners.get(node, ())) if node is not None else [],
                "about": (kind.__doc__ or "").strip().splitlines()[0],
            })  # fmt: skip
    return rows


def generating(plan: Plan, task: str) -> list[Generate]:
    """Return the Generate nodes of the plan that ask ``task`` (a task's name or an asset key)."""
    return [
        n for n in plan.nodes
        if isinstance(n, Generate) and task in (n.name, n.slug, snake(type(n.task).__name__))
    ]  # fmt: skip


def choose(plan: Plan, task: str, ctx: StepContext) -> Generate:
    """Return the one asset that ``task`` means; a task that no method uses gets one of its own.

    Raises ``PlanError`` for an unknown name and where several assets ask the task.
    """
    found = generating(plan, task)
    exact = [n for n in found if n.name == task]
    found = exact or [n for n in found if n.llm != "template"] or found
    if len(found) > 1:
        here = [n for n in found if ctx.manifests.current(ctx.dataset, n.name)]
        if len(here) != 1:
            names = ", ".join(n.name for n in found)
            raise PlanError(f"several assets ask {task!r}; give the key of one: {names}")
        return here[0]
    if found:
        return found[0]
    kinds = all_tasks()
    if task not in kinds:
        raise PlanError(f"no prompt task {task!r}; known: {', '.join(kinds)}")
    if (entity := kinds[task].entity) not in ("item", "user"):
        raise PlanError(f"{task!r} is asked about each {entity}, which a method makes; choose one "
                        "that asks it in llmers.toml")  # fmt: skip
    return own_node(kinds[task](), ctx)


def own_node(task: Any, ctx: StepContext) -> Generate:
    """Return a node that asks ``task`` about items, users or scenarios, outside of the plan."""
    from ..api import ScenarioFacts, items, splits, users
    from ..plan import Derive

    if task.entity == "item":
        node = Generate(task, over=items)
    elif task.entity == "scenario":
        facts = Derive(ScenarioFacts(), splits("multi_scenario"), items)
        node = Generate(task, over=facts)
    else:
        protocol = ctx.description.default_task or next(iter(ctx.description.tasks), "sequential")
        node = Generate(task, over=users, context=(splits(protocol), items))
    bound = bind(node, ctx.settings)
    assert isinstance(bound, Generate)
    return bound


def preview(node: Generate, row_id: str, ctx: StepContext, *, ask: bool = False) -> dict[str, Any]:
    """Return one row's question and answer (``llm.preview``); with ``ask`` a missing one is asked.

    Raises ``StepError`` where the catalog has no such row.
    """
    from ..llm.budget import Budget
    from ..llm.preview import preview_row
    from ..store.responses import ResponseStore
    from .steps.generate import engine_for, entity_rows, prompt_context, sampling_of

    rows = entity_rows(node, ctx)
    row = next((r for r in rows if str(r[node.task.id_column]) == row_id), None)
    if row is None:
        raise StepError(no_row(node, row_id, [str(r[node.task.id_column]) for r in rows], ctx))
    engine, flags, note = engine_for(node, ctx)
    try:
        found = preview_row(
            node.task, row, engine, ResponseStore(ctx.settings.data / "responses"),
            sampling=sampling_of(ctx), context=prompt_context(ctx), ask=ask,
            budget=Budget(ctx.settings.budget_calls, ctx.settings.budget_tokens),
            count=token_counter(engine),
        )  # fmt: skip
    finally:
        engine.close()
    return {"asset": node.name, "dataset": ctx.dataset, **found, "flags": list(flags),
            **({"note": note} if note else {})}  # fmt: skip


def no_row(node: Node, row_id: str, ids: Sequence[str], ctx: StepContext) -> str:
    import difflib

    near = difflib.get_close_matches(row_id, ids, n=3) or list(ids[:3])
    return (
        f"{node.name}: data set {ctx.dataset!r} has no row {row_id!r} among {len(ids)}; "
        f"for example {', '.join(near)}"
    )


def token_counter(engine: Any) -> Any:
    """Return a function that counts a prompt's tokens with the engine's own tokenizer, or None."""
    return getattr(engine, "count_tokens", None)


def check_stored(
    node: Generate, ctx: StepContext, *, names: Sequence[str] = (), examples: int = 3
) -> list[dict[str, Any]]:
    """Return what the safety checks find in the published texts of ``node``; nothing is changed.

    The checks are those of ``[safety]``, or every check that needs no word list; ``names`` chooses.
    """
    from ..prompts.safety import examine
    from ..safety import CHECKS, default_safety
    from .steps.safety import verdict

    if unknown := sorted(set(names) - set(CHECKS)):
        raise PlanError(f"no safety check {unknown[0]!r}; known: {', '.join(CHECKS)}")
    safety = ctx.settings.safety or default_safety()
    checks = [c for c in safety.of(node.prefix) if not names or c.name in names]
    table = ctx.load(node)
    ids = [str(v) for v in table[node.task.id_column].to_pylist()]
    texts = table["text"].to_pylist()
    found = examine(texts, checks)
    out = []
    for check in checks:
        told = verdict(check, ids, found, sum(text is not None for text in texts))
        own = [(i, f) for i, findings in zip(ids, found, strict=True) for f in findings
               if f.check == check.name]  # fmt: skip
        out.append({
            "check": check.name, "passed": told.passed, **told.details,
            "examples": [{"id": i, "kind": f.kind, "evidence": f.evidence}
                         for i, f in own[:examples]],
        })  # fmt: skip
    return out
