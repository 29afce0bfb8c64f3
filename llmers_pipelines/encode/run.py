"""Embed the texts of an asset: look up, encode what is missing, fill in what has no text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ..data.text import Texts
from ..data.vectors import VectorTable
from ..store.vectors import VectorStore, text_keys
from .encoder import Encoder

PART = 2**14  # texts looked up at a time where their vectors are not wanted
FLUSH = 2**18  # characters per segment: at most so many are encoded again after a kill


@dataclass(frozen=True)
class EmbedCounts:
    """What an ``embed_texts`` call did; all are numbers of rows or distinct texts."""

    rows: int
    distinct: int  # distinct texts
    encoded: int  # of these, encoded now
    cached: int  # of these, found in the store
    own: int  # rows with a text of their own (mask True)
    stand_in: int  # rows with another text in its place (mask False)
    mean: int  # rows without any text: they hold the mean vector (mask False)
    cut: int  # texts encoded now that reached the encoder's length limit

    def asdict(self) -> dict[str, int]:
        return asdict(self)


def embed_texts(
    texts: Texts,
    encoder: Encoder,
    store: VectorStore | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[VectorTable, EmbedCounts]:
    """Return the vectors of ``texts``, one row per entity in its order, and what it cost.

    A row without text holds the mean of the rows of mask True (of all rows with a text where there
    is none; zero where no row has a text) and has mask False. ``progress(done, total)`` counts
    distinct texts to encode.
    """
    filled = np.array([bool(t) for t in texts.texts], bool)
    distinct = list(dict.fromkeys(t for t in texts.texts if t))
    encoder.prepare(distinct)
    before = getattr(encoder, "cut", 0)
    vectors, encoded = _vectors(distinct, encoder, store, progress)
    place = {text: i for i, text in enumerate(distinct)}
    at = np.array([place[t] for t in texts.texts if t], np.int64)
    out = np.zeros((len(texts.ids), encoder.info.dim), np.float32)
    out[filled] = vectors[at]
    mask = texts.mask & filled
    source = mask if mask.any() else filled
    if source.any():
        out[~filled] = out[source].mean(0, dtype=np.float64)
    counts = EmbedCounts(
        rows=len(texts.ids),
        distinct=len(distinct),
        encoded=encoded,
        cached=len(distinct) - encoded,
        own=int(mask.sum()),
        stand_in=int((filled & ~mask).sum()),
        mean=int((~filled).sum()),
        cut=getattr(encoder, "cut", 0) - before,
    )
    return VectorTable(texts.entity, texts.ids, out, mask), counts


def missing_texts(texts: Texts, encoder: Encoder, store: VectorStore) -> int:
    """Return how many distinct texts the store lacks now; fits what the encoder fits."""
    distinct = list(dict.fromkeys(t for t in texts.texts if t))
    encoder.prepare(distinct)
    info = encoder.info
    space = store.space(info.identity, info.dim)
    keys = text_keys(info.identity, distinct)
    # in parts: the vectors that come with each answer are not needed
    parts = (space.lookup(keys[at : at + PART])[0] for at in range(0, len(keys), PART))
    return sum(int((~found).sum()) for found in parts)


def _vectors(
    distinct: list[str],
    encoder: Encoder,
    store: VectorStore | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, int]:
    """Return float32[n, E] of distinct texts and how many had to be encoded."""
    info = encoder.info
    space = store.space(info.identity, info.dim) if store is not None else None
    keys = text_keys(info.identity, distinct)
    if space is None:
        found, out = np.zeros(len(keys), bool), np.zeros((len(keys), info.dim), np.float32)
    else:
        found, out = space.lookup(keys)
    missing = np.flatnonzero(~found)
    done = 0

    def step(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, len(missing))

    # Chunks depend on the texts alone, not on time, so that a fresh run gives the same bytes.
    size = np.array([len(distinct[r]) for r in missing], np.int64)
    cuts = np.flatnonzero(np.diff(np.cumsum(size) // FLUSH)) + 1
    for rows in np.split(missing, cuts) if len(missing) else ():
        out[rows] = encoder.encode([distinct[r] for r in rows], step)
        if space is not None:
            space.append(keys[rows], out[rows])
    return out, len(missing)
