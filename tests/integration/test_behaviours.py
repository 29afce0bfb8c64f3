"""BAHE in the graph: behaviours stored by text, upper layers tuned, exported as CTR features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shop import TINY, Shop, made

from llmers_pipelines.plan import Tune
from llmers_pipelines.tune.deep_clicks_net import DeepClicksTask
from llmers_pipelines.tune.tiny_model import make_tiny_model

pytestmark = pytest.mark.proof("bahe", "equations")
CHOICE = """
[llmers]
dataset = "shop"
[encoder]
name = "{lm}?layer=1&pooling=mean&normalize=0"
[tune]
checkpoint_seconds = 0
[evaluation]
controls = ["permuted"]
[[methods]]
recipe = "bahe"
backbone = "deepfm"
settings = {{ last = 4, batch = 8, protocol = "ctr", shared = 1, specific = 1, out = 4 }}
backbone_settings = {tiny}
"""


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    own = Shop.open(tmp_path / "home")
    texts = [f"{row['title']} {row['description']}" for row in own.read("items")]
    lm = make_tiny_model(tmp_path_factory.mktemp("lm") / "tiny", texts, steps=40)
    (own.home / "llmers.toml").write_text(CHOICE.format(lm=lm, tiny=TINY))
    return own


def embedded(shop: Shop) -> dict[str, Any]:
    return shop.manifest("llm_embeddings/item_text").counts


def test_behaviours_are_encoded_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while tuning and run again: every behaviour comes from the store, no step twice."""
    steps = 0
    backward = DeepClicksTask.backward

    def dying(self: Any, rows: Any, epoch: int) -> float:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return backward(self, rows, epoch)

    monkeypatch.setattr(DeepClicksTask, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        shop.work("BAHE")
    assert embedded(shop)["encoded"] == embedded(shop)["distinct"] == 24
    shop.work("BAHE")
    node = next(n for n in shop.plan().nodes if isinstance(n, Tune))
    told = shop.manifest(node.name)
    assert told.counts["resumed_from"] == 2 and steps == 1 + told.counts["steps"]
    assert made(shop.work("BAHE")) == set()
    found = list(shop.context().manifests.all("shop"))
    assert all(c.passed for m in found for c in m.checks if c.blocking)
    states = [m for m in found if m.name.startswith("features/deep_states")]
    assert {m.counts["width"] for m in states} == {64} and len(states) == 2
    assert any(m.name.startswith("evaluations/bahe") for m in found)

    books = shop.read("items")  # in another order: the same texts, the same vectors
    shop.write("items", books[::-1])
    shop.work("llm_embeddings/item_text")
    assert embedded(shop)["encoded"] == 0 and embedded(shop)["cached"] == 24
    books[0]["description"] = "Another story altogether."
    shop.write("items", books)
    shop.work("llm_embeddings/item_text")
    assert embedded(shop)["encoded"] == 1 and embedded(shop)["cached"] == 23
