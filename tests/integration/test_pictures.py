"""A shop with covers, a vision-language model of random weights, and ``llm2x`` on its summaries."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shop import SHOP, SMALL, Shop, same_environment
from tiny_vlm import make_tiny_vlm

from llmers_pipelines.orchestrate.prompts import preview
from llmers_pipelines.orchestrate.publish import materialize, stale_because
from llmers_pipelines.store.responses import ResponseStore

ASSET = "item_summaries/pictured_item_summary"
CHOICE = f"""
[llmers]
dataset = "shop"

[encoder]
name = "tfidf?dim=24"

[llm]
engine = "hf"
model = "MODEL"
max_tokens = 40

[[methods]]
recipe = "llm2x"
settings = {{ source = "pictures" }}
backbone_settings = {SMALL}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    shop = Shop.open(tmp_path)
    rows = shop.read("items")[:6]
    for n, row in enumerate(rows):
        row["cover"] = f"covers/{n}.png"
    rows[5]["cover"] = "../../llmers.toml"
    shop.write("items", rows)
    (shop.folder / "covers").mkdir()
    rng = np.random.default_rng(1)
    for n in range(5):
        pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(shop.folder / "covers" / f"{n}.png")
    text = SHOP.replace('description = "text"\n', 'description = "text"\ncover = "image"\n')
    (shop.folder / "shop.toml").write_text(text)
    model = make_tiny_vlm(tmp_path / "vlm")
    (shop.home / "llmers.toml").write_text(CHOICE.replace("MODEL", str(model)))
    with same_environment():
        yield shop


def test_pictures_reach_the_model_once_and_a_new_one_makes_the_asset_stale(shop: Shop) -> None:
    node, context = shop.plan().node(ASSET), shop.context
    shop.work(ASSET)
    first = shop.manifest(ASSET)
    store = ResponseStore(shop.home / "data" / "llmers" / "responses")
    assert first.counts["llm_calls"] >= 6 and "images" in first.sources
    table = context().load(node)
    notes = table["truncated"].to_pylist()
    assert notes[:5] == [None] * 5 and "out of the data set's folder" in notes[5]
    stored = [json.loads(r["request"]) for r in store.records(table["request_key"].to_pylist())]
    parts = [m["messages"][1]["content"] for m in stored]
    seen = [p[0] for p in parts if isinstance(p, list)]
    assert len(seen) == 5 and all(set(p) == {"type", "sha256", "processor"} for p in seen)
    assert "covers" not in json.dumps(seen)

    assert stale_because(node, context()) == ""
    rows = store.stats()["rows"]
    Image.new("RGB", (5, 5), (1, 2, 3)).save(shop.folder / "covers" / "2.png")
    assert "images" in stale_because(node, context())
    ctx = context()
    assert materialize(node, ctx).status
    second = shop.manifest(ASSET)
    # The row whose picture changed is asked, with its repair where that is due; no other one is.
    assert 1 <= second.counts["llm_calls"] <= 2
    assert store.stats()["rows"] == rows + second.counts["llm_calls"]
    assert stale_because(node, context()) == ""


def test_a_preview_names_the_picture_by_its_hash(shop: Shop) -> None:
    shop.work("catalog/items")
    ctx = shop.context()
    node: Any = shop.plan().node(ASSET)
    found = preview(node, "b01", ctx)
    image, words = found["messages"][1]["content"]
    assert image["from"] == "covers/0.png" and (image["width"], image["height"]) == (30, 20)
    assert len(image["sha256"]) == 64 and words["type"] == "text"
    assert json.dumps(found["messages"]) and found["tokens"]["count"] > 4
    plain = dataclasses.replace(ctx.settings, engine="template", model="")
    told = preview(node, "b01", dataclasses.replace(ctx, settings=plain, _cache={}))
    assert isinstance(told["messages"][1]["content"], str)
