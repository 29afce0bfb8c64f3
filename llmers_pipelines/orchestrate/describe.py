"""How an asset presents itself in the graph: description, kinds, tags, pool."""

from __future__ import annotations

import inspect
from typing import Any

from ..config import Settings
from ..gpu import POOL
from ..plan import (
    Champion,
    Derive,
    Embed,
    Evaluate,
    Generate,
    Node,
    Pin,
    Register,
    Table,
    Teach,
    Train,
    Tune,
)
from .build import Plan
from .variants import differences

_KINDS = {
    "table": {"duckdb", "parquet"}, "generate": {"llm", "parquet"}, "embed": {"huggingface"},
    "derive": {"numpy"}, "train": {"pytorch"}, "evaluate": {"parquet"}, "register": {"mlflow"},
    "champion": {"mlflow"}, "pin": {"parquet"}, "teach": {"parquet"}, "distill": {"pytorch"},
    "tune": {"pytorch", "huggingface"},
}  # fmt: skip
_TABLES = {
    "items": "The validated catalog: one row per item, with the texts that prompts and vectors "
    "are made of.",
    "users": "Known users, with what the data set says of them.",
    "interactions": "Who met which item, when, and how it was rated: validated rows alone.",
    "kg": "Facts beside the log: head_id, relation, tail_id.",
    "kg_link": "The entity of each item in the facts beside the log.",
}
# What a materialization spends, as tag `llmers/cost`.
CALLS, TRAINING, ENCODING, LITTLE = "llm_calls", "training", "encoding", "little"


def asks_model(node: Node) -> bool:
    """Say whether a language model may be asked in this step."""
    if isinstance(node, Generate):
        return node.llm != "template"
    return isinstance(node, Teach) and node.how.asks_model


def kinds_of(node: Node) -> set[str]:
    """Return at most three kinds: the icons of the node in the graph."""
    asking = isinstance(node, Teach) and asks_model(node)
    return _KINDS[node.verb] | ({"llm"} if asking else set())


def describe(node: Node, plan: Plan) -> str:
    """Return the description of an asset: one plain sentence, what is behind it, who uses it."""
    lead, doc = _lead(node, plan)
    methods = plan.owners.get(node, ())
    shown = ", ".join(methods[:6]) + (f" and {len(methods) - 6} more" if len(methods) > 6 else "")
    parts = [lead, doc, _variant(node, plan), f"Used by: {shown}." if methods else ""]
    return "\n\n".join(p for p in parts if p)


def _variant(node: Node, plan: Plan) -> str:
    """Say in what a node with a mark differs from the one that has the plain name."""
    if not node.mark:
        return ""
    first = plan.node(f"{node.prefix}/{node.plain}")
    return f"A variant of `{first.name}`: {'; '.join(differences(first, node))}."


def _lead(node: Node, plan: Plan) -> tuple[str, str]:
    """Return (one sentence for a newcomer, the docstring of what does the work)."""
    if isinstance(node, Table):
        if node.table == "splits":
            return f"Training, validation and test rows of the task `{node.task}`.", (
                "Ids become positions here; every model of the task reads this one log."
            )
        return _TABLES.get(node.table, f"The table `{node.table}` beside the log."), ""
    if isinstance(node, Generate):
        about = f"about each {node.task.entity}"
        if node.llm:
            return f"One text {about} from a fixed template: the control without an LLM.", ""
        return (
            f"Answers of the language model {about}: parsed, validated, grounded in its row.",
            _doc(node.task),
        )
    if isinstance(node, Embed):
        first, rest = _split(_doc(node.text))
        whose = f"the answers {node.over.name}" if isinstance(node.over, Generate) else first
        return f"Texts as vectors, one per row: {whose[:1].lower()}{whose[1:]}", rest
    if isinstance(node, Tune):
        first, rest = _split(_doc(node.how))
        what = "language model" if node.how.base == "llm" else "encoder"
        made = f"An adapter over the {what}," if node.how.has_adapter else "Weights,"
        return f"{made} tuned on {node.examples.name}.", f"{first}\n\n{rest}"
    if isinstance(node, (Derive, Teach)):
        first, rest = _split(_doc(node.how))
        return first, "\n\n".join(p for p in (f"From {node.inputs[0].name}.", rest) if p)
    if isinstance(node, Train):
        return _training(node, plan)
    if isinstance(node, Evaluate):
        if node.base is None:
            return f"Test metrics of the baseline {node.slug}, with intervals over users.", ""
        return f"Does {node.slug} help? Metrics against its base and controls, with intervals.", (
            f"The base is {node.base.slug}; controls fill the same slot with what should not help."
        )
    if isinstance(node, Register):
        return f"How {node.slug} would be served: an MLflow model version, without any LLM.", ""
    if isinstance(node, Champion):
        return f"The gate of the task `{node.task}`: which registered model serves.", (
            "It alone moves the alias `champion`, and only for a candidate that beats the champion "
            "and the fixed reference on validation."
        )
    if isinstance(node, Pin):
        return (
            f"A version of {node.node.name if node.node else '?'} that stands until it is "
            "moved on purpose.",
            "So that a retrained baseline does not buy all answers again.",
        )
    return node.name, ""


def _training(node: Train, plan: Plan) -> tuple[str, str]:
    backbone = type(node.backbone).__name__
    owner = plan.of_training.get(node)
    if not node.parts:
        lead = f"The recommender {backbone} alone: a baseline, and the base of what enhances it."
    else:
        name = owner.recipe.name if owner else node.slug
        lead = f"{backbone} enhanced by {name}: the weights that would be served."
        if node.slug.endswith("__template"):
            method = name.removesuffix("__template")
            lead = f"The method {method} fed by templates: the control without an LLM."
    return lead, owner.recipe.doc if owner is not None else _doc(node.backbone)


def _doc(part: Any) -> str:
    return inspect.getdoc(type(part)) or ""


def _split(doc: str) -> tuple[str, str]:
    """Return the first sentence of a docstring and the rest."""
    head, _, rest = doc.partition("\n\n")
    return " ".join(head.split()), rest


def cost_of(node: Node) -> str:
    """Return what a materialization spends most of."""
    if asks_model(node):
        return CALLS
    if isinstance(node, (Train, Evaluate, Tune)):
        return TRAINING
    return ENCODING if isinstance(node, Embed) else LITTLE


def tags_of(node: Node, plan: Plan, settings: Settings) -> dict[str, str]:
    """Return tags to filter by: ``method/<name>``, ``family/<name>``, verb, cost, device."""
    tags: dict[str, str] = {"llmers/verb": node.verb, "llmers/cost": cost_of(node)}
    if uses_device(node, settings):
        tags["llmers/device"] = ""
    for slug in plan.owners.get(node, ()):
        tags[f"method/{slug[:63]}"] = ""
        if slug in plan.families:
            tags[f"family/{plan.families[slug]}"] = ""
    return tags


def uses_device(node: Node, settings: Settings) -> bool:
    """Say whether a step computes on the accelerator where there is one."""
    local = settings.engine in ("hf", "vllm")
    if isinstance(node, Tune) or getattr(node, "adapter", None) is not None:
        return True
    if isinstance(node, Generate):
        return local and asks_model(node)
    if isinstance(node, Teach):
        from ..teach.recorded_ranking import RecordedRanking  # which few plans hold

        return local if asks_model(node) else not isinstance(node.how, RecordedRanking)
    if isinstance(node, Embed):
        return node.model.partition("?")[0] != "tfidf"
    if isinstance(node, Train):
        return not node.backbone.closed_form
    trained = node.model if isinstance(node, Evaluate) else None
    return trained is not None and not trained.backbone.closed_form


def pool_of(node: Node, settings: Settings) -> str | None:
    """Return ``gpu`` for steps that compute on a device (on a CPU its limit guards the memory),
    ``llm`` for those that ask an endpoint or read answers."""
    if uses_device(node, settings):
        return POOL
    return "llm" if isinstance(node, Generate) or asks_model(node) else None
