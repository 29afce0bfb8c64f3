"""FLIP in the graph: rows told in fences, two models pretrained together, one that starts so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from shop import TINY, Shop, made, wrong_lineage

from llmers_pipelines.data.fences import values
from llmers_pipelines.orchestrate.tuned import bound
from llmers_pipelines.plan import Embed, PlanError, Table, Train, Tune
from llmers_pipelines.train.trained import load_export
from llmers_pipelines.tune.field_alignment_net import FieldAlignmentTask
from llmers_pipelines.tune.tiny_masked import make_tiny_masked_model

pytestmark = pytest.mark.proof("flip", "equations")
CHOICE = """
[llmers]
dataset = "shop"
[encoder]
name = "{lm}?pooling=cls&normalize=0"
[tune]
checkpoint_seconds = 0
[evaluation]
controls = ["permuted"]
[[methods]]
recipe = "deepfm"
[[methods]]
recipe = "flip"
backbone = "deepfm"
settings = {{ epochs = 2, batch = 32, lr = 0.003, last = 2 }}
backbone_settings = {tiny}
"""


def make_masked(folder: Path) -> Path:
    """Write a masked language model of the shop's texts below ``folder``; return where it is."""
    books = Shop.open(folder / "books").read("items")
    texts = [f"user is u01; title is {b['title']}; kind is {b['kind']}." for b in books]
    return make_tiny_masked_model(folder / "lm", texts, steps=20, words=320, width=16, layers=1)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_masked(tmp_path_factory.mktemp("masked"))


def opened(home: Path, lm: Path) -> Shop:
    shop = Shop.open(home)
    (shop.home / "llmers.toml").write_text(CHOICE.format(lm=lm, tiny=TINY))
    return shop


def node_of(shop: Shop, kind: type) -> Any:
    return next(n for n in shop.plan().nodes if isinstance(n, kind) and n.inputs[0] and (
        not isinstance(n, Train) or n.parts))  # fmt: skip


def test_killed_and_run_again_the_same_model_is_served(
    tmp_path: Path, masked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while pretraining, beside a run that nobody disturbed."""
    quiet = opened(tmp_path / "quiet", masked)
    quiet.work(node_of(quiet, Train).name)
    shop = opened(tmp_path / "home", masked)
    steps, backward = 0, FieldAlignmentTask.backward

    def dying(self: Any, rows: Any, epoch: int) -> float:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return backward(self, rows, epoch)

    monkeypatch.setattr(FieldAlignmentTask, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        shop.work("FLIP")
    shop.work("FLIP")
    tune, train = node_of(shop, Tune), node_of(shop, Train)
    told = shop.manifest(tune.name)
    assert told.counts["resumed_from"] == 3 and steps == 1 + told.counts["steps"]
    assert made(shop.work("FLIP")) == set()
    for node in (tune, train):
        assert shop.manifest(node.name).data_version == quiet.manifest(node.name).data_version

    found = list(shop.context().manifests.all("shop"))
    assert all(c.passed for m in found for c in m.checks if c.blocking)
    assert not any(m.name.startswith(("item_summaries", "user_profiles")) for m in found)
    assert any(m.name.startswith("evaluations/flip") for m in found)
    folder = shop.context().manifests.path(told)
    assert not (folder / "adapter").exists() and (folder / "heads.safetensors").is_file()
    assert wrong_lineage(shop) == []

    # No label in what was told: one text per training row, whatever was thought of the book.
    rows = pq.read_table(
        shop.context().manifests.path(shop.manifest(tune.examples.name)) / "rows.parquet"
    ).to_pylist()
    assert all(len(values(r["text"])) == len(r["fields"]) for r in rows)
    assert all(set(r["fields"]) <= {"user", "item", "item.kind", "history"} for r in rows)

    # What is served is the backbone alone, the same numbers with and without the kill.
    exports = [load_export(s.context().manifests.path(s.manifest(train.name)))
               for s in (quiet, shop)]  # fmt: skip
    (config, state), start = exports[1], load_file(folder / "heads.safetensors")
    assert config["hooks"] == [] and config["net"].endswith(":DeepFMNet")
    assert {n: a.shape for n, a in start.items()} == {n: state[n].shape for n in start}
    for name, array in exports[0][1].items():
        np.testing.assert_array_equal(array, state[name])
    cells = [json.loads(p.read_text()) for p in shop.home.rglob("cell.json")]
    assert {c["arm"] for c in cells if c["model"].startswith("flip")} == {"main", "permuted"}


def test_weights_are_no_adapter(tmp_path: Path, masked: Path) -> None:
    from llmers_pipelines.data.text import ItemText

    shop = opened(tmp_path / "home", masked)
    tune = node_of(shop, Tune)
    with pytest.raises(PlanError, match="whole=False"):
        bound(Embed(ItemText(), over=Table("items"), adapter=tune), shop.settings())
