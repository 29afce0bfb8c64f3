"""Recipes are found by the names of their files, and only those that are asked for are imported."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from types import ModuleType

import pytest

from llmers_pipelines import api, recipe
from llmers_pipelines.plan import PlanError
from llmers_pipelines.recipe import discover

LOADED = """
import sys
from llmers_pipelines.config import Method, Settings
from llmers_pipelines.orchestrate.build import build_plan
build_plan(Settings(methods=(Method("sasrec"), Method("textknn"))))
print(*sorted(m.rsplit(".", 1)[1] for m in sys.modules
              if m.startswith(("llmers_pipelines.recipes.", "llmers_pipelines.tune."))))
"""


def plugs(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Have ``module`` installed as a plug-in."""
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = metadata.EntryPoint("plug", module.__name__, "llmers.recipes")
    found = metadata.EntryPoints([entry])
    monkeypatch.setattr(recipe.metadata, "entry_points", lambda group: found)


def module(name: str, slug: str) -> ModuleType:
    made = ModuleType(name)

    def build(backbone=api.SASRec()):
        return api.Train(backbone, api.splits("sequential"))

    build.__name__, build.__module__ = slug, name
    made.found = api.recipe(name="Of a plug-in", task="sequential", family="baselines")(build)
    return made


def test_a_file_is_named_after_its_recipe() -> None:
    found = discover()
    assert {r.module.rsplit(".", 1)[1] for r in found.values()} == set(found)


def test_only_what_is_asked_for_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"sasrec", "textknn", "itemknn", "knnblend"} <= loaded
    assert not loaded & {"llm_esr", "kar", "llmrg", "sft", "contrast", "item_prompt"}


def test_some_recipes_are_the_same_ones() -> None:
    every, some = discover(), discover({"sasrec", "llm_esr"})
    assert set(some) == {"sasrec", "llm_esr"}
    assert all(every[slug] is r for slug, r in some.items())


def test_a_plug_in_is_always_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plugs(monkeypatch, module("plugged", "of_a_plug"))
    assert set(discover({"sasrec"})) == {"sasrec", "of_a_plug"}
    assert set(discover({"of_a_plug"})) == {"of_a_plug"}
    assert {"llm_esr", "of_a_plug"} <= set(discover())


@pytest.mark.parametrize("asked", [None, {"ease"}, {"sasrec"}])
def test_a_plug_in_cannot_take_a_packaged_name(
    asked: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugs(monkeypatch, module("plugged", "sasrec"))
    with pytest.raises(PlanError, match=r"'sasrec': llmers_pipelines.*sasrec and plugged"):
        discover(asked)


def test_a_plug_in_may_show_a_packaged_recipe_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("plugged")
    made.again = discover()["sasrec"]
    plugs(monkeypatch, made)
    assert set(discover({"ease"})) == {"ease", "sasrec"}


def test_a_name_that_nobody_has_shows_all_that_there_are() -> None:
    assert discover({"sasrec", "sasrek"}) == discover()


def test_every_name_of_the_api_is_there() -> None:
    for name in api.__all__:
        assert getattr(api, name) is not None
    with pytest.raises(ImportError, match="Nonsense"):
        from llmers_pipelines.api import Nonsense  # noqa: F401
