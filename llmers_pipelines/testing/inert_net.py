"""What parts leave of a backbone: the same short training with them, without them, and inert."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.training import TrainingData
from ..models.hooks_net import attach_parts, training_log
from ..models.seams import Backbone, Enhancement
from ..plan import Node
from ..train.loop import load_loader

STEPS, RATE, NEAR = 20, 0.1, 1e-6


@dataclass(frozen=True)
class Trace:
    """A backbone's own weights after ``STEPS`` steps, and the state of the global random stream."""

    weights: dict[str, np.ndarray]
    stream: np.ndarray


def trace(
    backbone: Backbone, data: TrainingData, parts: Iterable[Enhancement] = (),
    inputs: Mapping[Node, Any] | None = None, *, removed: bool = False,
) -> Trace:  # fmt: skip
    """Train for a few steps from seed 0; ``removed`` takes the parts away after they were attached.

    Removed means: no hook of theirs and no extra column is left, and the tables are what they were.
    Steps are plain gradient steps: Adam blows up the rounding of a gradient that is zero.
    """
    parts = list(parts)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if not removed:
            data = training_log(parts, data, inputs or {}, 0)
        model = backbone.build(data, 0)
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        columns, hooks = copy.deepcopy(getattr(model, "columns", None)), list(model.hooks)
        attach_parts(model, parts, data, inputs or {}, 0)
        if removed:
            model.hooks = torch.nn.ModuleList(hooks)  # a backbone may bring one of its own (SGL)
            if columns is not None:
                model.columns = columns
            model.load_state_dict(own)
        loader = load_loader(backbone.loader)(data, backbone, 0)  # type: ignore[attr-defined]
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
        model.train()
        left = STEPS
        for number in itertools.count(1):
            for hook in model.hooks:
                if hasattr(hook, "begin_epoch"):
                    with hook.stream():
                        hook.begin_epoch(model, number)
            for batch in itertools.islice(loader.epoch(number), left):
                optimizer.zero_grad()
                model.loss(batch).backward()
                optimizer.step()
                left -= 1
            if not left:
                break
        now = model.state_dict()
        weights = {name: now[name].detach().numpy().copy() for name in own}
        return Trace(weights, torch.get_rng_state().numpy().copy())


def moved_weights(one: Trace, two: Trace) -> list[str]:
    """Return the names of weights that differ by more than ``NEAR``: none where parts are inert."""
    return [n for n, w in one.weights.items()
            if not np.allclose(w, two.weights[n], rtol=0, atol=NEAR)]  # fmt: skip


def without_dropout(backbone: Backbone) -> Backbone:
    """Return ``backbone`` without dropout: a part may run its encoder more than once per step."""
    rates = [f.name for f in dataclasses.fields(backbone) if "dropout" in f.name]
    return dataclasses.replace(backbone, **dict.fromkeys(rates, 0.0))
