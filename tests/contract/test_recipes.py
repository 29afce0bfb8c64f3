"""Every recipe on every backbone that it fits keeps the contract; none can be left out."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from llmers_pipelines.orchestrate.build import fitting_backbones
from llmers_pipelines.recipe import discover
from llmers_pipelines.testing.contract import RecipeContract

CASES = [
    pytest.param(slug, backbone, id=f"{slug}-{backbone}",
                 marks=pytest.mark.proof(slug, "served"))
    for slug, recipe in discover().items()
    for backbone in (fitting_backbones(recipe) or [""])
]  # fmt: skip


class Case(RecipeContract):
    __test__ = False
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, recipe: str, backbone: str) -> None:
        self.recipe, self.backbone = recipe, backbone  # type: ignore[misc]


@pytest.mark.parametrize(("recipe", "backbone"), CASES)
def test_documented(recipe: str, backbone: str) -> None:
    Case(recipe, backbone).test_it_is_documented()


@pytest.mark.parametrize(("recipe", "backbone"), CASES)
def test_trains_exports_and_serves_without_a_language_model(
    recipe: str, backbone: str, tmp_path
) -> None:
    Case(recipe, backbone).test_it_trains_exports_and_serves_without_a_language_model(tmp_path)


@pytest.mark.parametrize(("recipe", "backbone"), CASES)
def test_without_its_parts_it_is_its_backbone(recipe: str, backbone: str) -> None:
    Case(recipe, backbone).test_without_its_parts_it_is_its_backbone()


@pytest.mark.parametrize(("recipe", "backbone"), CASES)
def test_inert_parts_leave_the_backbone_alone(recipe: str, backbone: str) -> None:
    Case(recipe, backbone).test_inert_parts_leave_the_backbone_alone()


def test_every_family_of_the_issue_has_its_recipe() -> None:
    found = discover()
    assert {"kar", "llm2x", "llm_init", "llm_esr", "llmrec"} <= set(found)
    assert set(fitting_backbones(found["kar"])) >= {"din", "deepfm"}
    assert set(fitting_backbones(found["llm2x"])) >= {"sasrec", "lightgcn"}
    assert set(fitting_backbones(found["llm_init"])) >= {"sasrec", "lightgcn"}
    causal = {"sasrec", "gru4rec", "caser", "hstu"}
    assert set(fitting_backbones(found["llm_esr"])) == causal
    assert set(fitting_backbones(found["dllm2rec"])) == causal
    assert set(fitting_backbones(found["llmrec"])) == {"lightgcn", "sgl", "bprmf"}
