"""What exploration along a served tree costs and gives: lists at each temperature and layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..data.training import TEST, TrainingData
from ..models.exploration import below, explored, replaced
from ..models.histories import history_before, rows_of
from .beyond import summary
from .predict import TopK, top_k_lists

K = 20  # items of a list, as in the paper
TEMPERATURES = (0.25, 0.5, 1.0)
SHOWN = ("coverage", "entropy", "novelty", "aplt")  # of the lists as a whole


def tree_of(net: Any) -> Any:
    """Return the part of a served network that keeps a tree, or None."""
    return next((h for h in net.hooks if hasattr(h, "places")), None)


def layers_shown(layers: int) -> tuple[int, ...]:
    """Return the layers of a tree that are measured: the root, the middle, the leaf."""
    return tuple(sorted({0, layers // 2, layers}))


def mixed_lists(
    plain: TopK, data: TrainingData, places: tuple[np.ndarray, np.ndarray, int],
    temperature: float, layer: int, seed: int = 0,
) -> TopK:  # fmt: skip
    """Return the lists with their ends explored; ``places``: see ``ServedTree``."""
    users, items, layers = places
    seen, count = history_before(data, TEST), replaced(plain.items.shape[1], temperature)
    out = plain.items.copy()
    past = seen.lists(plain.users)
    for row, (user, known) in enumerate(zip(plain.users.tolist(), past, strict=True)):
        own = plain.items[row][plain.items[row] > 0]
        near = below(int(users[user]), items, layers, layer)
        rng = np.random.default_rng([seed, user])
        out[row, : len(own)], _ = explored(own, near, known, count, rng)
    return TopK(plain.users, out)


def utility(lists: TopK, data: TrainingData) -> dict[str, float]:
    """Return recall and NDCG of lists at test, means over users with a target."""
    rows = rows_of(data, (TEST,))
    width = data.n_items + 1
    targets = np.unique(rows.user * width + rows.item)
    count = np.bincount(targets // width, minlength=data.n_users + 1)[lists.users]
    hit = np.isin(lists.users[:, None] * width + lists.items, targets) & (lists.items > 0)
    k = lists.items.shape[1]
    weight = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0], np.cumsum(weight)])[np.minimum(count, k)]
    some = count > 0
    return {
        f"recall@{k}": float((hit.sum(1)[some] / count[some]).mean()),
        f"ndcg@{k}": float(((hit * weight).sum(1)[some] / ideal[some]).mean()),
    }


def curve(model: Any, data: TrainingData) -> pa.Table:
    """Return a row per temperature and layer: ``temperature, layer, recall@20, ndcg@20``, and of
    all lists together ``coverage, entropy, novelty, aplt``. The first row is the plain list.

    ``model`` is a trained recommender whose network keeps a tree.
    """
    places = tree_of(model.model).places()
    plain = top_k_lists(model, data, K)
    cases = [(t, layer) for t in TEMPERATURES for layer in layers_shown(places[2])]
    found = [(0.0, 0, plain)]
    found += [(t, layer, mixed_lists(plain, data, places, t, layer)) for t, layer in cases]
    rows = []
    for temperature, layer, lists in found:
        whole = summary(lists, data)
        rows.append({"temperature": temperature, "layer": layer, **utility(lists, data),
                     **{name: whole[name] for name in SHOWN}})  # fmt: skip
    return pa.Table.from_pylist(rows)
