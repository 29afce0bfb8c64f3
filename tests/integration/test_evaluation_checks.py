"""What the checks of an evaluation compare: controls with base and method, and both budgets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from failing import Patch, named, ranks, step_checks, wrapped
from shop import Shop

from llmers_pipelines.orchestrate.steps import evaluate


@pytest.mark.parametrize(
    ("up", "passed", "beats"),
    [((0, 0, 9), True, []), ((0, 4, 9), False, ["permuted"]), ((0, 0, 0), False, [])],
    ids=["inert", "better than the base", "as good as the method"],
)
def test_a_control_is_held_against_the_base_and_the_method(
    own: Shop, tmp_path: Path, monkeypatch: Patch, up: Any, passed: bool, beats: list[str]
) -> None:
    ranks(monkeypatch, **dict(zip(("base", "permuted", "enhanced"), up, strict=True)))
    node = named(own, "evaluations/llm2x")
    found = step_checks(own, node, tmp_path / "out")["permutation_control"]
    assert found.passed == passed and found.details["better than vanilla"] == beats


def test_random_rows_are_a_second_control(own: Shop, tmp_path: Path, monkeypatch: Patch) -> None:
    ranks(monkeypatch, base=0, permuted=0, gaussian=4, enhanced=9)

    def renamed(right: Any, *args: Any) -> Any:
        found = right(*args)
        return found | {("gaussian", s): c for (a, s), c in found.items() if a == "permuted"}

    held = evaluate.gather
    monkeypatch.setattr(evaluate, "gather", lambda *args: renamed(held, *args))
    node = named(own, "evaluations/llm2x")
    found = step_checks(own, node, tmp_path / "out")["permutation_control"]
    assert found.passed and found.details["gaussian"] == found.details["permuted"]
    monkeypatch.undo()
    wrapped(monkeypatch, evaluate, "gather", renamed)
    ranks(monkeypatch, base=0, permuted=0, gaussian=4, enhanced=9)
    found = step_checks(own, node, tmp_path / "other")["permutation_control"]
    assert not found.passed and found.details["better than vanilla"] == ["gaussian"]


def test_a_base_of_fewer_seeds_has_another_budget(
    own: Shop, tmp_path: Path, monkeypatch: Patch
) -> None:
    wrapped(
        monkeypatch,
        evaluate,
        "gather",
        lambda right, *args: {k: c for k, c in right(*args).items() if k != ("base", 1)},
    )
    node: Any = named(own, "evaluations/llm2x")
    node = dataclasses.replace(node, seeds=2)
    found = step_checks(own, node, tmp_path / "out")["matched_budget"]
    assert not found.passed and found.details["differ"]["trainings"] == [node.seeds - 1, node.seeds]


def test_cells_that_kept_no_settings_are_read_and_not_trained_again(
    own: Shop, tmp_path: Path
) -> None:
    for path in own.home.glob("data/llmers/cells/*/*/cell.json"):
        record = json.loads(path.read_text())
        del record["backbone"]
        path.write_text(json.dumps(record))
    node = named(own, "evaluations/llm2x")
    assert not any(c.trained_now for c in evaluate.gather(node, own.context()).values())
    found = step_checks(own, node, tmp_path / "out")["matched_budget"]
    assert found.passed and found.details["compared"] == ["log", "seeds", "trainings"]
