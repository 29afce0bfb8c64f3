"""Attach enhancements to a model and keep their randomness apart from the model's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training import TRAIN

if TYPE_CHECKING:
    from ..data.training import TrainingData
    from ..plan import Node
    from .seams import Enhancement


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Run the block under a torch seed and give the outer random stream back unchanged."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        yield


class Stream:
    """A random stream of its own that goes on where its last use ended.

    Whatever a hook draws (dropout, noise) is drawn inside ``with hook.stream():``, so that a hook
    with weight 0 leaves the draws of the backbone, and so its weights, as they were.
    """

    def __init__(self, *seed: int) -> None:
        with seeded(*seed):
            self._cpu = torch.get_rng_state()
            self._gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with torch.random.fork_rng():
            torch.set_rng_state(self._cpu)
            if self._gpu:
                torch.cuda.set_rng_state_all(self._gpu)
            try:
                yield
            finally:
                self._cpu = torch.get_rng_state()
                if self._gpu:
                    self._gpu = torch.cuda.get_rng_state_all()


def attach_parts(
    model: nn.Module,
    parts: Iterable[Enhancement],
    data: TrainingData,
    inputs: Mapping[Node, Any],
    seed: int,
) -> None:
    """Attach ``parts`` in order; a part that returns a module becomes a hook with a ``stream``."""
    for number, part in enumerate(parts, start=1):
        with seeded(seed, number):
            hook = part.attach(model, data, inputs, seed)
        if hook is not None:
            hook.stream = Stream(seed, number, 1)
            model.hooks.append(hook)


def training_log(
    parts: Iterable[Enhancement], data: TrainingData, inputs: Mapping[Node, Any], seed: int
) -> TrainingData:
    """Return the log that a model is trained on: what each part, in order, makes of it.

    Training rows may be changed, left out or added; held-out rows stay those of ``data``, and so do
    histories before them. Raises ValueError where a part changed more.
    """
    edited = data
    for part in parts:
        edited = part.edited(edited, inputs, seed)
    if edited is data:
        return data
    now, before = edited.split != TRAIN, data.split != TRAIN
    held = ("user", "item", "time", "split")
    if not all(np.array_equal(getattr(edited, n)[now], getattr(data, n)[before]) for n in held):
        raise ValueError("a part may change training rows alone, no held-out one")
    return edited


def extra_losses(model: Any, batch: Any, states: Any) -> Tensor | float:
    """Return the sum of ``hook.extra_loss(model, batch, states)``, each under its own stream."""
    total: Tensor | float = 0.0
    for hook in model.hooks:
        if hasattr(hook, "extra_loss"):
            with hook.stream():
                total = total + hook.extra_loss(model, batch, states)
    return total


def overrides(model: Any, seam: str) -> bool:
    """Return whether some hook of ``model`` changes ``seam``."""
    return any(hasattr(hook, seam) for hook in model.hooks)
