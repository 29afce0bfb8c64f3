"""Logs with a planted signal, where the right answer is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..data.training import TEST, TRAIN, VALID, IdMap, TrainingData
from ..data.vectors import VectorTable


@dataclass(frozen=True)
class Planted:
    """A log, the vectors that know about it, and the truth: the group of each item."""

    data: TrainingData
    items: VectorTable
    group: np.ndarray  # int64[N + 1], 0-based; row 0 is -1
    tail: np.ndarray  # bool[N + 1], items that are rarely drawn


def planted_rings(
    n_users: int = 120,
    n_items: int = 40,
    clusters: int = 2,
    *,
    seed: int = 0,
    follow: float = 0.9,
    length: tuple[int, int] = (6, 12),
    width: int = 16,
) -> Planted:
    """Return walks on rings: in each cluster the items form a ring and a user walks along it.

    With probability ``follow`` the next item is the successor, otherwise a random item of the
    cluster. All items are equally popular, so popularity knows nothing, while the next item is
    known from the last one. Vectors hold the cluster and the place on the ring.
    """
    rng = np.random.default_rng(seed)
    size = n_items // clusters
    position = rng.permutation(clusters * size) + 1  # ids say nothing about the ring
    ring = position.reshape(clusters, size)
    walks = []
    for _ in range(n_users):
        own, at = ring[rng.integers(clusters)], rng.integers(size)
        walk = [own[at]]
        for _ in range(rng.integers(*length, endpoint=True) - 1):
            at = (at + 1) % size if rng.random() < follow else rng.integers(size)
            walk.append(own[at])
        walks.append(np.array(walk))
    angle = 2 * np.pi * np.arange(size) / size
    place = np.stack([np.cos(angle), np.sin(angle)], 1)
    known = np.zeros((clusters * size + 1, clusters + 2))
    group = np.full(clusters * size + 1, -1)
    for c in range(clusters):
        group[ring[c]] = c
        known[ring[c], c] = 1
        known[ring[c], clusters:] = place
    data = leave_one_out(walks, clusters * size)
    return Planted(data, _vectors(data, known, width, rng), group, np.zeros(len(group), bool))


def planted_twins(
    n_users: int = 300,
    places: int = 20,
    clusters: int = 2,
    *,
    seed: int = 0,
    follow: float = 0.9,
    tail_draw: float = 0.05,
    tail_target: float = 0.5,
    length: tuple[int, int] = (6, 10),
    width: int = 16,
) -> Planted:
    """Return walks on rings where each place has two items: a frequent one and a rare twin.

    A training row shows the twin with probability ``tail_draw``, a validation or test row with
    ``tail_target``, as with new items. Twins have the same text, so a model that reads vectors
    finds the rare one from what it learned about the frequent one, and must lose that when the
    vectors are permuted.
    """
    rng = np.random.default_rng(seed)
    n = 2 * places * clusters
    item = rng.permutation(n).reshape(clusters, places, 2) + 1
    walks = []
    for _ in range(n_users):
        own, at, walk = item[rng.integers(clusters)], rng.integers(places), []
        rows = rng.integers(*length, endpoint=True)
        for row in range(rows):
            twin = rng.random() < (tail_draw if row < rows - 2 else tail_target)
            walk.append(own[at, int(twin)])
            at = (at + 1) % places if rng.random() < follow else rng.integers(places)
        walks.append(np.array(walk))
    angle = 2 * np.pi * np.arange(places) / places
    group, tail = np.full(n + 1, -1), np.zeros(n + 1, bool)
    known = np.zeros((n + 1, clusters + 4))
    for c in range(clusters):
        group[item[c]] = c
        tail[item[c, :, 1]] = True
        for twin in (0, 1):
            known[item[c, :, twin], c] = 1
            for wave in (1, 2):
                at = clusters + 2 * (wave - 1)
                known[item[c, :, twin], at] = np.cos(wave * angle)
                known[item[c, :, twin], at + 1] = np.sin(wave * angle)
    data = leave_one_out(walks, n)
    return Planted(data, _vectors(data, known, width, rng), group, tail)


def leave_one_out(walks: list[np.ndarray], n_items: int, task: str = "sequential") -> TrainingData:
    """Return the log of one walk per user: last row test, the one before validation."""
    user = np.repeat(np.arange(1, len(walks) + 1), [len(w) for w in walks])
    time = np.concatenate([np.arange(len(w)) for w in walks]).astype(np.int64)
    split = np.concatenate([[TRAIN] * (len(w) - 2) + [VALID, TEST] for w in walks]).astype(np.int8)
    return TrainingData(
        task, IdMap(tuple(f"u{n}" for n in range(1, len(walks) + 1))),
        IdMap(tuple(f"i{n}" for n in range(1, n_items + 1))),
        user, np.concatenate(walks).astype(np.int64), time, split,
    )  # fmt: skip


def shuffled_items(data: TrainingData, seed: int = 0) -> TrainingData:
    """Return the log with its items dealt anew to all rows: no model can beat chance on it."""
    item = np.random.default_rng(seed).permutation(data.item)
    return replace(data, item=item)


def renumbered_items(data: TrainingData, seed: int = 0) -> tuple[TrainingData, np.ndarray]:
    """Return the same log under other item positions, and ``new[old]``, int64[N + 1]."""
    new = np.concatenate([[0], np.random.default_rng(seed).permutation(data.n_items) + 1])
    ids = np.empty(data.n_items, object)
    ids[new[1:] - 1] = data.items.ids
    old = np.argsort(new)
    fields, texts = (
        {name: replace(f, codes=f.codes[old]) for name, f in given.items()}
        for given in (data.item_fields, data.item_texts)
    )
    there = {"item_fields": fields, "item_texts": texts}
    return replace(data, items=IdMap(tuple(ids)), item=new[data.item], **there), new


def _vectors(
    data: TrainingData, known: np.ndarray, width: int, rng: np.random.Generator
) -> VectorTable:
    """Return unit vectors that are a random rotation of ``known`` (N + 1, F) with some noise."""
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0][: known.shape[1]]
    vectors = known[1:] @ rotation + 0.05 * rng.standard_normal((len(known) - 1, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mask = np.ones(len(vectors), bool)
    return VectorTable("item", data.items.ids, vectors.astype(np.float32), mask)
