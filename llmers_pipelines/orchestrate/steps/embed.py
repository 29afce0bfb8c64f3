"""Embed: texts to vectors through the vector store, with the embedding invariants as checks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from ...data.text import Texts
from ...data.training import IdMap
from ...data.vectors import VectorTable
from ...plan import Embed, Generate, Node, Table
from ...store.manifests import CheckOutcome
from ..context import Outcome, StepContext


def sources(node: Embed, ctx: StepContext) -> dict[str, str]:
    """Return the identity of the encoder's weights and of the declared text columns."""
    from ...encode.encoder import MINILM_SHA256

    found = {"text columns": str(sorted(ctx.field_kinds.items()))}
    if node.model == "minilm":
        found["encoder"] = MINILM_SHA256
    elif node.model.partition("?")[0] != "tfidf":
        found["encoder"] = encoder_of(node, ctx).info.identity
    return found


def encoder_of(node: Embed, ctx: StepContext) -> Any:
    return _encoder(node.model, ctx.device, str(ctx.settings.data / "encoders" / ctx.dataset))


@lru_cache(maxsize=2)
def _encoder(name: str, device: str, state: str) -> Any:
    from ...encode.encoder import make_encoder

    return make_encoder(name, device=device, state_folder=Path(state))


def texts_of(node: Embed, ctx: StepContext) -> Texts:
    """Return what the encoder reads: from the table or answers, the log and the items in context."""
    table = ctx.load(node.over)
    log = next((ctx.load(n) for n in node.context if _is_splits(n)), None)
    items = next((ctx.load(n) for n in node.context if _is_items(n)), None)
    if items is None and isinstance(node.over, Table) and node.over.table == "items":
        items = table
    return node.text.texts(table=table, log=log, items=items, fields=ctx.field_kinds)


def _is_splits(node: Node) -> bool:
    return isinstance(node, Table) and node.table == "splits"


def _is_items(node: Node) -> bool:
    return isinstance(node, Table) and node.table == "items"


def run(node: Embed, ctx: StepContext) -> Outcome:
    """Encode the texts that the vector store lacks and publish one row per entity."""
    from ...encode.run import embed_texts
    from ...store.vectors import VectorStore

    texts = texts_of(node, ctx)
    encoder = encoder_of(node, ctx)
    store = VectorStore(ctx.settings.data / "vectors")
    done = [0]

    def progress(n: int, total: int) -> None:
        if n - done[0] >= 1000 or n == total:
            done[0] = n
            ctx.log(f"{node.name}: {n} of {total} texts encoded")

    table, counts = embed_texts(texts, encoder, store, progress)
    checks = _checks(table, texts, encoder, counts)
    entity = table.entity
    source = node.over.name
    column = "text" if isinstance(node.over, Generate) else ", ".join(ctx.field_kinds) or "text"
    lineage = {"vector": ((source, column), *((n.name, "*") for n in node.context))}
    return Outcome(
        table.save,
        table.content_hash(),
        rows=len(table.ids),
        counts={"width": table.dim, "encoder": encoder.info.label, **counts.asdict()},
        checks=checks,
        columns=((f"{entity}_id", "string", "entity"),
                 ("vector", f"float32[{table.dim}]", f"by {encoder.info.label}"),
                 ("mask", "bool", "False where the row is a fallback")),
        lineage=lineage,
        info={"encoder": encoder.info.identity, "preview": _preview(texts)},
        verify=lambda folder: stored_checks(table, folder),
        keep=table,
    )  # fmt: skip


def _preview(texts: Texts, n: int = 3) -> str:
    rows = [f"| {i} | {t[:160].replace(chr(10), ' / ').replace('|', ' ')} |"
            for i, t in list(zip(texts.ids, texts.texts, strict=True))[:n]]  # fmt: skip
    return "\n".join([f"| {texts.entity} | text |", "|---|---|", *rows])


def _checks(
    table: VectorTable, texts: Texts, encoder: Any, counts: Any
) -> tuple[CheckOutcome, ...]:
    from ...encode.invariants import coverage, determinism, geometry, incrementality

    expected = counts.distinct - counts.cached
    return (
        outcome(coverage(table, texts.ids), blocking=True),
        outcome(determinism(table, texts, encoder), blocking=True),
        outcome(incrementality(counts.encoded, expected), blocking=True),
        outcome(geometry(table), blocking=False),
    )


def stored_checks(table: VectorTable, folder: Path) -> tuple[CheckOutcome, ...]:
    """Return the invariants that compare a vector table with its stored files."""
    from ...encode.invariants import padding, row_identity

    ids = IdMap(table.ids)
    return (
        outcome(row_identity(table, ids, stored=folder), blocking=True),
        outcome(padding(*table.aligned(ids)), blocking=True),
    )


def outcome(check: Any, *, blocking: bool) -> CheckOutcome:
    """Return a library check in the form that manifests keep."""
    return CheckOutcome(check.name, bool(check.passed), blocking, dict(check.details))
