"""What an experiment with other models changes in the plan, and where it may write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.config import Method, Settings
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.chain import chain_of
from llmers_pipelines.orchestrate.other_models import other_settings
from llmers_pipelines.plan import Pin, Train, walk
from llmers_pipelines.store.formats import StoreError
from llmers_pipelines.store.manifests import Manifest, ManifestStore
from llmers_pipelines.store.overlay import Overlay

CHOICE = Settings(
    methods=(Method("llmrec"), Method("llm2x", settings={"source": "summary"})),
    engine="hf", model="a/b", model_revision="r1", adapter="folder", encoder="tfidf",
)  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> Any:
    return build_plan(CHOICE)


def trained(plan: Any, start: str) -> Train:
    return next(n for n in plan.nodes if isinstance(n, Train) and n.slug.startswith(start))


def test_only_what_depends_on_the_model_is_made_again(plan: Any) -> None:
    node = trained(plan, "llm2x")
    chain = chain_of(node, {"llm": {"model": "c/d"}}, CHOICE)
    assert [n.verb for n in chain.changed] == ["generate", "embed", "derive"]
    assert chain.node.name == node.name and chain.node.digest != node.digest
    assert chain.changed[0].engine.startswith("hf:c/d@#") and set(chain.differs) == {"llm"}
    encoder = chain_of(node, {"encoder": "minilm"}, CHOICE)
    assert [n.verb for n in encoder.changed] == ["embed", "derive"]
    assert encoder.changed[0].model == "minilm" and set(encoder.differs) == {"encoder"}
    both = chain_of(node, {"llm": {"model": "c/d"}, "encoder": "minilm"}, CHOICE)
    assert len({c.folder for c in (chain, encoder, both)}) == 3
    alike = chain_of(node, {"llm": {"model": "c/d", "concurrency": 2, "budget_calls": 3}}, CHOICE)
    assert alike.folder == chain.folder and alike.limits == {"budget_calls": 3}
    # With the settings of the experiment in llmers.toml the plan has these very nodes.
    later = build_plan(Settings(methods=CHOICE.methods, engine="hf", model="c/d", encoder="tfidf"))
    assert {n.digest for n in chain.changed} <= {n.digest for n in later.nodes}


def test_a_pin_stands_in_an_experiment(plan: Any) -> None:
    node = trained(plan, "llmrec")
    pins = {n for n in walk([node]) if isinstance(n, Pin)}
    assert pins
    chain = chain_of(node, {"llm": {"temperature": 0.5}}, CHOICE)
    assert pins == {n for n in walk([chain.node]) if isinstance(n, Pin)}
    assert not any(isinstance(n, (Pin, Train)) for n in chain.changed)


def test_another_model_has_no_revision_of_the_configured_one() -> None:
    other = other_settings(CHOICE, {"llm": {"model": "c/d"}})
    assert (other.engine, other.model, other.model_revision, other.adapter) == ("hf", "c/d", "", "")
    hot = other_settings(CHOICE, {"llm": {"temperature": 1.0}})
    assert (hot.model_revision, hot.adapter, hot.temperature) == ("r1", "folder", 1.0)
    free = other_settings(CHOICE, {"llm": {"engine": "template"}})
    assert (free.engine, free.model) == ("template", "")
    assert other_settings(CHOICE, {"llm": {"engine": "vllm"}}).adapter == "folder"


@pytest.mark.parametrize(
    ("start", "wanted", "why"),
    [("llm2x", {"llm": {"engine": "vllm"}}, "made with that already"),
     ("llm2x", {"llm": {"modle": "x"}}, "no entry 'modle'"),
     ("llm2x", {"llm": {"engine": "openai"}}, "needs llm.model"),
     ("llm2x", {"encoder": "tfdif"}, "did you mean 'tfidf'"),
     ("itemknn", {"llm": {"temperature": 1.0}}, "nothing that recommenders/itemknn.* asks")],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    plan: Any, start: str, wanted: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        chain_of(trained(plan, start), wanted, CHOICE)


def test_an_overlay_writes_its_own_assets_alone(tmp_path: Path) -> None:
    def version(name: str, v: str) -> Manifest:
        return Manifest(name, "shop", "c", v, "d", f"shop/{name}/{v}")

    below = ManifestStore(tmp_path / "data")
    below.write(version("catalog/items", "v1"))
    below.write(version("item_summaries/a", "v1"))
    store = Overlay(tmp_path / "apart", below, {"item_summaries/a"})
    assert store.current("shop", "catalog/items") == below.current("shop", "catalog/items")
    assert store.current("shop", "item_summaries/a") is None, "the published one is another"
    assert store.version("shop", "item_summaries/a", "v1") is None
    store.write(version("item_summaries/a", "v2"))
    assert [m.data_version for m in store.versions("shop", "item_summaries/a")] == ["v2"]
    made, read = store.current("shop", "item_summaries/a"), store.current("shop", "catalog/items")
    assert made is not None and read is not None
    assert store.path(made) == tmp_path / "apart/warehouse/shop/item_summaries/a/v2"
    assert store.path(read) == below.path(read)
    with pytest.raises(StoreError, match="catalog/items is published"):
        store.write(version("catalog/items", "v2"))
    assert [m.data_version for m in below.versions("shop", "item_summaries/a")] == ["v1"]
    assert [m.data_version for m in below.versions("shop", "catalog/items")] == ["v1"]
