"""The plan: what is shared, what is named in errors, what words select, what a data set can run."""

from __future__ import annotations

import dataclasses
import re
import types
from importlib import metadata
from typing import Any

import pytest
from click.testing import CliRunner

from llmers_pipelines.api import (
    PCA,
    Derive,
    Embed,
    FromVectors,
    ItemSummary,
    ItemText,
    Popularity,
    SASRec,
    Train,
    items,
    splits,
)
from llmers_pipelines.cli.catalogue import recipes
from llmers_pipelines.config import PROJECT, Method, Settings, load_settings
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.orchestrate.applicable import applicable
from llmers_pipelines.orchestrate.build import Plan, build_plan, fitting_backbones
from llmers_pipelines.orchestrate.cards import cards
from llmers_pipelines.plan import Champion, Generate, PlanError, walk
from llmers_pipelines.recipe import Recipe, discover, recipe

SUMMARY = {"source": "summary"}


def plan_of(*methods: Method | str, **settings: Any) -> Plan:
    chosen = tuple(Method(m) if isinstance(m, str) else m for m in methods)
    return build_plan(Settings(methods=chosen, encoder="tfidf", **settings))


@pytest.fixture(scope="module")
def default() -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LLMERS_CONFIG", "LLMERS_HOME", "LLMERS_ENGINE", "LLMERS_CONTROLS"):
            patch.delenv(name, raising=False)
        return build_plan(load_settings(config=PROJECT / "llmers.toml"))


@pytest.fixture(scope="module")
def everything() -> Plan:
    return plan_of()


def names(plan: Plan) -> list[str]:
    return [n.name for n in plan.nodes]


def test_the_default_choice_is_small_and_everything_loads(default: Plan, everything: Plan) -> None:
    assert 30 < len(default.nodes) <= 60
    assert {m.recipe.slug for m in default.methods} >= {"kar", "llm2x", "llm_init", "llm_esr"}
    assert {m.recipe.slug for m in everything.methods} == set(discover())
    for plan in (default, everything):
        assert len(set(names(plan))) == len(plan.nodes)
        parts = [part for node in plan.nodes for part in node.key]
        assert all(re.fullmatch(r"[a-z0-9_]+", part) for part in parts)
        seen: set[Any] = set()
        for node in plan.nodes:
            assert seen.issuperset(node.inputs), f"{node.name} comes before what it reads"
            seen.add(node)


def test_the_base_of_a_method_is_the_baselines_own_asset(default: Plan) -> None:
    by_slug = {m.slug: m for m in default.methods}
    sasrec, llm2x = by_slug["sasrec"], by_slug["llm2x__sasrec__summary"]
    assert llm2x.base == sasrec.train
    assert names(default).count("recommenders/sasrec") == 1
    assert {"sasrec", llm2x.slug} <= set(default.owners[sasrec.train])


def test_equal_questions_are_one_asset(default: Plan) -> None:
    assert names(default).count("llm_embeddings/item_text") == 1
    vectors = default.node("llm_embeddings/item_text")
    users = {"knnblend", "llm_init__sasrec", "llm_esr__sasrec"}
    assert users <= set(default.owners[vectors])


def test_the_template_control_is_one_chain_for_all_that_ask_the_same() -> None:
    methods = [Method("llm2x", backbone, SUMMARY) for backbone in ("sasrec", "lightgcn")]
    plan = plan_of(*methods)
    assert [n for n in names(plan) if n.startswith("item_summaries/")] == [
        "item_summaries/item_summary", "item_summaries/item_summary__template",
    ]  # fmt: skip
    for method in (m for m in plan.methods if m.recipe.slug == "llm2x"):
        asked = [n for n in walk([method.evaluate.template]) if isinstance(n, Generate)]
        assert {n.llm for n in asked} == {"template"}
        assert {n.engine for n in asked} == {"template"}
    no_texts = plan_of(Method("llm2x", "sasrec"))
    assert no_texts.methods[0].evaluate.template is None
    without_model = plan_of(*methods, engine="template")
    assert all(m.evaluate.template is None for m in without_model.methods)


def test_the_gates_reference_is_there_also_where_nobody_chose_it() -> None:
    assert {"registry/knnblend", "registry/champion__sequential"} <= set(names(plan_of("sasrec")))
    assert "registry/deepfm" in names(plan_of("kar"))
    assert names(plan_of("knnblend", "sasrec")).count("registry/knnblend") == 1


def test_a_misspelt_encoder_stops_before_anything_runs() -> None:
    with pytest.raises(PlanError, match=r"llm_embeddings/.*no setting 'poolin'"):
        build_plan(Settings(methods=(Method("llm_init"),), encoder="minilm?poolin=cls"))


def test_engine_and_encoder_are_part_of_the_identity_of_what_they_make() -> None:
    method = Method("llm2x", "sasrec", SUMMARY)
    one, two = plan_of(method, llm_seed=1), plan_of(method, llm_seed=2)
    pairs = zip(one.nodes, two.nodes, strict=True)
    changed = {a.name for a, b in pairs if a.code_version != b.code_version}
    assert changed == {"item_summaries/item_summary"}
    assert one.methods[0].train.digest != two.methods[0].train.digest


def test_popularity_takes_its_days_and_keeps_its_name_without_them() -> None:
    plain, month = (
        next(n for n in plan_of(Method("popularity", "", given)).nodes if isinstance(n, Train))
        for given in ({}, {"days": 30})
    )
    assert (plain.slug, month.slug) == ("popularity", "popularity__days30")
    assert month.backbone == Popularity(days=30)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Method("lm2x"), r"no recipe 'lm2x'; known: .*llm2x"),
        (Method("llm2x", "sasrek"), r"\[llm2x\]: no backbone 'sasrek'; known: .*sasrec"),
        (Method("llm2x", "din"), r"din is no backbone of the task 'sequential'; .*sasrec"),
        (Method("llm2x", "ease"), r"ease has no seam"),
        (Method("popularity", "sasrec"), r"\[popularity\]: the recipe has no backbone to choose"),
        (Method("llm2x", "", {"sauce": 1}), r"no setting 'sauce'; it has: backbone, source"),
        (Method("llm2x", "", {"source": "reviews"}), r"cannot be built with source='reviews'"),
        (Method("sasrec", "", {}, {"width": 8}), r"SASRec has no setting 'width'; it has dim"),
        (Method("sasrec", "", {}, {"dim": "8"}), r"dim = '8' is not like the default 64"),
        (Method("sasrec", "", {}, {"fit": {"epoch": 2}}), r"Fit has no setting 'epoch'; .*epochs"),
        (
            Method("llm_esr", "lightgcn"),
            r"llm_esr: DualView needs the seam '\w+' \(.*\), which LightGCN does not offer",
        ),
    ],
)
def test_wrong_choices_name_the_place_and_the_mend(method: Method, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        plan_of(method)


def test_settings_of_a_toml_become_those_of_the_backbone() -> None:
    given = {"dim": 8, "dropout": 0, "fit": {"epochs": 2}}
    plan = plan_of(Method("sasrec", "", {}, given), Method("deepfm", "", {}, {"mlp": [8, 4]}))
    backbone = plan.methods[0].train.backbone
    assert (backbone.dim, backbone.dropout, backbone.layers) == (8, 0.0, SASRec().layers)
    assert backbone.fit == dataclasses.replace(SASRec().fit, epochs=2)
    assert plan.methods[1].train.backbone.mlp == (8, 4)


@recipe(name="Twin A", task="sequential", family="initialization")
def twin_a(backbone: Any = SASRec()) -> Train:
    reduced = Derive(PCA(dim=64), Embed(ItemText(), over=items))
    return Train(backbone, splits("sequential"), init=(FromVectors("item", reduced),))


@recipe(name="Twin B", task="sequential", family="initialization")
def twin_b(backbone: Any = SASRec()) -> Train:
    answers = Generate(ItemSummary(max_tokens=99), over=items)
    again = Generate(ItemSummary(), over=items, context=(answers,))
    reduced = Derive(PCA(dim=64), Embed(ItemText(), over=items, context=(again,)))
    return Train(backbone, splits("sequential"), init=(FromVectors("item", reduced),))


def test_one_key_for_two_things_gets_a_mark_on_the_later() -> None:
    settings = Settings(methods=(Method("twin_a"), Method("twin_b")), encoder="tfidf")
    nodes = build_plan(settings, {"twin_a": twin_a, "twin_b": twin_b}).nodes
    vectors = [n for n in nodes if isinstance(n, Embed)]
    assert vectors[0].name == "llm_embeddings/item_text" and not vectors[0].context
    assert vectors[1].name == f"llm_embeddings/item_text__{vectors[1].mark}" != vectors[0].name
    reduced = [n.name for n in nodes if isinstance(n, Derive)]
    assert reduced == [f"features/pca__{v.slug}" for v in vectors]


def plug_in(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    entry = types.SimpleNamespace(name="shop", value="shop.methods", load=load)
    found = {"llmers.recipes": [entry]}
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: found[group])


def test_entry_points_bring_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, lambda: types.SimpleNamespace(**{"__name__": "shop"}))
    assert "twin_a" not in discover()
    module = types.ModuleType("shop")
    module.method = twin_a  # type: ignore[attr-defined]
    for load in (lambda: twin_a, lambda: module):
        plug_in(monkeypatch, load)
        assert discover()["twin_a"] is twin_a
        assert plan_of("twin_a").methods[0].slug == "twin_a__sasrec"


def test_a_plug_in_that_clashes_or_breaks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = dataclasses.replace(discover()["kar"], module="shop.methods")
    plug_in(monkeypatch, lambda: copy)
    with pytest.raises(PlanError, match=r"'kar': llmers_pipelines\.recipes.*and shop\.methods"):
        discover()

    def broken() -> Recipe:
        raise ImportError("no module named tensorflow")

    plug_in(monkeypatch, broken)
    with pytest.raises(PlanError, match=r"plug-in 'shop' \(shop\.methods\).*tensorflow"):
        discover()


def test_words_select_assets_with_all_that_they_need(default: Plan) -> None:
    def chosen(*words: str) -> set[str]:
        return {n.name for n in default.select(words)}

    assert chosen("all") == set(names(default))
    one = chosen("llm2x")
    assert one == chosen("LLM2X") == chosen("llm2x__sasrec__summary")
    # its base and the fixed reference are compared and registered beside it, and the gate decides
    assert {"registry/sasrec", "registry/knnblend", "registry/champion__sequential"} <= one
    assert "recommenders/llm_init__sasrec" not in one
    assert {"registry/llm2x__sasrec__summary", "registry/llm_init__sasrec"} <= chosen(
        "initialization"
    )
    assert "registry/kar__din" in chosen("ctr") and "registry/sasrec" not in chosen("ctr")
    assert chosen("user_profiles") >= {"user_profiles/user_preference", "catalog/splits__ctr"}
    assert chosen("llm_embeddings/item_text") == {"llm_embeddings/item_text", "catalog/items"}
    assert chosen("registry/champion__ctr") == {"registry/champion__ctr"}
    with pytest.raises(PlanError, match=r"nothing is called 'lllm2x'.*Known: .*llm2x"):
        default.select(["lllm2x"])
    with pytest.raises(PlanError, match=r"no asset 'registry/nothing'"):
        default.select(["registry/nothing"])


def test_a_selection_is_in_order_whatever_the_words(default: Plan) -> None:
    nodes = default.select(["registry/champion__sequential", "kar", "llm_esr"])
    for i, node in enumerate(nodes):
        if not isinstance(node, Champion):  # the gate also looks at what is registered already
            assert set(node.inputs) <= set(nodes[:i])


def test_a_data_set_runs_what_it_has_tasks_for(default: Plan) -> None:
    sample = find_dataset("sample")
    whole = applicable(default, list(default.nodes), sample)
    assert whole == (list(default.nodes), {})
    no_ctr = dataclasses.replace(sample, splits={"sequential": sample.splits["sequential"]})
    keep, left = applicable(default, list(default.nodes), no_ctr)
    assert set(left) == {"deepfm", "din", "kar__din"}
    assert "no task 'ctr' (it has: sequential)" in left["kar__din"]
    kept = {n.name for n in keep}
    assert "registry/llm_esr__sasrec" in kept
    # nobody pays for answers and vectors that nothing would read
    assert not kept & {"item_summaries/item_knowledge", "llm_embeddings/item_knowledge",
                       "user_profiles/user_preference", "registry/champion__ctr"}  # fmt: skip
    only_ctr = default.select(["kar"])
    assert applicable(default, only_ctr, no_ctr)[0] == []


def test_a_method_that_needs_ratings_is_left_out_where_none_are_declared() -> None:
    needy = dataclasses.replace(twin_a, requires=("rating",))
    settings = Settings(methods=(Method("sasrec"), Method("twin_a")), encoder="tfidf")
    plan = build_plan(settings, {**discover(), "twin_a": needy})
    sample = find_dataset("sample")
    assert applicable(plan, list(plan.nodes), sample)[1] == {}
    bare = dataclasses.replace(
        sample, interactions=dataclasses.replace(sample.interactions, rating=None)
    )
    keep, left = applicable(plan, list(plan.nodes), bare)
    assert "declares no rating" in left["twin_a__sasrec"]
    kept = {n.name for n in keep}
    assert {"registry/sasrec", "registry/champion__sequential"} <= kept
    assert not kept & {"registry/twin_a__sasrec", "features/pca__item_text"}


def test_cards_tell_what_scripts_read(tmp_path) -> None:
    rows = cards(Settings(home=tmp_path, encoder="tfidf"))
    keys = {"slug", "name", "family", "paper", "task", "llm_outputs", "backbones",
            "backbone_settings", "proofs"}  # fmt: skip
    assert {r["slug"] for r in rows} == set(discover())
    assert all(set(r) == keys for r in rows)
    kinds = {"equations", "materialized", "lift", "served"}
    assert all(set(r["proofs"]) == kinds for r in rows)
    kar = next(r for r in rows if r["slug"] == "kar")
    assert kar["llm_outputs"] == ["user_profiles", "llm_embeddings", "item_summaries"]
    assert {"din", "deepfm"} <= set(kar["backbones"]) and not kar["backbone_settings"]


def test_a_backbone_that_needs_a_setting_is_listed_with_it(tmp_path) -> None:
    found = discover()
    assert fitting_backbones(found["tedrec"]) == {"sasrec": {"supervise": "last"}}
    assert fitting_backbones(found["cke"]) == {"cke": {}}  # it reads tables that the recipe names
    assert fitting_backbones(found["popularity"]) == {}
    listed = CliRunner().invoke(recipes, [], env={"LLMERS_HOME": str(tmp_path)})
    line = next(r for r in listed.output.splitlines() if r.startswith("tedrec "))
    assert "sasrec (supervise = last)" in line
    assert "none to choose" in next(
        r for r in listed.output.splitlines() if r.startswith("popularity ")
    )
