"""Control arms: the same knowledge given to the wrong owners, or noise in its place."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ..data.added import dealt_added, is_added, random_added
from ..data.edits import is_edits, random_edits
from ..data.training import TRAIN, TrainingData
from ..data.vectors import VectorTable
from ..data.weights import NamedWeights, dealt_weights, drawn_weights
from ..plan import Node
from .arms_of_graphs import dealt_edges, dealt_graphs, is_edges, is_graphs, random_graphs

PAIR_ARMS = ("random_pairs", "popular_pairs")
ARMS = ("permuted", "gaussian", "shuffled", *PAIR_ARMS)
PAIRS = ("liked", "disliked")  # columns of lists of item ids: the table augments interactions
ENTITIES = ("item", "user", "scenario")


def control_inputs(
    inputs: Mapping[Node, Any], arm: str, *, seed: int, log: TrainingData | None = None
) -> dict[Node, Any]:
    """Return ``inputs`` with every vector table and id table replaced by its control.

    ``permuted``: one permutation of ids per entity, drawn over all ids of that entity in
    ``inputs``; what belongs to id a is given to p(a) in all tables alike (vectors, neighbour
    lists: owner and other), so the knowledge keeps its shape and loses its tie to behaviour.
    ``gaussian``: vectors are drawn from a normal distribution with the mean and covariance of the
    real rows; the others in neighbour lists, and the items of rankings and of augmented pairs, are
    drawn at random. ``shuffled``: whole rankings are dealt to other training positions, all else
    stays real, so the control shows what rankings alone add. In rankings ``permuted`` moves the
    items, not the positions, so that every position stays taught; hidden states at training
    positions, which name no item, are dealt to other positions under ``permuted`` as well, and
    under ``gaussian`` are drawn layer by layer with the moments of the real ones. ``random_pairs``,
    ``popular_pairs``: vectors stay, and each user has as many augmented pairs as before, of items
    of ``log`` without a training row of that user: both uniform, or the liked one in proportion to
    its training count and the disliked one uniform. Edits of sequences are as many per user at
    random positions under ``permuted`` (the real suggestions, dealt anew) and ``gaussian`` (random
    items); added training rows have their users dealt anew under ``permuted`` and are as many of
    each item, of random users, under ``gaussian``. Marks of hard samples are dealt anew, or drawn
    with the same share. Labelled edges stay edges of the log: ``permuted`` deals the labels of each
    pair to another pair, ``gaussian`` draws as many pairs per label at random. Graphs of users are
    dealt to other users (``permuted``), or keep their shape and draw their nodes (``gaussian``).
    Of pretrained weights the rows of the id tables are dealt to other ids, or all are drawn anew.
    Everything else (a log) is passed through.
    Equal seed, equal result. Raises ValueError for another arm, for a table that has no gaussian
    counterpart, for ``shuffled`` without rankings, and where pairs are drawn without a log.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown control arm {arm!r}: use one of {ARMS}")
    taught = [a for a in inputs.values() if _is_rankings(a) or _is_states(a)]
    if arm == "shuffled" and not taught:
        raise ValueError("the control 'shuffled' is for methods with rankings; there are none here")
    changes = {"permuted": _permuted, "gaussian": _gaussian, "shuffled": _shuffled}
    change = changes.get(arm, _unchanged)
    others = sorted({a.entity for a in inputs.values() if isinstance(a, VectorTable)})
    entities = dict.fromkeys((*ENTITIES, *others))
    owners = {entity: _ids_in(inputs.values(), entity) for entity in entities}
    shuffled = {
        entity: dict(zip(ids, _derangement(ids, seed, number), strict=True))
        for number, (entity, ids) in enumerate(owners.items())
    }
    out = {}
    for number, (node, artifact) in enumerate(sorted(inputs.items(), key=lambda p: p[0].name)):
        rng = np.random.default_rng([seed, 2, number])
        if is_edits(artifact) and arm in ("permuted", "gaussian"):
            if log is None:
                raise ValueError("control edits are drawn from the log; give it as `log`")
            out[node] = random_edits(log, artifact, rng, suggested=arm == "permuted")
        elif is_added(artifact) and arm in ("permuted", "gaussian"):
            if log is None:
                raise ValueError("control rows are drawn from the log; give it as `log`")
            out[node] = (dealt_added if arm == "permuted" else random_added)(log, artifact, rng)
        elif isinstance(artifact, NamedWeights) and arm in ("permuted", "gaussian"):
            out[node] = (dealt_weights if arm == "permuted" else drawn_weights)(artifact, rng)
        elif _is_samples(artifact) and arm in ("permuted", "gaussian"):
            out[node] = _drawn_samples(artifact, rng, dealt=arm == "permuted")
        elif arm not in ("permuted", "shuffled") and _holds_pairs(artifact):
            out[node] = drawn_pairs(artifact, log, rng, popular=arm == "popular_pairs")
        else:
            out[node] = change(node, artifact, shuffled, owners, rng)
    return {node: out[node] for node in inputs}


def _entity_of(artifact: Any) -> str | None:
    """Return whose rows a table has, None where the artifact is no table of an entity."""
    if isinstance(artifact, VectorTable):
        return artifact.entity
    if isinstance(artifact, pa.Table):
        for entity in ENTITIES:
            if f"{entity}_id" in artifact.column_names:
                return entity
    return None


def _is_rankings(artifact: Any) -> bool:
    """Say whether the artifact is a teacher's table: items ranked at training positions."""
    return isinstance(artifact, pa.Table) and {"user_id", "position", "rank", "item_id"} <= set(
        artifact.column_names
    )


def _is_states(artifact: Any) -> bool:
    """Say whether the artifact is a teacher's table of hidden states at training positions."""
    return isinstance(artifact, pa.Table) and {"user_id", "position", "layer", "vec"} <= set(
        artifact.column_names
    )


def _is_samples(artifact: Any) -> bool:
    """Say whether the artifact marks samples as hard or not."""
    return isinstance(artifact, pa.Table) and {"label", "hard"} <= set(artifact.column_names)


def _drawn_samples(table: pa.Table, rng: np.random.Generator, *, dealt: bool) -> pa.Table:
    """Return the samples with their marks dealt anew, or drawn with the same share."""
    hard = np.array(table["hard"].to_pylist(), bool)
    drawn = rng.permutation(hard) if dealt else rng.random(len(hard)) < (hard.mean() if len(hard)
                                                                         else 0)  # fmt: skip
    return table.set_column(table.column_names.index("hard"), "hard", pa.array(drawn, pa.bool_()))


def _id_columns(table: pa.Table) -> list[str]:
    if _is_rankings(table):
        return ["item_id"]
    return [c for c in ("item_id", "user_id", "other_id") if c in table.column_names]


def _column_entity(table: pa.Table, column: str) -> str:
    owner = _entity_of(table)
    return str(owner) if column == "other_id" else column.removesuffix("_id")


def _ids_in(artifacts: Any, entity: str) -> list[str]:
    found: set[str] = set()
    for a in artifacts:
        if isinstance(a, VectorTable) and a.entity == entity:
            found.update(a.ids)
        elif isinstance(a, pa.Table):
            for column in _id_columns(a):
                if _column_entity(a, column) == entity:
                    found.update(a[column].to_pylist())
    return sorted(found)


def _derangement(ids: list[str], seed: int, number: int) -> list[str]:
    """Return ``ids`` shuffled such that none stays in place: one random cycle through all."""
    order = np.random.default_rng([seed, 1, number]).permutation(len(ids))
    out = list(ids)
    for at, following in zip(order, np.roll(order, -1), strict=True):
        out[at] = ids[following]
    return out


def _holds_pairs(artifact: Any) -> bool:
    return isinstance(artifact, pa.Table) and set(PAIRS) <= set(artifact.column_names)


def drawn_pairs(
    table: pa.Table, log: TrainingData | None, rng: np.random.Generator, *, popular: bool
) -> pa.Table:
    """Return ``table`` with as many pairs per user, of items that the user did not train on.

    The liked item is drawn uniformly, or with ``popular`` in proportion to its training count; the
    disliked one uniformly among the others.
    """
    if log is None:
        raise ValueError("control pairs are drawn from the log; give it as `log`")
    counts = log.train_counts.astype(np.float64)
    columns: dict[str, list[list[str] | None]] = {name: [] for name in PAIRS}
    users = log.users.index(table["user_id"].to_pylist())
    for user, given in zip(users, table[PAIRS[0]].to_pylist(), strict=True):
        if given is None or not user:
            columns["liked"].append(None), columns["disliked"].append(None)
            continue
        rows = slice(log.user_start[user], log.user_start[user + 1])
        free = np.ones(log.n_items + 1, bool)
        free[0] = False
        free[log.item[rows][log.split[rows] == TRAIN]] = False
        places = np.flatnonzero(free)
        weight = counts[places] if popular and counts[places].any() else np.ones(len(places))
        n = min(len(given), len(places) // 2, int((weight > 0).sum()))
        liked = rng.choice(places, n, replace=False, p=weight / weight.sum())
        disliked = rng.choice(np.setdiff1d(places, liked), n, replace=False)
        columns["liked"].append([log.items.ids[i - 1] for i in liked])
        columns["disliked"].append([log.items.ids[i - 1] for i in disliked])
    for name, values in columns.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, pa.list_(pa.string())))
    return table


def _unchanged(node: Node, artifact: Any, to: Any, owners: Any, rng: Any) -> Any:
    return artifact


def _permuted(node: Node, artifact: Any, to: Any, owners: Any, rng: Any) -> Any:
    if is_edges(artifact):
        return dealt_edges(artifact, rng, whole=True)
    if isinstance(artifact, VectorTable):
        ids = tuple(to[artifact.entity][i] for i in artifact.ids)
        return VectorTable(artifact.entity, ids, artifact.vectors, artifact.mask)
    if _is_states(artifact):
        return _shuffled(node, artifact, to, owners, rng)
    if _entity_of(artifact) is None:
        return artifact
    if is_graphs(artifact):
        return dealt_graphs(artifact, to["user"])
    for column in _id_columns(artifact):
        moved = to[_column_entity(artifact, column)]
        values = pa.array([moved[i] for i in artifact[column].to_pylist()], pa.string())
        artifact = artifact.set_column(artifact.column_names.index(column), column, values)
    return artifact


def _gaussian(node: Node, artifact: Any, to: Any, owners: Any, rng: np.random.Generator) -> Any:
    if is_edges(artifact):
        return dealt_edges(artifact, rng, whole=False)
    if isinstance(artifact, VectorTable):
        vectors = gaussian_like(np.asarray(artifact.vectors, np.float64), artifact.mask, rng)
        return VectorTable(artifact.entity, artifact.ids, vectors, artifact.mask)
    entity = _entity_of(artifact)
    if entity is None:
        return artifact
    if is_graphs(artifact):
        return random_graphs(artifact, rng)
    if _is_states(artifact):
        return _drawn_states(artifact, rng)
    if _is_rankings(artifact):
        drawn = _random_items(artifact, owners["item"], rng)
        index = artifact.column_names.index("item_id")
        return artifact.set_column(index, "item_id", pa.array(drawn, pa.string()))
    if "other_id" not in artifact.column_names:
        raise ValueError(
            f"{node.name}: a table with columns {artifact.column_names} has no gaussian "
            "counterpart; use the control 'permuted' for it"
        )
    values = _random_others(artifact[f"{entity}_id"].to_pylist(), owners[entity], rng)
    index = artifact.column_names.index("other_id")
    return artifact.set_column(index, "other_id", pa.array(values, pa.string()))


def _positions(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return (first int64[P + 1], order int64[R]): the rows of each position, best rank first."""
    user = np.asarray(table["user_id"].combine_chunks().dictionary_encode().indices)
    within = "rank" if "rank" in table.column_names else "layer"
    position, rank = (table[c].to_numpy() for c in ("position", within))
    order = np.lexsort((rank, position, user))
    new = np.diff(user[order]).astype(bool) | np.diff(position[order]).astype(bool)
    return np.concatenate([[0], np.flatnonzero(new) + 1, [len(order)]]), order


def _shuffled(node: Node, artifact: Any, to: Any, owners: Any, rng: np.random.Generator) -> Any:
    """Return rankings in which each position has the whole ranking of another one."""
    if not (_is_rankings(artifact) or _is_states(artifact)):
        return artifact
    first, order = _positions(artifact)
    count = len(first) - 1
    cycle = rng.permutation(count)
    giver = np.empty(count, np.int64)
    giver[cycle] = np.roll(cycle, -1)  # one cycle through all: none keeps its own
    sizes = np.diff(first)[giver]
    start = np.repeat(first[giver] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    rows = order[start + np.arange(sizes.sum())]
    owner = order[np.repeat(first[:-1], sizes)]
    columns = {
        c: artifact[c].take(owner if c in ("user_id", "position") else rows)
        for c in artifact.column_names
    }
    return pa.table(columns)


def _drawn_states(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return hidden states drawn with the mean and covariance of the real ones of each layer."""
    column = table["vec"].combine_chunks()
    width = column.type.list_size
    states = np.array(column.values.to_numpy(zero_copy_only=False), np.float64).reshape(-1, width)
    layer = table["layer"].to_numpy()
    for number in np.unique(layer):
        rows = layer == number
        states[rows] = gaussian_like(states[rows], np.ones(int(rows.sum()), bool), rng)
    flat = pa.array(states.astype(np.float16).reshape(-1))
    drawn = pa.FixedSizeListArray.from_arrays(flat, width)
    return table.set_column(table.column_names.index("vec"), "vec", drawn)


def _random_items(table: pa.Table, ids: list[str], rng: np.random.Generator) -> list[str]:
    """Return one random item per row, none twice at one position."""
    first, order = _positions(table)
    out = [""] * table.num_rows
    for low, high in itertools.pairwise(first):
        pick = rng.choice(len(ids), size=high - low, replace=high - low > len(ids))
        for row, p in zip(order[low:high], pick, strict=True):
            out[row] = ids[p]
    return out


def gaussian_like(vectors: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return float32 rows: where ``mask``, draws with the mean and covariance of those rows."""
    out = np.array(vectors, np.float32)
    real = vectors[mask]
    if len(real):
        factor = (real - real.mean(0)) / np.sqrt(max(1, len(real) - 1))
        if len(factor) > factor.shape[1]:  # R of factor = Q R has the same R^T R, and is smaller
            factor = np.linalg.qr(factor, mode="r")
        out[mask] = real.mean(0) + rng.standard_normal((len(real), len(factor))) @ factor
    return out


def _random_others(owner: list[str], ids: list[str], rng: np.random.Generator) -> list[str]:
    """Return one random id per row, never the owner and never twice for one owner."""
    position = {value: i for i, value in enumerate(ids)}
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(owner):
        rows.setdefault(value, []).append(row)
    out = [""] * len(owner)
    for value, places in rows.items():
        pick = rng.choice(len(ids) - 1, size=len(places), replace=len(places) > len(ids) - 1)
        pick = pick + (pick >= position[value])
        for place, p in zip(places, pick, strict=True):
            out[place] = ids[p]
    return out
