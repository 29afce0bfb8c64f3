"""The contract's off-switch can fail: parts that leave a trace on the backbone are found."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from llmers_pipelines.api import *  # noqa: F403  (all parts are known)
from llmers_pipelines.config import Method
from llmers_pipelines.enhance.text_offset import TextOffset
from llmers_pipelines.enhance.text_offset_net import TextOffsetHook
from llmers_pipelines.models import hooks_net
from llmers_pipelines.models.seams import Enhancement
from llmers_pipelines.orchestrate.build import instantiate
from llmers_pipelines.recipe import Recipe, discover
from llmers_pipelines.testing.contract import BASE_WORDS, RecipeContract


class Student(RecipeContract):
    __test__ = False
    recipe, backbone = "dllm2rec", "sasrec"


def test_every_part_says_how_it_is_made_inert() -> None:
    kinds = [k for k in Enhancement.__subclasses__() if k.__module__.startswith("llmers_pipelines")]
    assert len(kinds) >= 9
    assert [k.__name__ for k in kinds if "inert" not in vars(k)] == []


class Frozen(RecipeContract):
    __test__ = False
    recipe, backbone = "llmemb", "sasrec"


def test_where_no_part_is_inert_the_recipe_names_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    Frozen().test_inert_parts_leave_the_backbone_alone()
    monkeypatch.setattr(Recipe, "doc", "The LLM adds: vectors. Deviations: none.")
    with pytest.raises(AssertionError, match=r"FrozenItems cannot be made inert.*Its base is"):
        Frozen().test_inert_parts_leave_the_backbone_alone()
    Student().test_inert_parts_leave_the_backbone_alone()


def test_every_recipe_without_an_inert_part_names_its_base() -> None:
    for slug, recipe in discover().items():
        _, node = instantiate(Method(slug), discover())
        if any(part.inert() is None for part in node.parts):
            assert any(words in " ".join(recipe.doc.split()) for words in BASE_WORDS), slug


def test_a_draw_from_the_global_stream_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TextOffsetHook.item_input

    def drawing(self: Any, *args: Any) -> Any:
        torch.rand(1)
        return right(self, *args)

    monkeypatch.setattr(TextOffsetHook, "item_input", drawing)
    with pytest.raises(AssertionError):
        Student().test_inert_parts_leave_the_backbone_alone()
    with pytest.raises(AssertionError):
        Student().test_without_its_parts_it_is_its_backbone()


def test_a_draw_while_attaching_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_net, "seeded", lambda *seed: contextlib.nullcontext())
    with pytest.raises(AssertionError):
        Student().test_without_its_parts_it_is_its_backbone()


@pytest.mark.parametrize("spoil", ["frozen table", "inert at work"])
def test_what_is_left_on_the_model_is_found(monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    right = TextOffset.attach

    def freezing(self: TextOffset, model: Any, *args: Any) -> Any:
        model.item_table.weight.requires_grad_(False)
        return right(self, model, *args)

    if spoil == "frozen table":
        monkeypatch.setattr(TextOffset, "attach", freezing)
        with pytest.raises(AssertionError):
            Student().test_without_its_parts_it_is_its_backbone()
    else:
        monkeypatch.setattr(TextOffset, "inert", lambda self: self)
    with pytest.raises(AssertionError):
        Student().test_inert_parts_leave_the_backbone_alone()
