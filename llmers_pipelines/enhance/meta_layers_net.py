"""Meta networks. Shapes: B rows, F features, R width of the layers, K layers, E states, U users,
S scenarios, P = K (R R + R) written values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.training import TRAIN, IdMap

if TYPE_CHECKING:
    from ..data.training import TrainingData
    from ..data.vectors import VectorTable
    from .meta_layers import MetaLayers


def standardised(rows: Tensor, real: Tensor) -> Tensor:
    """Return rows (n, E) with mean 0 and deviation 1 per dimension over the real ones.

    A constant dimension is 0. Rows that are not real become the mean, 0.
    """
    known = rows[real]
    spread = known.std(0, unbiased=False)
    safe = torch.where(spread > 1e-6, spread, torch.inf)
    return (rows - known.mean(0)) / safe * real[:, None]


def _aligned(table: VectorTable, ids: IdMap, entity: str, name: str) -> tuple[Tensor, Tensor]:
    if table.entity != entity:
        raise ValueError(f"{name}: vectors of {table.entity}s, expected vectors of {entity}s")
    if why := table.untold(ids):
        raise ValueError(f"{name}: {why}")
    rows, mask = table.aligned(ids)
    if not np.isfinite(rows[mask]).all():
        raise ValueError(f"{name}: a state is not finite; make the vectors again")
    real = torch.from_numpy(mask)
    return standardised(torch.from_numpy(rows), real), real


def user_states(table: VectorTable, data: TrainingData, name: str) -> tuple[Tensor, Tensor]:
    """Return (states (U + 1 + S + 1, E), place int64 (U + 1)).

    Behind the users stand the stand-ins: the mean of all, then that of each scenario's users.
    ``place`` is a user's own row, 0 where the row's scenario decides.
    """
    rows, real = _aligned(table, data.users, "user", name)
    codes = np.zeros(len(data.user), np.int64)
    size = 0
    if data.scenario is not None:
        codes, size = data.scenario.codes.astype(np.int64), len(data.scenario.vocabulary)
    train = data.split == TRAIN
    means = [rows[real].mean(0)]
    for code in range(1, size + 1):
        who = torch.from_numpy(np.unique(data.user[train & (codes == code)]))
        who = who[real[who]]
        means.append(rows[who].mean(0) if len(who) else means[0])
    place = torch.where(real, torch.arange(len(real)), 0)
    return torch.cat([rows, torch.stack(means)]), place


def scenario_states(table: VectorTable, data: TrainingData, name: str) -> Tensor:
    """Return (S + 1, E); row 0, of an unknown scenario, and rows without a state are the mean."""
    if data.scenario is None:
        raise ValueError(f"{name}: the log has no scenarios")
    return _aligned(table, IdMap(data.scenario.vocabulary), "scenario", name)[0]


class MetaNetwork(nn.Module):
    """Writes the weights and offsets of ``layers`` layers of ``width`` from a state (E)."""

    def __init__(self, states: int, width: int, layers: int, hidden: int) -> None:
        super().__init__()
        sizes = layers * width * width, layers * width
        self.first = nn.ModuleList(nn.Linear(states, hidden) for _ in sizes)
        self.last = nn.ModuleList(nn.Linear(hidden, n) for n in sizes)
        for last in self.last:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return (n, P): all weights, then all offsets, of states (n, E)."""
        parts = [last(torch.relu(first(states)))
                 for first, last in zip(self.first, self.last, strict=True)]  # fmt: skip
        return torch.cat(parts, 1)


def meta_stack(z: Tensor, written: Tensor, layers: int) -> Tensor:
    """Return z_K of z_0 (B, R) under the written values (B, P) of each row."""
    width = z.shape[1]
    weights, offsets = written.split([layers * width * width, layers * width], 1)
    weights = weights.reshape(len(z), layers, width, width)
    offsets = offsets.reshape(len(z), layers, width)
    for k in range(layers):
        z = z + F.gelu(meta_layer(z, weights[:, k], offsets[:, k]))
    return z


def meta_layer(z: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Return ``z W + b`` (B, R) with a matrix (B, R, R) and an offset (B, R) per row."""
    return torch.einsum("br,brs->bs", z, weight) + offset


class _Levels(nn.Module):
    """What training and serving share: ``_user(batch)`` and ``_scenario(batch)`` give (B, P)."""

    scale: float
    layers: int

    def _maps(self, features: int, width: int, user: bool, scenario: bool) -> None:
        if user:
            self.user_in = nn.Linear(features, width, bias=False)
            self.user_out = nn.Linear(width, features, bias=False)
        if scenario:
            self.scenario_in = nn.Linear(features, width, bias=False)
            self.scenario_out = nn.Linear(width, 1, bias=False)
        self.levels = (user, scenario)

    def shared_features(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        x = nxt(batch)
        if not self.levels[0] or not self.scale:
            return x
        z = self.user_in(x)
        moved = meta_stack(z, self._user(batch), self.layers) - z
        return x + self.scale * self.user_out(moved)

    def logit(self, model: Any, nxt: Any, batch: Any) -> Tensor:
        out = nxt(batch)
        if not self.levels[1] or not self.scale:
            return out
        z = self.scenario_in(model.shared_features(batch))
        moved = meta_stack(z, self._scenario(batch), self.layers) - z
        return out + self.scale * self.scenario_out(moved).squeeze(1)


def _codes(batch: Any) -> Tensor:
    return torch.zeros_like(batch.user) if batch.scenario is None else batch.scenario


class MetaHook(_Levels):
    """The two levels with states and meta networks."""

    def __init__(
        self, user: tuple[Tensor, Tensor] | None, scenario: Tensor | None, features: int,
        how: MetaLayers,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.layers, self.width, self.features = (
            how.scale,
            how.layers,
            how.width,
            features,
        )
        self._maps(features, how.width, user is not None, scenario is not None)
        if user is not None:
            self.register_buffer("users", user[0], persistent=False)  # frozen, not stored
            self.register_buffer("place", user[1], persistent=False)
            self.user_meta = MetaNetwork(user[0].shape[1], how.width, how.layers, how.hidden)
        if scenario is not None:
            self.register_buffer("scenarios", scenario, persistent=False)
            self.scenario_meta = MetaNetwork(scenario.shape[1], how.width, how.layers, how.hidden)

    def _user(self, batch: Any) -> Tensor:
        rows = _rows(self.place, batch)
        found, at = rows.unique(return_inverse=True)
        return self.user_meta(self.users[found])[at]

    def _scenario(self, batch: Any) -> Tensor:
        return self.scenario_meta(self.scenarios)[_codes(batch)]

    def fold(self, model: Any) -> ServedMeta:
        user, scenario = self.levels
        served = ServedMeta(
            users=len(self.users) if user else 0, placed=len(self.place) if user else 0,
            scenarios=len(self.scenarios) if scenario else 0, features=self.features,
            width=self.width, layers=self.layers, scale=self.scale,
        )  # fmt: skip
        own = {
            n: p
            for n, p in self.state_dict().items()
            if n.partition(".")[0].endswith(("_in", "_out"))
        }
        if user:
            own |= {"user_written": self.user_meta(self.users), "place": self.place}
        if scenario:
            own["scenario_written"] = self.scenario_meta(self.scenarios)
        served.load_state_dict(own)
        return served.to(next(self.parameters()).device)


def _rows(place: Tensor, batch: Any) -> Tensor:
    """Return each row's own row of the user table, or the stand-in of its scenario."""
    own = place[batch.user]
    return torch.where(own > 0, own, len(place) + _codes(batch))


class ServedMeta(_Levels):
    """The two levels with written weights as plain tables."""

    def __init__(
        self, *, users: int, placed: int, scenarios: int, features: int, width: int, layers: int,
        scale: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = {"users": users, "placed": placed, "scenarios": scenarios,
                       "features": features, "width": width, "layers": layers,
                       "scale": scale}  # fmt: skip
        self.scale, self.layers = scale, layers
        self._maps(features, width, bool(users), bool(scenarios))
        size = layers * (width * width + width)
        if users:
            self.register_buffer("user_written", torch.zeros(users, size))
            self.register_buffer("place", torch.zeros(placed, dtype=torch.int64))
        if scenarios:
            self.register_buffer("scenario_written", torch.zeros(scenarios, size))

    def _user(self, batch: Any) -> Tensor:
        return self.user_written[_rows(self.place, batch)]

    def _scenario(self, batch: Any) -> Tensor:
        return self.scenario_written[_codes(batch)]
