"""Embed: texts to vectors through the vector store, with the embedding invariants as checks."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ...data.text import Texts
from ...data.training import IdMap
from ...data.vectors import VectorTable
from ...plan import Embed, Node, Table, walk
from ...store.manifests import CheckOutcome
from ..context import Outcome, StepContext
from ..lineage import columns_read
from ..progress import encoded
from ..tuned import adapter_folder

TEXTS = "texts.parquet"


def sources(node: Embed, ctx: StepContext) -> dict[str, str]:
    """Return the identity of the encoder's weights and of the declared text columns."""
    from ...encode.encoder import MINILM_SHA256

    found = {"text columns": str(sorted(ctx.field_kinds.items()))}
    if node.adapter is not None:
        found["encoder"] = encoder_of(node, ctx).info.identity
    elif node.model == "minilm":
        found["encoder"] = MINILM_SHA256
    elif node.model.partition("?")[0] != "tfidf":
        found["encoder"] = encoder_of(node, ctx).info.identity
    return found


def encoder_of(node: Embed, ctx: StepContext) -> Any:
    """Return the node's encoder; one that fits (TF-IDF) keeps a fit per asset and data set."""
    state = ctx.settings.data / "encoders" / ctx.dataset / node.slug
    if node.model.partition("?")[0] == "tfidf":
        from ...encode.encoder import make_encoder

        return make_encoder(node.model, device=ctx.device, state_folder=state)
    batch = int(ctx.limits.get("batch_tokens") or 0)
    tuned = str(adapter_folder(node.adapter, ctx)) if node.adapter is not None else ""
    return _encoder(node.model, ctx.device, batch, _version(node.model), tuned)


@lru_cache(maxsize=2)
def _encoder(
    name: str, device: str, batch_tokens: int, version: tuple[tuple[str, int, int], ...],
    adapter: str = "",
) -> Any:  # fmt: skip
    """Return an encoder, made once per version of its folder in a process that lives long."""
    from ...encode.encoder import make_encoder

    over = Path(adapter) if adapter else None
    return make_encoder(name, device=device, token_budget=batch_tokens or None, adapter=over)


def _version(name: str) -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and times of the files of a local encoder; () for any other."""
    folder = Path(name.partition("?")[0]).expanduser()
    if not folder.is_dir():
        return ()
    stats = ((f.name, f.stat()) for f in sorted(folder.iterdir()) if f.is_file())
    return tuple((file, s.st_size, s.st_mtime_ns) for file, s in stats)


def texts_of(node: Embed, ctx: StepContext) -> Texts:
    """Return what the encoder reads: from table or answers, the log and the items in context."""
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
    from ...encode.run import embed_texts, missing_texts
    from ...store.vectors import VectorStore

    texts = texts_of(node, ctx)
    encoder = encoder_of(node, ctx)
    store = VectorStore(ctx.settings.data / "vectors")
    report, began = ctx.reporter(), time.monotonic()

    def progress(n: int, total: int) -> None:
        report(lambda: encoded(node.name, n, total, time.monotonic() - began))

    missing = missing_texts(texts, encoder, store)
    table, counts = embed_texts(texts, encoder, store, progress)
    before = _before(node, ctx, encoder)
    kinds = _categories(node, ctx) if table.entity == "item" else None
    checks = _checks(table, texts, encoder, (counts, missing), before, kinds)
    entity = table.entity

    def save(folder: Path) -> None:
        table.save(folder)
        pq.write_table(texts.to_table(), folder / TEXTS, compression="zstd")

    return Outcome(
        save,
        table.content_hash(),
        rows=len(table.ids),
        counts={"width": table.dim, "encoder": encoder.info.label, **counts.asdict()},
        checks=checks,
        columns=((f"{entity}_id", "string", "entity"),
                 ("vector", f"float32[{table.dim}]", f"by {encoder.info.label}"),
                 ("mask", "bool", "False where the row is a fallback")),
        lineage={"vector": columns_read(node.inputs, ctx)},
        info={"encoder": encoder.info.identity, "preview": _preview(texts)},
        verify=lambda folder: stored_checks(table, folder),
        keep=table,
    )  # fmt: skip


def _preview(texts: Texts, n: int = 3) -> str:
    rows = [f"| {i} | {t[:160].replace(chr(10), ' / ').replace('|', ' ')} |"
            for i, t in list(zip(texts.ids, texts.texts, strict=True))[:n]]  # fmt: skip
    return "\n".join([f"| {texts.entity} | text |", "|---|---|", *rows])


def _checks(
    table: VectorTable, texts: Texts, encoder: Any, cost: tuple[Any, int],
    before: tuple[VectorTable, dict[str, str]] | None, categories: dict[str, list[str]] | None,
) -> tuple[CheckOutcome, ...]:  # fmt: skip
    from ...encode.invariants import coverage, determinism, geometry

    counts, missing = cost
    # Nothing was encoded: the rows were checked when they were, and no model need be loaded.
    same = determinism(table, texts, encoder) if counts.encoded else None
    return (
        outcome(coverage(table, texts.ids), blocking=True),
        outcome(same, blocking=True) if same else CheckOutcome(
            "determinism", True, True, {"checked": 0, "all rows": "from the vector store"}),
        _incrementality(table, texts, counts.encoded, missing, before),
        outcome(geometry(table, categories), blocking=False),
    )  # fmt: skip


def _categories(node: Embed, ctx: StepContext) -> dict[str, list[str]] | None:
    """Return item id -> values of the first category column; None where there is none."""
    items = next((n for n in walk([node]) if _is_items(n)), None)
    told = [name for name, kind in ctx.field_kinds.items() if kind == "category"]
    if items is None or not told:
        return None
    table = ctx.load(items)
    if told[0] not in table.column_names:
        return None
    values = table[told[0]].to_pylist()
    lists = [v if isinstance(v, list) else [v] if v else [] for v in values]
    return dict(zip(table["item_id"].to_pylist(), lists, strict=True))


def _before(
    node: Embed, ctx: StepContext, encoder: Any
) -> tuple[VectorTable, dict[str, str]] | None:
    """Return the previous version's vectors and texts, where the same encoder made them."""
    have = ctx.manifests.current(ctx.dataset, node.name)
    if have is None or have.info.get("encoder") != encoder.info.identity:
        return None
    folder = ctx.manifests.path(have)
    if not (folder / TEXTS).is_file():
        return None
    rows = pq.read_table(folder / TEXTS)
    ids, told = rows.column(0).to_pylist(), rows["text"].to_pylist()
    return VectorTable.load(folder), dict(zip(ids, told, strict=True))


def _incrementality(
    table: VectorTable, texts: Texts, encoded_now: int, missing: int,
    before: tuple[VectorTable, dict[str, str]] | None,
) -> CheckOutcome:  # fmt: skip
    """Only texts that the store lacked were encoded, and no row of an unchanged text moved."""
    from ...encode.invariants import incrementality, unchanged_rows

    check = incrementality(encoded_now, missing)
    if before is None:
        details = {**check.details, "first version": True}
        return CheckOutcome("incrementality", check.passed, True, details)
    old_table, old = before
    changed = {i for i, t in zip(texts.ids, texts.texts, strict=True) if old.get(i) != t}
    stayed = unchanged_rows(old_table, table, changed)
    details = {**check.details, **stayed.details}
    return CheckOutcome("incrementality", check.passed and stayed.passed, True, details)


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
