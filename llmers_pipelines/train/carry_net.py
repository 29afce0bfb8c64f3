"""Weights of one log carried over to another: rows by id, everything else as it was (torch).

Two uses: a warm start (training goes on from there), and an extension (no training: the catalog
has items without interactions that the earlier one lacked, and their rows are what the parts make
of their vectors). What a model is built from, integer indexes and graphs are always those of the
new log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training import IdMap, TrainingData
from ..data.vectors import VectorTable
from ..models.hooks_net import attach_parts
from ..models.served import Served, fold
from ..plan import Node, Train
from .loop import choose_device, load_loader
from .trained import Trained

Arrays = Mapping[str, np.ndarray]
_PROBED = 64  # users whose scores tell whether a vector is read


def carry(model: nn.Module, state: Arrays, old: TrainingData, new: TrainingData) -> list[str]:
    """Copy trained ``state`` (of a model of ``old``) into ``model`` (of ``new``) in place.

    A table with a row per item or user is copied row by row by id, a tensor of the same shape as it
    is; integer tensors are left. A row of zeros was never trained: who has one keeps the start that
    building gave. Returns the names of what could not be carried over.
    """
    own = model.state_dict()
    floats = {k: v for k, v in own.items() if v.is_floating_point()}
    return _copied(floats, state, old, new, trained=True)


def extended(
    train: Train,
    state: Arrays,
    old: tuple[TrainingData, Mapping[Node, Any]],
    new: tuple[TrainingData, Mapping[Node, Any]],
    record: Mapping[str, Any],
    *,
    seed: int,
    device: str = "cpu",
) -> tuple[Trained, list[str]] | None:
    """Return the trained model of ``old`` (log, inputs) for ``new``, or None where it cannot be.

    The logs must have the same rows. Weights, and the frozen vectors of items that both have, are
    those that were trained with; a new item has what building and attaching give it. ``record`` is
    that of the training. No step is taken; the validation value is measured again. The second
    value names the new items of which the method knows nothing: their scores do not depend on any
    vector of theirs (nor, for clicks, on fields).
    """
    where, started = choose_device(device), time.perf_counter()
    added = _ids_added(old[0], new[0])
    with torch.random.fork_rng():
        before = _built(train, *old, seed)
        model = _grown(train, before, state, old[0], *new, seed)
        if model is None:
            return None
        model.to(where).eval()
        with torch.no_grad():
            valid = float(load_loader(train.backbone.loader)(new[0], train.backbone, seed)
                          .validate(model))  # fmt: skip
        unfolded = {k: v.detach().cpu().numpy().copy() for k, v in model.state_dict().items()}
        served = fold(model)
        unknown = added
        if new[0].task == "ctr" and new[0].item_fields:
            unknown = []
        elif (other := _otherwise(new[1], added)) is not None:
            twin = _grown(train, before, state, old[0], new[0], other, seed)
            unknown = _unmoved(served, fold(twin.to(where)), new[0], added)
    trained = Trained(
        train, new[0], served, seed, list(record["epochs"]), record["best_epoch"], valid,
        time.perf_counter() - started, unfolded,
    )  # fmt: skip
    return trained, unknown


def _grown(
    train: Train, before: nn.Module, state: Arrays, old: TrainingData, data: TrainingData,
    inputs: Mapping[Node, Any], seed: int,
) -> Any:  # fmt: skip
    """Return a model of ``data`` with the trained ``state``; None where some of it has no place."""
    model = _built(train, data, inputs, seed)
    if carry(model, state, old, data):
        return None
    kept = set(model.state_dict())
    frozen = {n: b.numpy() for n, b in before.named_buffers()
              if n not in kept and b.is_floating_point()}  # fmt: skip
    # Frozen vectors may be standardized over all items: the old ones stay as they were.
    mine = {
        n: b for n, b in model.named_buffers()
        if n in frozen and _rows(b, old, data, frozen[n], n)
    }  # fmt: skip
    _copied(mine, frozen, old, data)
    return model


def _ids_added(old: TrainingData, new: TrainingData) -> list[str]:
    known = old.items.index(new.items.ids) > 0
    return [i for i, k in zip(new.items.ids, known, strict=True) if not k]


def _otherwise(inputs: Mapping[Node, Any], added: list[str]) -> dict[Node, Any] | None:
    """Return ``inputs`` with other vectors of the ``added`` items; None where they have none."""
    found, out = False, dict(inputs)
    for node, table in inputs.items():
        if isinstance(table, VectorTable) and table.entity == "item":
            rows = np.isin(np.array(table.ids), added) & table.mask
            vectors = np.array(table.vectors)
            vectors[rows] = -vectors[rows] + vectors.std()
            out[node] = VectorTable(table.entity, table.ids, vectors, table.mask)
            found |= bool(rows.any())
    return out if found else None


def _unmoved(one: Any, other: Any, data: TrainingData, added: list[str]) -> list[str]:
    """Return the ``added`` items whose scores are the same in both models, for whoever asks."""
    if data.task == "ctr":
        return []
    users = np.arange(1, min(data.n_users, _PROBED) + 1)
    spans = [slice(data.user_start[u], data.user_start[u + 1]) for u in users]
    seen, at = [data.item[s] for s in spans], data.items.index(added)
    times = [data.time[s] for s in spans] if Served(one).reads_times else None
    a, b = (Served(net).scores(users, seen, times)[:, at] for net in (one, other))
    return [i for i, moved in zip(added, (a != b).any(0), strict=True) if not moved]


def _built(train: Train, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
    torch.manual_seed(seed)
    model = train.backbone.build(data, seed)
    attach_parts(model, train.parts, data, inputs, seed)
    return model


def _copied(
    own: Mapping[str, Tensor], state: Arrays, old: TrainingData, new: TrainingData,
    trained: bool = False,
) -> list[str]:  # fmt: skip
    left = []
    with torch.no_grad():
        for name, target in own.items():
            source = state.get(name)
            side = None if source is None else _rows(target, old, new, source, name)
            if source is not None and side is not None:
                there, here = _common(getattr(old, side), getattr(new, side))
                if trained:
                    kept = source[there].reshape(len(there), -1).any(1)
                    there, here = there[kept], here[kept]
                values = torch.from_numpy(np.array(source[there]))
                target[torch.from_numpy(here)] = values.to(target)
            elif source is not None and tuple(source.shape) == tuple(target.shape):
                target.copy_(torch.from_numpy(np.array(source)).to(target))
            else:
                left.append(name)
    return left


def _rows(
    target: Tensor, old: TrainingData, new: TrainingData, source: np.ndarray, name: str
) -> str | None:
    """Return "items" or "users" where the tensors have a row per entity, else None."""
    if not source.ndim or tuple(source.shape[1:]) != tuple(target.shape[1:]):
        return None
    sides = [
        side for side in ("items", "users")
        if (len(source), len(target)) == (len(getattr(old, side)) + 1, len(getattr(new, side)) + 1)
    ]  # fmt: skip
    if len(sides) == 2:  # as many users as items: the name has to tell
        sides = [s for s in sides if s[:-1] in name] or (["items"] if "output" in name else [])
    return sides[0] if len(sides) == 1 else None


def _common(old: IdMap, new: IdMap) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in ``old`` and in ``new`` of the ids of both, padding first."""
    there = old.index(new.ids)
    here = np.flatnonzero(there) + 1
    return np.concatenate([[0], there[here - 1]]), np.concatenate([[0], here])
