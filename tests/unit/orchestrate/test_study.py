"""A stored search asks the same whether it was killed or not, and for nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.models.spaces import Choice, Dimension, Span
from llmers_pipelines.orchestrate.context import StepError
from llmers_pipelines.orchestrate.tuning.study import Study, opened

SPACE: dict[str, Dimension] = {
    "lr": Span(1e-4, 1e-1, log=True), "layers": Span(1, 4, whole=True), "loss": Choice(("ce", "b")),
}  # fmt: skip
DEFAULT = {"lr": 1e-3, "layers": 2, "loss": "ce"}


def value(settings: dict[str, Any]) -> float:
    return settings["layers"] * 0.1 - abs(settings["lr"] - 0.01) + (settings["loss"] == "b")


def run(
    path: Path, count: int, *, space: dict[str, Dimension] | None = None, seed: int = 0,
    pruner: str = "none", each: Callable[[Study, Any], None] | None = None,
) -> list[Any]:  # fmt: skip
    """Make trials until ``count`` have ended."""
    with opened(path, ["s"], [space or SPACE], seed=seed, pruner=pruner, epochs=[(1, 9)]) as found:
        (study,) = found
        while len(study.trials()) < count:
            asked = study.ask(DEFAULT)
            if each is not None:
                each(study, asked)
            else:
                asked.ends(value(asked.settings), 0.1)
        return study.trials()


def test_the_first_trial_has_the_settings_as_they_are(tmp_path: Path) -> None:
    trials = run(tmp_path / "a.db", 6)
    assert trials[0].settings == DEFAULT and trials[0].value == value(DEFAULT)
    for t in trials[1:]:
        assert set(t.settings) == set(SPACE)
        assert all(SPACE[n].holds(v) for n, v in t.settings.items())
        assert t.settings["lr"] == float(f"{t.settings['lr']:.3g}")  # what is printed was trained


def test_the_seed_decides_and_calls_do_not(tmp_path: Path) -> None:
    whole = [t.settings for t in run(tmp_path / "a.db", 14)]
    for count in (1, 5, 5, 14):  # one call less than the last is a call that ended early
        in_parts = [t.settings for t in run(tmp_path / "b.db", count)]
    assert in_parts == whole
    assert [t.settings for t in run(tmp_path / "c.db", 14, seed=1)][1:] != whole[1:]
    assert len({str(s) for s in whole}) > 8


def test_a_trial_of_a_killed_process_is_asked_for_again(tmp_path: Path) -> None:
    path, lost = tmp_path / "a.db", []

    def killed(study: Study, asked: Any) -> None:
        if len(study.trials()) == 3:
            lost.append(asked.settings)
            asked.hear(1, 0.2)
            raise KeyboardInterrupt
        asked.ends(value(asked.settings), 0.1)

    with pytest.raises(KeyboardInterrupt):
        run(path, 6, each=killed)
    trials = run(path, 6)
    assert trials[3].settings == lost[0]
    assert [t.settings for t in trials] == [t.settings for t in run(tmp_path / "b.db", 6)]


def test_what_falls_behind_is_told_to_end_but_never_the_first(tmp_path: Path) -> None:
    def each(study: Study, asked: Any) -> None:
        number = len(study.trials())
        level = 0.0 if number in (0, 6) else 1.0
        for epoch in range(1, 4):
            if asked.hear(epoch, level):
                asked.ends(None, 0.1, f"pruned at epoch {epoch}")
                return
        asked.ends(level, 0.1)

    trials = run(tmp_path / "a.db", 8, pruner="median", each=each)
    assert [t.why for t in trials] == ["", "", "", "", "", "", "pruned at epoch 1", ""]
    assert trials[6].value is None and trials[6].epochs == {1: 0.0} and trials[6].pruned
    assert trials[0].value == 0.0 and trials[0].epochs == {1: 0.0, 2: 0.0, 3: 0.0}


def test_a_default_outside_of_its_range_is_a_trial_all_the_same(tmp_path: Path) -> None:
    space = {**SPACE, "lr": Span(0.01, 0.1)}
    trials = run(tmp_path / "a.db", 12, space=space)
    assert trials[0].settings == DEFAULT
    assert all(0.01 <= t.settings["lr"] <= 0.1 for t in trials[1:])


def test_a_failed_trial_is_made_once(tmp_path: Path) -> None:
    def each(study: Study, asked: Any) -> None:
        if asked.settings["loss"] == "b":
            asked.ends(None, 0.1, "failed: it diverged")
        else:
            asked.ends(value(asked.settings), 0.1)

    trials = run(tmp_path / "a.db", 10, each=each)
    assert len(trials) == 10 and any(t.why == "failed: it diverged" for t in trials)
    assert all((t.value is None) == bool(t.why) for t in trials)


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_pruners_are_known_by_name(tmp_path: Path, pruner: str) -> None:
    assert len(run(tmp_path / "a.db", 2, pruner=pruner)) == 2


def test_one_process_at_a_time_and_an_unknown_pruner(tmp_path: Path) -> None:
    def each(study: Study, asked: Any) -> None:
        with pytest.raises(StepError, match="another process searches settings of a now"):
            run(tmp_path / "a.db", 1)
        asked.ends(0.1, 0.1)

    run(tmp_path / "a.db", 1, each=each)
    with pytest.raises(StepError, match="no pruner 'best'; use one of median, hyperband, none"):
        run(tmp_path / "b.db", 1, pruner="best")
