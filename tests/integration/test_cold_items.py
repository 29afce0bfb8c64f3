"""Items that nobody has met: recommended without training where a method can, told where not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shop import Shop

from llmers_pipelines.registry.mlflow_store import MlflowStore
from llmers_pipelines.registry.scorer import Scorer

LLM2X, SASREC = "llm2x", "sasrec"


def slug(shop: Shop, recipe: str) -> str:
    return next(m.slug for m in shop.plan().methods if m.recipe.slug == recipe)


def trainings(shop: Shop) -> dict[str, dict[str, Any]]:
    paths = (shop.home / "data/llmers/cells/shop").glob("*/cell.json")
    return {c["key"]: c for c in (json.loads(p.read_text()) for p in paths)}


def scorer(shop: Shop, recipe: str) -> tuple[str, str, Scorer]:
    told = shop.manifest(f"registry/{slug(shop, recipe)}").info
    folder = MlflowStore.from_settings(shop.settings()).bundle_folder(
        told["model_name"], told["version"]
    )
    return told["model_name"], told["version"], Scorer.load(folder)


def add(shop: Shop, *ids: str) -> None:
    more = [{"item_id": i, "title": f"The Sea Book of {i}", "kind": "sea",
             "description": f"A story of sea, told in {i}."} for i in ids]  # fmt: skip
    rows = shop.read("items")
    shop.write("items", [*rows[:5], *more, *rows[5:]])


def items(answer: dict[str, Any]) -> list[str]:
    return [i["item_id"] for i in answer["items"]]


def test_a_new_item_is_recommended_after_the_run_and_nothing_was_trained(own: Shop) -> None:
    before = trainings(own)
    add(own, "cold1")
    own.ask("run", "all")
    new = [c for key, c in trainings(own).items() if key not in before]
    iterated = [c for c in new if c["model"] not in ("knnblend", "itemknn")]
    assert iterated and all(c["new_items"] == ["cold1"] for c in iterated)
    assert all(c["extended_from"] in before for c in iterated)
    told = own.manifest(f"recommenders/{slug(own, LLM2X)}")
    assert told.counts["new_items"] == 1 and told.counts["unknown_items"] == 0
    name, version, model = scorer(own, LLM2X)
    assert "cold1" in items(model.recommend("u03", k=25))
    MlflowStore.from_settings(own.settings()).set_champion(name, version)
    answer = own.ask("recommend", "--user", "u03", "-k", "25")
    assert "cold1" in items(answer) and answer["note"] is None
    plain = scorer(own, SASREC)[2].recommend("u03", k=25, exclude_seen=False)
    assert "cold1" not in items(plain) and len(items(plain)) == 24
    assert plain["note"].startswith("1 items were added after the training")
    assert own.manifest(f"recommenders/{slug(own, SASREC)}").counts["unknown_items"] == 1
    report = own.manifest(f"evaluations/{slug(own, LLM2X)}").info["report"]
    assert "trained before" in report

    add(own, "cold2")  # an extension of an extension
    own.ask("run", "all")
    assert {"cold1", "cold2"} <= set(items(scorer(own, LLM2X)[2].recommend("u03", k=26)))
    assert scorer(own, SASREC)[2].recommend("u03")["note"].startswith("2 items")


def test_once_somebody_met_it_or_on_request_models_are_trained_in_full(own: Shop) -> None:
    add(own, "cold1")
    own.choose("[train]\nextend = false")
    before = trainings(own)
    own.ask("run", slug(own, LLM2X))
    new = [c for key, c in trainings(own).items() if key not in before]
    assert new and not [c for c in new if "extended_from" in c]


@pytest.mark.parametrize("how", ["settings", "flag"])
def test_a_retraining_may_start_from_the_version_before(own: Shop, how: str) -> None:
    before = trainings(own)
    rows = own.read("interactions")
    met = {r["item_id"] for r in rows if r["user_id"] == "u01"}
    unmet = next(r["item_id"] for r in own.read("items") if r["item_id"] not in met)
    row = {"user_id": "u01", "item_id": unmet, "rating": "5", "timestamp": "1700000000"}
    own.write("interactions", [*rows, row])
    words = ["--warm-start"] if how == "flag" else []
    if how == "settings":
        own.choose("[train]\nwarm_start = true")
    own.ask("run", slug(own, LLM2X), *words)
    new = [c for key, c in trainings(own).items() if key not in before]
    warm = [c for c in new if c["model"] not in ("knnblend", "itemknn")]
    assert warm and all(c["warm_start_from"] in before for c in warm)
    told = own.manifest(f"recommenders/{slug(own, LLM2X)}").info
    assert told["warm_start_from"] in before
