"""Variants and backbones of one method stand side by side: keys, marks, pins, descriptions."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llmers_pipelines.api import (
    Derive,
    ItemVectors,
    LightGCN,
    Pin,
    SampleMask,
    Train,
    TrainingStatistics,
    splits,
)
from llmers_pipelines.config import Method, Settings
from llmers_pipelines.orchestrate.backbones import backbones
from llmers_pipelines.orchestrate.build import Plan, build_plan, fitting_backbones
from llmers_pipelines.orchestrate.describe import describe
from llmers_pipelines.orchestrate.tuning.space import arms_of
from llmers_pipelines.orchestrate.variants import mark_of, with_own_pins
from llmers_pipelines.plan import PlanError
from llmers_pipelines.recipe import Recipe, discover

RECIPES = discover()
METHODS = [slug for slug, recipe in RECIPES.items() if not recipe.is_baseline]
QUOTED = r'"(\w+)"'
# The models are never opened.
MODELS = Settings(engine="hf", model="a-model", encoder="minilm")


def plan_of(*methods: Method, settings: Settings = MODELS) -> Plan:
    return build_plan(dataclasses.replace(settings, methods=methods), RECIPES)


def names(plan: Plan) -> dict[str, str]:
    """Return the digest of each asset but the gates; fails where two have one key."""
    assert len({n.name for n in plan.nodes}) == len(plan.nodes)
    assert len({n.digest for n in plan.nodes}) == len(plan.nodes)
    return {n.name: n.digest for n in plan.nodes if n not in plan.champions}


def builds(method: Method) -> bool:
    try:
        plan_of(method)
    except (PlanError, ValueError, TypeError):
        return False
    return True


def other_values(recipe: Recipe, name: str) -> Iterator[Any]:
    """Yield other values of a setting; of a word those of its refusal and of the recipe."""
    match recipe.settings[name]:
        case bool(value):
            yield not value
        case int(value):
            # Fewer rounds first: they are faster.
            yield from (n for n in (value - 1, value + 1) if n > 0)
        case float(value):
            yield min(value * 0.5 + 0.01, 0.9)
        case str(value):
            told = inspect.getsource(sys.modules[recipe.module])
            try:
                recipe(**{name: "?"})
            except (PlanError, ValueError) as error:
                told = f"{error} {' '.join(re.findall(QUOTED, told))}"
            yield from (w for w in dict.fromkeys(re.findall(r"\w+", told)) if w != value)


def changed(slug: str) -> dict[str, Method]:
    """Return the method with one setting changed, for each setting that can be."""
    found = {}
    for name in set(RECIPES[slug].settings) - {"backbone", "protocol"}:
        tried = (Method(slug, settings={name: v}) for v in other_values(RECIPES[slug], name))
        way = next((m for m in tried if builds(m)), None)
        if way is not None:
            found[name] = way
    return found


@pytest.mark.parametrize("slug", METHODS)
def test_one_changed_setting_stands_beside_the_default(slug: str) -> None:
    plain = names(plan_of(Method(slug)))
    variants = changed(slug)
    left = set(RECIPES[slug].settings) - set(variants) - {"backbone", "protocol"}
    assert len(variants) >= len(left), f"hardly any setting was tried; left out: {left}"
    for name, method in variants.items():
        both = names(plan_of(Method(slug), method))
        assert plain.items() <= both.items(), f"{name}: an asset of the default was renamed"
        own = {n.digest for n in plan_of(method).nodes if n.verb in ("generate", "table")}
        pins = {k for k in both if "/pin__" in k}
        if not any("variant" in k for k in pins):  # then what hangs on the pin is another thing
            assert own <= set(both.values()), name


@pytest.mark.parametrize("slug", METHODS)
def test_backbones_stand_side_by_side(slug: str) -> None:
    fitting = fitting_backbones(RECIPES[slug])
    ways = [
        Method(slug, name, {}, {**own_settings(slug, name), **s}) for name, s in fitting.items()
    ]
    plan = plan_of(*ways)
    names(plan)
    assert len({m.slug for m in plan.methods if m.recipe.slug == slug}) == len(ways) > 0


def own_settings(slug: str, backbone: str) -> dict[str, Any]:
    """Return what the recipe sets of its own backbone, where ``backbone`` has that too."""
    own, kind = RECIPES[slug].settings["backbone"], backbones()[backbone]
    found = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
    known = {f.name: f.default for f in dataclasses.fields(type(own))}
    mine = {f.name for f in dataclasses.fields(kind)}
    return {n: v for n, v in found.items()
            if n in mine and isinstance(v, (bool, int, float, str)) and v != known[n]}  # fmt: skip


ROUNDS = (Method("gacllm"), Method("gacllm", settings={"neighbours": 9}))


def test_names_are_the_same_from_load_to_load_and_with_other_models() -> None:
    first = plan_of(*ROUNDS)
    marked = [n.name for n in first.nodes if n.mark]
    assert marked and names(plan_of(*ROUNDS)) == names(first)
    other = dataclasses.replace(MODELS, model="another-model", encoder="tfidf?dim=8")
    assert [n.name for n in plan_of(*ROUNDS, settings=other).nodes] == [n.name for n in first.nodes]
    # what a later method adds renames nothing
    more = plan_of(*ROUNDS, Method("gacllm", settings={"neighbours": 7}), Method("llm2x"))
    assert names(first).items() <= names(more).items()


def test_a_mark_stays_when_a_revision_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    node = next(n for n in plan_of(*ROUNDS).nodes if n.mark)
    before = node.code_version
    monkeypatch.setattr(type(node.task), "revision", 99)
    again = next(n for n in plan_of(*ROUNDS).nodes if n.mark)
    assert again.name == node.name and again.code_version != before


def test_what_is_made_of_a_variant_bears_its_mark_and_templates_end_so() -> None:
    plan = plan_of(*ROUNDS, settings=dataclasses.replace(MODELS, controls=("template",)))
    marked = {n.name: n for n in plan.nodes if n.mark}
    asked = next(
        n for k, n in marked.items() if k.startswith("item_summaries/rewrite_item__variant")
    )
    made = [n for n in plan.nodes if n.verb in ("derive", "embed") and n.inputs[0] == asked]
    assert len(made) == 2 and all(n.slug.endswith(asked.mark) and not n.mark for n in made)
    controls = [n for n in marked.values() if n.verb == "generate" and n.llm == "template"]
    assert controls and all(n.slug.endswith(f"__{n.mark}__template") for n in controls)
    assert max(len(n.slug) for n in plan.nodes) <= 140


def test_a_description_says_in_what_a_variant_differs() -> None:
    plan = plan_of(*ROUNDS)
    node = next(n for n in plan.nodes if n.mark and n.prefix == "item_summaries")
    assert "A variant of `item_summaries/rewrite_item`: neighbourhood.n 9, not 8.\n" in describe(
        node, plan
    )
    first = plan.node("item_summaries/rewrite_item")
    assert "variant" not in describe(first, plan)
    plan = plan_of(Method("llm_ins"), Method("llm_ins", "bprmf"))
    node = next(n for n in plan.nodes if n.mark)
    assert "train.backbone bprmf, not lightgcn." in describe(node, plan)


def test_rounds_of_a_variant_read_their_own_trainings() -> None:
    """``last`` changes what a training records: no other variant's statistics may be read."""
    plan = plan_of(Method("llmhd"), Method("llmhd", settings={"last": 3}))
    assert len([m for m in plan.methods if m.recipe.slug == "llmhd"]) == 2
    for n, number in ((1, 2), (2, 2)):
        pins = [p for p in plan.nodes if isinstance(p, Pin) and f"llmhd_round{n}" in p.name]
        pins = [p for p in pins if "template" not in p.name]
        assert len({p.digest for p in pins}) == len(pins) == number
        assert sorted(p.node.parts[-1].last for p in pins) == [3, 5]


def test_a_tuned_backbone_keeps_the_pin_of_its_role() -> None:
    log, pins = splits("collaborative"), {}
    made = []
    for dim, parts in ((8, ()), (16, ()), (8, (TrainingStatistics(),))):
        pin = Pin(Train(LightGCN(dim=dim), log, aux=parts), role="base")
        train = Train(LightGCN(), log, aux=(SampleMask(source=Derive(ItemVectors(), pin, log)),))
        made.append(next(n for n in _pins(with_own_pins(train, pins))))
    assert made[0].node.backbone.dim == made[1].node.backbone.dim == 8
    assert made[0].digest == made[1].digest != made[2].digest
    assert made[2].role == f"base__{mark_of((log, TrainingStatistics()))}"


def _pins(train: Train) -> Iterator[Pin]:
    from llmers_pipelines.plan import walk

    return (n for n in walk([train]) if isinstance(n, Pin))


def test_a_search_reads_the_assets_of_its_own_variant() -> None:
    """The method that is searched is not put first: it would take the plain names."""
    chosen = (Method("llm_ins"), Method("llm_ins", "bprmf"))
    settings = dataclasses.replace(MODELS, methods=chosen)
    plan = build_plan(settings, RECIPES)
    wanted = next(m.train for m in plan.methods if "bprmf" in m.slug and m.recipe.slug == "llm_ins")
    arm = arms_of(settings, "llm_ins", "bprmf")[0]
    read = [n.name for n in wanted.inputs]
    assert [n.name for n in arm.node.inputs] == read
    assert any("variant" in name for name in read)
    trial = arm.train({**arm.default, "fit.lr": 0.007})
    assert [n.name for n in trial.inputs] == read


def test_a_search_finds_a_variant_that_shares_a_pin() -> None:
    """With the first method's pin it is not equal to itself alone."""
    chosen = (Method("llm_ins", "", {}, {"dim": 16}), Method("llm_ins", "", {}, {"dim": 32}))
    for methods in (chosen, chosen[::-1]):
        settings = dataclasses.replace(MODELS, methods=methods)
        arm = arms_of(settings, "llm_ins")[0]
        assert arm.node.backbone.dim == methods[0].backbone_settings["dim"]
