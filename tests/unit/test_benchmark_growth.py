"""What the growth of a training is told from: whole epochs, and epochs that are cut."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("growth")


def test_a_cut_epoch_is_scaled_from_its_steps_and_still_validated(growth, tmp_path, monkeypatch):
    drawn = growth.logged(tmp_path, 20_000, items=300)
    assert drawn["items"] == 300 and 0 < drawn["rows"] < 20_000  # a pair is kept once
    whole = growth.of_training(tmp_path, "BPR-MF")
    assert whole["rows"] == drawn["rows"] and whole["users"] <= 400
    targets = 2 * whole["users"]  # the newest rows of a user validate and test
    assert whole["of_steps"] == whole["steps"] == -(-(whole["rows"] - targets) // 1024)
    cut = growth.of_training(tmp_path, "SASRec", seconds=0.0)
    assert cut["steps"] == growth.WARM_UP + 1 < cut["of_steps"]
    for found in (whole, cut):
        assert found["epoch_s"] >= found["of_steps"] * found["step_s"] > 0
        assert min(found[n] for n in ("validate_s", "ranks_s")) > 0
        assert found["loaded_mb"] <= found["train_peak_mb"] <= found["ranks_peak_mb"]


def test_the_step_of_an_epoch_is_that_after_warm_up(growth, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(growth.time, "process_time", lambda: now[0])

    class Slow:  # the order takes 5 s, steps 100, 100, 100, then 2 s each
        steps_per_epoch, data = 10, None

        def epoch(self, number):
            now[0] += 5
            yield from range(10)

    clocked = growth.Clocked(Slow(), seconds=308)
    for step in clocked.epoch(1):
        now[0] += 100 if step < growth.WARM_UP else 2
    assert clocked.found == {"steps": 5, "of_steps": 10, "step_s": 2.0, "epoch_s": 25.0}
