"""Whether a tuning learned is read off its losses, within the one epoch where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llmers_pipelines.orchestrate.steps.tune import _ends, _learned
from llmers_pipelines.tune.loop_net import run
from llmers_pipelines.tune.sft import Sft


class Scripted:
    """A task whose losses are given; its one weight moves by a gradient of 1."""

    def __init__(self, losses: list[float]) -> None:
        self.module, self.size, self.left = torch.nn.Linear(1, 1), len(losses), list(losses)

    def backward(self, rows, epoch: int) -> float:
        self.module.weight.grad = torch.ones_like(self.module.weight)
        return self.left.pop(0)


def tuned(losses: list[float], folder: Path, epochs: int = 1) -> list[dict]:
    task = Scripted(losses)
    task.size //= epochs
    return run(task, Sft(batch=1, epochs=epochs), folder)["losses"]


@pytest.mark.parametrize(
    ("losses", "ends", "fell"),
    [([4.0, 2.0, 9.0, 3.0, 3.0, 1.0, 1.0, 2.0], (3.0, 1.5), True),
     ([1.0, 2.0, 9.0, 3.0, 3.0, 1.0, 4.0, 2.0], (1.5, 3.0), False),
     ([2.0, 2.0], (2.0, 2.0), False)],
)  # fmt: skip
def test_one_epoch_is_judged_by_its_outer_quarters(losses, ends, fell, tmp_path) -> None:
    found = tuned(losses, tmp_path)
    assert _ends(found) == ends
    check = _learned(found)
    assert check.passed is fell and not check.blocking
    names = ("first quarter of the epoch", "last quarter of the epoch")
    assert check.details == dict(zip(names, ends, strict=True))


def test_epochs_are_compared_with_each_other(tmp_path) -> None:
    found = tuned([4.0, 2.0, 1.0, 3.0], tmp_path, epochs=2)
    assert _ends(found) == (3.0, 2.0) and _learned(found).passed
    assert not _learned(found[::-1]).passed


def test_where_nothing_can_be_compared_the_check_says_so(tmp_path) -> None:
    kept = [{"epoch": 1, "loss": 2.5, "steps": 9, "seconds": 0.1}]  # before quarters were kept
    for losses in (tuned([2.5], tmp_path), kept):
        check = _learned(losses)
        assert check.passed and "nothing to compare" in check.details["why"]
        assert _ends(losses) == (2.5, 2.5)
