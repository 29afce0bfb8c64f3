"""Small logs and models whose scores are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID, IdMap, TrainingData


class Fixed:
    """A model that returns rows of a known score table, float32[U + 1, N + 1]."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = np.asarray(table, np.float32)
        self.calls: list[tuple[np.ndarray, list[np.ndarray]]] = []

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        self.calls.append((users, list(histories)))
        return self.table[users]


class Clicks:
    """A model that returns known probabilities by row of the log."""

    def __init__(self, p: np.ndarray) -> None:
        self.p = np.asarray(p, np.float32)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.p[rows]


def _log(rows: Sequence[tuple], n_users: int, n_items: int, task: str = "sequential"):
    """Rows are (user, item, split) or (user, item, split, label), in time order per user."""
    rows = sorted(rows, key=lambda r: r[0])
    columns = [np.array([r[i] for r in rows], np.int64) for i in range(3)]
    label = np.array([r[3] for r in rows], np.float32) if rows and len(rows[0]) > 3 else None
    return TrainingData(
        task, IdMap(tuple(f"u{i}" for i in range(1, n_users + 1))),
        IdMap(tuple(f"i{i}" for i in range(1, n_items + 1))), columns[0], columns[1],
        np.arange(len(rows)), columns[2].astype(np.int8), label=label,
        info={"protocol": "leave-one-out"},
    )  # fmt: skip


@pytest.fixture
def make_log() -> Callable[..., TrainingData]:
    return _log


@pytest.fixture
def fixed() -> type[Fixed]:
    return Fixed


@pytest.fixture
def clicks() -> type[Clicks]:
    return Clicks


@pytest.fixture
def random_log() -> Callable[..., TrainingData]:
    """Leave-one-out logs: train rows without repeats, one validation and one test row a user."""

    def make(n_users: int, n_items: int, length: int = 5, seed: int = 0, targets: int = 1):
        rng = np.random.default_rng(seed)
        rows = []
        for u in range(1, n_users + 1):
            items = rng.permutation(n_items)[: length + 1 + targets] + 1
            splits = [TRAIN] * length + [VALID] + [TEST] * targets
            rows += [(u, int(i), s) for i, s in zip(items, splits, strict=True)]
        return _log(rows, n_users, n_items)

    return make
