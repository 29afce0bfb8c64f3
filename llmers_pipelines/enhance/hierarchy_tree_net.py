"""The tree at work. Shapes: M members, U users, N items, D width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from ..models.hyperboloid_net import centroid, dual, lifted

if TYPE_CHECKING:
    from ..data.training import TrainingData


def halves(points: Tensor, steps: int, rng: np.random.Generator) -> Tensor:
    """Return bool (M,): who is in the second half of points (M, D), which has M // 2 members.

    Balanced 2-means: with centres a and b, members are in order of ``d(x, b) - d(x, a)``, the
    nearest to b in comparison first; that is the best assignment to halves of given sizes. Ends
    where an assignment comes again, or after ``steps``.
    """
    some = rng.choice(len(points), 2, replace=False)
    centres, size = points[some.tolist()], len(points) // 2
    second = torch.zeros(len(points), dtype=torch.bool)
    for _ in range(steps):
        inner = lifted(points) @ dual(centres).T  # (M, 2)
        apart = (-inner).clamp(min=1).acosh()
        order = (apart[:, 1] - apart[:, 0]).argsort(stable=True)
        found = torch.zeros_like(second)
        found[order[:size]] = True
        if torch.equal(found, second):
            break
        second = found
        centres = torch.stack([centroid(points[~second]), centroid(points[second])])
    return second


def paths(points: Tensor, layers: int, steps: int, seed: int) -> tuple[np.ndarray, int]:
    """Return (path int32 (M,), layers): bit by bit, the first halving highest, the way to a leaf.

    There are at most as many layers as leave each leaf a member.
    """
    points = points.detach().double().cpu()
    most = max(len(points), 1).bit_length() - 1
    layers = most if not layers else min(layers, most)
    out = np.zeros(len(points), np.int32)
    nodes: list[tuple[int, np.ndarray]] = [(0, np.arange(len(points)))]
    for layer in range(layers):
        below = []
        for path, members in nodes:
            rng = np.random.default_rng([seed, layer, path])
            second = halves(points[torch.from_numpy(members)], steps, rng).numpy()
            below += [(2 * path, members[~second]), (2 * path + 1, members[second])]
        nodes = below
    for path, members in nodes:
        out[members] = path
    return out, layers


class ServedTree(nn.Module):
    """Where each user and item is in the tree. It changes no score."""

    def __init__(self, n_users: int, n_items: int, layers: int) -> None:
        super().__init__()
        self.config = {"n_users": n_users, "n_items": n_items, "layers": layers}
        self.layers = layers
        self.register_buffer("users", torch.zeros(n_users + 1, dtype=torch.int32))
        self.register_buffer("items", torch.zeros(n_items + 1, dtype=torch.int32))

    def places(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the paths of users int32[U + 1] and items int32[N + 1], and the layers."""
        return self.users.cpu().numpy(), self.items.cpu().numpy(), self.layers


class HierarchyTreeHook(nn.Module):
    """Grows the tree of a model's points when training is over."""

    def __init__(
        self, model: Any, data: TrainingData, layers: int, steps: int, seed: int
    ) -> None:  # fmt: skip
        super().__init__()
        self.data, self.layers, self.steps, self.seed = data, layers, steps, seed
        self._model = [model]  # in a list: it is no part of this module

    def grown(self, model: Any) -> tuple[np.ndarray, int]:
        """Return the paths (U + N,) of all users, then items, and the number of layers."""
        with torch.no_grad():
            users, items = model.points()
        return paths(torch.cat([users[1:], items[1:]]), self.layers, self.steps, self.seed)

    def beside(self) -> pa.Table:
        """Return the nodes of the tree, layer by layer, the root first."""
        found, layers = self.grown(self._model[0])
        return pa.Table.from_pylist(list(self._nodes(found, layers)), schema=pa.schema({
            "node_id": pa.int64(), "parent_id": pa.int64(), "layer": pa.int64(),
            "users": pa.list_(pa.string()), "items": pa.list_(pa.string()),
        }))  # fmt: skip

    def _nodes(self, found: np.ndarray, layers: int) -> Iterator[dict[str, Any]]:
        """Yield nodes numbered as in a heap: the root is 1, the halves of n are 2n and 2n + 1."""
        users, items = np.split(found, [self.data.n_users])
        for layer in range(layers + 1):
            of_users, of_items = (p >> (layers - layer) for p in (users, items))
            members = {
                name: _by_node(places, ids, 1 << layer) for name, places, ids in (
                    ("users", of_users, self.data.users.ids), ("items", of_items,
                                                               self.data.items.ids))
            }  # fmt: skip
            for place in range(1 << layer):
                number = (1 << layer) + place
                yield {"node_id": number, "parent_id": number >> 1 or None, "layer": layer,
                       **{name: rows[place] for name, rows in members.items()}}  # fmt: skip

    def fold(self, model: Any) -> ServedTree:
        found, layers = self.grown(model)
        users, items = np.split(found, [self.data.n_users])
        served = ServedTree(len(users), len(items), layers)
        served.users[1:], served.items[1:] = torch.from_numpy(users), torch.from_numpy(items)
        return served


def _by_node(places: np.ndarray, ids: tuple[str, ...], nodes: int) -> list[list[str]]:
    """Return the ids at each of ``nodes`` places."""
    rows: list[list[str]] = [[] for _ in range(nodes)]
    for place, own in zip(places.tolist(), ids, strict=True):
        rows[place].append(own)
    return rows
