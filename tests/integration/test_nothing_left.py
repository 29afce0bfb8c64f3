"""Nothing passes a threshold, or every answer is refused: empty tables are trained and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from graph_shop import Reader, opened
from shop import SMALL, TUNED, Shop

from llmers_pipelines.llm import factory
from llmers_pipelines.llm.protocol import GenRequest
from llmers_pipelines.plan import Embed
from llmers_pipelines.store.manifests import Manifest
from llmers_pipelines.tune.tiny_model import make_tiny_model


class Refusing(Reader):
    def _text(self, request: GenRequest, attempt: int) -> str:
        return "I cannot help with that."


def changed(shop: Shop, *pairs: tuple[str, str]) -> None:
    toml = shop.home / "llmers.toml"
    text = toml.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    toml.write_text(text)


def worked(shop: Shop, name: str) -> dict[str, Manifest]:
    """Work the asset ``name`` and return all manifests; no blocking check may fail."""
    shop.work(name)
    found = {m.name: m for m in shop.context().manifests.all("shop")}
    assert name in found
    assert [(m.name, m.held_by) for m in found.values() if m.held_by] == []
    return found


def without_rows(shop: Shop, found: dict[str, Manifest], slug: str) -> None:
    """Check that the texts below ``recommenders/slug`` that come from answers have no rows."""
    from llmers_pipelines.plan import walk

    below = walk([shop.plan().node(f"recommenders/{slug}")])
    empty = [n.name for n in below if isinstance(n, Embed) and found[n.name].rows == 0]
    assert len(empty) == 1
    assert {c.name: c.passed for c in found[empty[0]].checks}["row_identity"]


@pytest.mark.proof("llmrg", "equations")
@pytest.mark.parametrize("why", ["threshold", "refused"])
def test_no_chain_is_left_for_a_reasoning_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    refused = why == "refused"
    llm = 'engine = "hf"\nmodel = "a-model"' if refused else 'engine = "template"'
    shop = opened(tmp_path / "home", "llmrg", llm=llm)
    changed(shop, ('controls = ["permuted", "template"]', "controls = []"))
    if refused:
        engine = Refusing()
        monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
        monkeypatch.setattr(factory, "engine_info", lambda *a, **k: engine.info)
    else:
        changed(shop, ("block = 3", "block = 3, threshold = 11"))
    slug = next(m.slug for m in shop.plan().methods if m.recipe.slug == "llmrg")
    found = worked(shop, f"{'recommenders' if refused else 'evaluations'}/{slug}")
    graphs = next(m for name, m in found.items() if name.startswith("features/reasoning_graphs"))
    assert graphs.rows == 0
    without_rows(shop, found, slug)


CHOICE = (
    TUNED
    + """[[methods]]
recipe = "llm4dsr"
settings = {{ samples = 6, window = 5, epochs = 1, batch = 6, percentile = 1.0 }}
backbone_settings = {small}
"""
)


@pytest.mark.proof("llm4dsr", "equations")
def test_no_position_is_noisy_and_the_method_is_its_backbone(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "home")
    lm = make_tiny_model(tmp_path / "tiny", [r["title"] for r in shop.read("items")], steps=5)
    (shop.home / "llmers.toml").write_text(CHOICE.format(lm=lm, small=SMALL))
    slug = next(m.slug for m in shop.plan().methods if m.recipe.slug == "llm4dsr")
    found = worked(shop, f"evaluations/{slug}")
    edits = next(m for name, m in found.items() if name.startswith("features/sequence_edits"))
    assert edits.rows == 0
    without_rows(shop, found, slug)
    base = shop.plan().node(f"evaluations/{slug}").base
    assert _weights(shop, slug) == _weights(shop, base.slug)


def _weights(shop: Shop, slug: str) -> Any:
    """Return the file of weights and the ranks at test of the published training, as bytes."""
    manifests = shop.context().manifests
    folder = manifests.path(shop.manifest(f"recommenders/{slug}"))
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    tables = [pq.read_table(f).to_pylist() for f in sorted(folder.rglob("test.parquet"))]
    return [f.read_bytes() for f in files], tables
