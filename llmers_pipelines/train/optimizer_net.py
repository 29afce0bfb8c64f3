"""What takes the steps: AdamW, and a Riemannian gradient step for points of a hyperboloid (torch).

A model whose tables are points names them in ``on_manifold()``; its ``momentum`` is theirs, and its
``parts_lr`` the rate of all other weights, for which a Riemannian rate is orders too large. A hook
may have ``rate``, a learning rate for its own weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.fit import Fit
from ..models.hyperboloid_net import moved, riemannian, tangent_length, transported

LONGEST = 1.0  # distance of a step: a rate that is too high must not throw points to the horizon


class RiemannianSGD(torch.optim.Optimizer):
    """Gradient steps along geodesics (Bonnabel, 2013), with momentum carried along with the point.

    Parameters are points of the hyperboloid by spatial coordinates (..., D). ``weight_decay``
    draws to the origin: it adds the gradient of ``weight_decay / 2 (x0^2 + |x|^2)``, the decay of
    all coordinates as released with HGCF. A step goes at most ``LONGEST`` far. The momentum of the
    first step is that step's gradient; the code released with HGCF starts it from the gradient
    before its projection, so that the first step counts twice and points off the tangent space.
    """

    def __init__(
        self, points: Iterable[Any], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(points, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for points in group["params"]:
                if points.grad is not None:
                    self._move(points, group)

    def _move(self, points: Tensor, group: dict[str, Any]) -> None:
        gradient = points.grad + 2 * group["weight_decay"] * points
        ascent = riemannian(points, gradient)
        if group["momentum"]:
            state = self.state[points]
            before = state.get("momentum")
            ascent = ascent if before is None else ascent + group["momentum"] * before
        step = -group["lr"] * ascent
        new = moved(points, step * (LONGEST / tangent_length(points, step)).clamp(max=1))
        if group["momentum"]:
            self.state[points]["momentum"] = transported(points, new, ascent)
        points.copy_(new)


class Together:
    """Several optimizers in the shape of one: their groups and states in one row."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def _first(self) -> list[int]:
        """Return the number of the first parameter of each part, and how many there are."""
        sizes = [sum(len(g["params"]) for g in part.param_groups) for part in self.parts]
        return [sum(sizes[:n]) for n in range(len(sizes) + 1)]

    def state_dict(self) -> dict[str, Any]:
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for part, first in zip(self.parts, self._first(), strict=False):
            held = part.state_dict()
            state |= {first + number: slots for number, slots in held["state"].items()}
            groups += [{**g, "params": [first + n for n in g["params"]]}
                       for g in held["param_groups"]]  # fmt: skip
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, held: dict[str, Any]) -> None:
        groups, bounds = list(held["param_groups"]), self._first()
        for number, part in enumerate(self.parts):
            low, high = bounds[number : number + 2]
            own, groups = groups[: len(part.param_groups)], groups[len(part.param_groups) :]
            part.load_state_dict({
                "state": {n - low: s for n, s in held["state"].items() if low <= n < high},
                "param_groups": [{**g, "params": [n - low for n in g["params"]]} for g in own],
            })  # fmt: skip


def optimizer_of(model: Any, how: Fit) -> Any:
    """Return what trains ``model``: AdamW, and beside it a ``RiemannianSGD`` for its points."""
    points = model.on_manifold() if hasattr(model, "on_manifold") else []
    own = {id(p) for p in points}
    plain = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    groups: list[Any] = plain
    usual = {"share": model.parts_lr / how.lr} if points else {}
    if usual and plain:
        groups = [{"params": plain, **usual}]
    rated = [h for h in model.hooks if getattr(h, "rate", 0)]
    if rated:
        theirs = {id(p) for h in rated for p in h.parameters()}
        rest = [p for p in plain if id(p) not in theirs]
        groups = [{"params": rest, **usual}] if rest else []
        groups += [{"params": [p for p in h.parameters() if p.requires_grad],
                    "share": h.rate / how.lr} for h in rated]  # fmt: skip
    decay = how.weight_decay
    if not points:
        return torch.optim.AdamW(groups, lr=how.lr, weight_decay=decay, fused=True)
    moving = RiemannianSGD(points, how.lr, model.momentum, decay)
    if not groups:
        return moving
    return Together([moving, torch.optim.AdamW(groups, lr=how.lr, weight_decay=decay, fused=True)])
