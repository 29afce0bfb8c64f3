"""HLLM's other forms keep the contract: a taught student, an id table that starts from vectors."""

from __future__ import annotations

import pytest

from llmers_pipelines.plan import Distill, PlanError, Tune, walk
from llmers_pipelines.recipe import discover
from llmers_pipelines.testing.contract import RecipeContract

pytestmark = pytest.mark.proof("hllm", "served")


class TestTaught(RecipeContract):
    recipe, backbone = "hllm", "sasrec"
    settings = {"teach": 0.5}  # noqa: RUF012

    def test_it_is_a_student(self) -> None:
        assert isinstance(self.node(), Distill)

    def test_its_weight_scales_both_halves(self) -> None:
        (part,) = self.node().aux
        assert part.weight == 0.5 and part.norm_weight == pytest.approx(0.05)


class TestInitialized(RecipeContract):
    recipe, backbone = "hllm", "sasrec"
    settings = {"use": "init"}  # noqa: RUF012


def test_without_tuning_no_model_is_tuned() -> None:
    """And what is tuned does not change with what the vectors are used for."""
    recipe = discover()["hllm"]
    tuned = [n for n in walk([recipe(tuned=False)]) if isinstance(n, Tune)]
    assert tuned == []
    found = {
        n.digest
        for use, teach in (("replace", 0.0), ("init", 0.0), ("replace", 1.0))
        for n in walk([recipe(use=use, teach=teach)])
        if isinstance(n, Tune)
    }
    assert len(found) == 1


def test_states_of_a_model_that_is_not_tuned_cannot_be_taught() -> None:
    with pytest.raises(PlanError, match=r"teach=0\.5, tuned=False.*teach needs tuned"):
        discover()["hllm"](tuned=False, teach=0.5)


def test_an_unknown_use_is_named() -> None:
    with pytest.raises(PlanError, match=r"use='freeze'.*'replace' or 'init'"):
        discover()["hllm"](use="freeze")
