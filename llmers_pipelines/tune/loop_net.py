"""The one tuning loop: every objective, resumed where it stopped.

The order of the examples follows from seed and epoch alone, so a snapshot holds the trained
tensors, the optimizer, the random streams and the losses so far, and no data.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from .checkpoint_net import (
    load,
    optimizer_tensors,
    random_tensors,
    restore_optimizer,
    restore_random,
    save,
)
from .tuner import Report, TuneError, Tuner


class Task(Protocol):
    """An objective at work. ``module`` holds all that is trained and what it hangs on."""

    module: nn.Module
    size: int  # examples

    def backward(self, rows: np.ndarray, epoch: int) -> float:
        """Add the gradients of the loss over ``rows`` (``epoch`` from 0) and return the loss."""
        ...


def run(
    task: Task,
    how: Tuner,
    folder: Path,
    *,
    checkpoint_seconds: float = 60.0,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train ``task`` and return losses and counts; ``folder`` keeps snapshots.

    ``losses`` has one record per epoch: epoch, loss (mean over its steps), ends (the mean over the
    first quarter of its steps and over the last one), steps, seconds.
    ``resumed_from`` is the step of the snapshot that this call went on from, 0 without one.
    Raises ``TuneError`` where a loss is no number.
    """
    trained = {n: p for n, p in task.module.named_parameters() if p.requires_grad}
    if not trained:
        raise TuneError(f"{type(how).__name__}: no weights to train; name layers in lora.targets")
    # What moves without a gradient, such as the statistics of a normalization.
    weights = dict(task.module.named_parameters())
    moving = {n: t for n, t in task.module.state_dict().items()
              if n not in weights and t.is_floating_point()}  # fmt: skip
    optimizer = torch.optim.AdamW(trained.values(), lr=how.lr, weight_decay=how.weight_decay)
    per_epoch = -(-task.size // how.batch)
    steps = per_epoch * how.epochs
    at, done, losses = 0, [], []
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        task.module.train()
        if (found := load(folder)) is not None:
            tensors, facts = found
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(tensors[f"weights.{name}"])
                for name, buffer in moving.items():
                    buffer.copy_(tensors.get(f"buffers.{name}", buffer))
            restore_optimizer(optimizer, tensors)
            restore_random(tensors)
            at, done, losses = facts["step"], facts["epochs"], facts["losses"]
        resumed, saved = at, time.monotonic()
        began = time.monotonic()
        for rows in _batches(task.size, how, at):
            for group in optimizer.param_groups:
                group["lr"] = how.rate(at, steps)
            optimizer.zero_grad(set_to_none=True)
            loss = task.backward(rows, at // per_epoch)
            if not np.isfinite(loss):
                raise TuneError(
                    f"the loss is {loss} at step {at + 1} of {steps}; lower lr (now {how.lr})"
                )
            if how.clip:
                nn.utils.clip_grad_norm_(trained.values(), how.clip)
            optimizer.step()
            losses.append(loss)
            at += 1
            if at % per_epoch == 0:
                seconds = round(time.monotonic() - began, 3)
                quarter = -(-len(losses) // 4)
                ends = [float(np.mean(part)) for part in (losses[:quarter], losses[-quarter:])]
                done.append({"epoch": at // per_epoch, "loss": float(np.mean(losses)),
                             "ends": ends, "steps": len(losses), "seconds": seconds})  # fmt: skip
                losses, began = [], time.monotonic()
                if report is not None:
                    report({**done[-1], "epochs": how.epochs})
            if at < steps and time.monotonic() - saved >= checkpoint_seconds:
                tensors = {f"weights.{n}": p for n, p in trained.items()}
                tensors |= {f"buffers.{n}": b for n, b in moving.items()}
                tensors |= optimizer_tensors(optimizer) | random_tensors()
                save(folder, at, tensors, {"epochs": done, "losses": losses})
                saved = time.monotonic()
    task.module.eval()
    return {"losses": done, "steps": steps, "resumed_from": resumed,
            "trained": sum(p.numel() for p in trained.values())}  # fmt: skip


def _batches(size: int, how: Tuner, start: int) -> Iterator[np.ndarray]:
    """Yield the rows of each step from step ``start`` on."""
    per_epoch = -(-size // how.batch)
    for step in range(start, per_epoch * how.epochs):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == start:
            order = np.random.default_rng([how.seed, epoch]).permutation(size)
        yield order[place * how.batch : (place + 1) * how.batch]
