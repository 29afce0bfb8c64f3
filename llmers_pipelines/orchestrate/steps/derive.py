"""Derive: a pure function of assets; fits are kept per data set until an explicit version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...data.training import TRAIN, TrainingData
from ...data.vectors import VectorTable
from ...plan import Derive, Node, Pin, Train, Tune
from ...store.manifests import CheckOutcome
from ..applicable import uncut
from ..context import Outcome, StepContext, StepError, hash_table, save_rows
from ..lineage import columns_read
from .derive_checks import CHECKS
from .embed import stored_checks


def sources(node: Derive, ctx: StepContext) -> dict[str, str]:
    """Return the declared columns and the domain where the component words anything."""
    if not node.how.reads_words:
        return {}
    words = prompt_words(ctx)
    return {"columns": str(sorted(ctx.field_kinds.items())), "domain": str(words["domain"])}


def prompt_words(ctx: StepContext) -> dict[str, Any]:
    """Return what prompts say alike for all rows."""
    from .generate import prompt_context

    return {k: v for k, v in prompt_context(ctx).items() if k != "images"}


def run(node: Derive, ctx: StepContext) -> Outcome:
    """Apply the component to its sources; StepError where it would tell labels of users."""
    if node.how.tells_users and (why := uncut(node, ctx.description)):
        raise StepError(f"{node.name}: {why}")
    loaded = [_opened(s, node, ctx) for s in node.sources]
    log = next((a for a in loaded if isinstance(a, TrainingData)), None)
    # One folder per node: two reducers never share a fit, a re-run of one always does.
    state = ctx.root / "fits" / ctx.dataset / node.slug
    more = {"context": prompt_words(ctx)} if node.how.reads_words else {}
    artifact, info = node.how.apply(loaded, log=log, state_folder=state, **more)
    counts = {k: v for k, v in info.items() if isinstance(v, (int, float, str, bool))}
    made_from = columns_read(node.sources, ctx)
    if isinstance(artifact, VectorTable):
        moved = _moved(node, artifact, loaded, info, ctx)
        return Outcome(
            artifact.save,
            artifact.content_hash(),
            rows=len(artifact.ids),
            counts={"width": artifact.dim, **counts},
            checks=_vector_checks(artifact, loaded, info, moved),
            columns=((f"{artifact.entity}_id", "string", "entity"),
                     ("vector", f"float32[{artifact.dim}]", ""),
                     ("mask", "bool", "False where the row is a fallback")),
            lineage={"vector": made_from},
            verify=lambda folder: stored_checks(artifact, folder),
            keep=artifact,
        )  # fmt: skip
    return Outcome(
        save_rows(artifact),
        hash_table(artifact),
        rows=artifact.num_rows,
        counts=counts,
        checks=_table_checks(node, artifact, log, info),
        columns=tuple((f.name, str(f.type), "") for f in artifact.schema),
        lineage={name: made_from for name in artifact.column_names},
        info={"preview": preview(artifact)},
        keep=artifact,
    )


def _table_checks(
    node: Derive, table: pa.Table, log: TrainingData | None, info: dict[str, Any]
) -> tuple[CheckOutcome, ...]:
    if node.how.rows == "candidates":
        return _candidate_checks(table, log, info)
    if node.how.rows == "neighbours":
        return _neighbour_checks(table)
    return CHECKS[node.how.rows](table, log)


def _opened(source: Node, node: Derive, ctx: StepContext) -> Any:
    """Return the artifact of ``source``; a trained model comes with the log that it knows."""
    target = source.node if isinstance(source, Pin) else source
    if isinstance(target, Tune):
        return _layers(target, ctx)
    if not isinstance(target, Train):
        return ctx.load(source)
    from ...derive.candidates import PastModel
    from ...models.served import load_served
    from ...train.trained import BESIDE, load_export

    train, manifest = ctx.stands_for(source)
    log = train.log
    version = manifest.inputs.get(log.name, "").split(" ")[0]
    if log not in node.sources or not version:
        raise StepError(
            f"{node.name}: {manifest.name} was not trained on the splits that stand beside it; "
            "give both the same protocol, so that no row that is held out here was trained on"
        )
    past = ctx.manifests.version(ctx.dataset, log.name, version)
    if past is None:
        raise StepError(
            f"{node.name}: the log that {manifest.name} was trained on was pruned; run "
            f"`llmers pin move {source.name} --dataset {ctx.dataset}`"
        )
    served = load_served(*load_export(ctx.manifests.path(manifest)))
    folder = ctx.manifests.path(manifest)

    def beside(name: str) -> pa.Table | None:
        path = folder / f"{BESIDE}{name}.parquet"
        return pq.read_table(path) if path.is_file() else None

    return PastModel(ctx.load_version(log, past), served.scores, served.item_vectors,
                     served.states, beside)  # fmt: skip


def _layers(tune: Tune, ctx: StepContext) -> Any:
    """Return the tuned layers that read vectors; nothing is loaded before they are used."""
    from ...derive.deep_states import DeepLayers
    from .tune import base_of

    def states(sequences: Any) -> Any:
        home = ctx.manifests.path(ctx.manifest(tune))
        return tune.how.states(base_of(tune, ctx)[0], home, sequences)

    return DeepLayers(states)


def preview(table: pa.Table, n: int = 5) -> str:
    """Return the first rows as a Markdown table; cells are cut and cannot break it."""

    def cell(value: Any) -> str:
        text = f"{value:.4f}" if isinstance(value, float) else str(value)
        return text[:120].replace("|", " ").replace("\n", " ")

    names = table.column_names
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in table.slice(0, n).to_pylist():
        lines.append("| " + " | ".join(cell(row[c]) for c in names) + " |")
    return "\n".join(lines)


def _moved(
    node: Derive, table: VectorTable, loaded: list[Any], info: dict[str, Any], ctx: StepContext
) -> Any:
    """Return the check that a kept fit left rows of equal source vectors where they were."""
    from ...encode.invariants import unchanged_rows

    have = ctx.manifests.current(ctx.dataset, node.name)
    if not info.get("reused") or have is None or have.code_version != node.code_version:
        return None
    at, source = next((n, a) for n, a in enumerate(loaded) if isinstance(a, VectorTable))
    name = node.sources[at].name
    version = have.inputs.get(name, "").split(" ")[0]
    before = ctx.manifests.version(ctx.dataset, name, version)
    folders = [ctx.manifests.path(m) for m in (have, before) if m is not None]
    if len(folders) < 2 or not all((f / "vectors.npy").is_file() for f in folders):
        return None
    made, read = (VectorTable.load(f) for f in folders)
    if read.dim != source.dim:
        return None
    rows = {entity: n for n, entity in enumerate(read.ids)}
    changed = {
        entity for n, entity in enumerate(source.ids)
        if entity not in rows or not np.array_equal(source.vectors[n], read.vectors[rows[entity]])
    }  # fmt: skip
    return unchanged_rows(made, table, changed)


def _vector_checks(
    table: VectorTable, loaded: list[Any], info: dict[str, Any], moved: Any = None
) -> tuple[CheckOutcome, ...]:
    from ...encode.invariants import reducer_hygiene, sign_convention

    source = next((a for a in loaded if isinstance(a, VectorTable)), None)
    covers = source is None or source.entity != table.entity or (
        source.ids == table.ids and bool(np.array_equal(source.mask, table.mask))
    )
    finite = bool(np.isfinite(np.asarray(table.vectors)).all())
    details: dict[str, Any] = {
        "fit_rows": info.get("fit_rows"), "rows_with_text": int((source or table).mask.sum()),
        "fit": "kept" if info.get("reused") else "new", "finite": finite, "covers_source": covers,
    }  # fmt: skip
    passed = covers and finite
    if "explained_variance" in info:
        check = reducer_hygiene(info)
        passed = passed and check.passed
        details |= check.details
    if "components" in info:
        signs = sign_convention(info["components"])
        passed = passed and signs.passed
        details |= {"axes": signs.details["axes"], "wrong signs": len(signs.details["wrong"])}
    if moved is not None:
        passed = passed and moved.passed
        details |= {"rows kept in place": moved.details.get("compared", 0),
                    "worst relative move": moved.details.get("worst_relative_move", 0.0)}
    return (CheckOutcome("reducer_hygiene", passed, True, details),)


def _neighbour_checks(table: pa.Table) -> tuple[CheckOutcome, ...]:
    own = next(c for c in ("user_id", "item_id") if c in table.column_names)
    selves = int(np.sum(np.asarray(table[own]) == np.asarray(table["other_id"])))
    return (CheckOutcome("row_identity", selves == 0, True, {"own neighbours": selves}),)


def _candidate_checks(
    table: pa.Table, log: TrainingData | None, info: dict[str, Any]
) -> tuple[CheckOutcome, ...]:
    """Each pair once, none of it a training row, and a model that no held-out row has taught."""
    assert log is not None, "candidates are made from a log"
    width = log.n_items + 1
    user = log.users.index(table["user_id"].to_pylist())
    item = log.items.index(table["item_id"].to_pylist())
    pair = user * width + item
    known = bool((user > 0).all() and (item > 0).all())
    rows = log.split == TRAIN
    met = int(np.isin(pair, log.user[rows] * width + log.item[rows]).sum())
    details = {"pairs": len(pair), "training rows offered": met}
    seen = info["held_out_seen"]
    why = {"why": f"the model was trained on {seen} rows that are held out now; move its pin"}
    return (
        CheckOutcome("row_identity", known and len(np.unique(pair)) == len(pair) and not met, True,
                     details),
        CheckOutcome("no_leakage", not seen, True,
                     {"held-out rows trained on": seen, **(why if seen else {})}),
    )  # fmt: skip
