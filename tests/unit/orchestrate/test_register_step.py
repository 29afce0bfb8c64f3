"""What the step writes into a served bundle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN, IdMap, TrainingData
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.ease import EASE
from llmers_pipelines.models.served import export
from llmers_pipelines.orchestrate.steps import register
from llmers_pipelines.plan import Evaluate, Register, Table, Train
from llmers_pipelines.registry import index, mlflow_store
from llmers_pipelines.registry.scorer import Scorer

ITEMS, LOG = Table("items"), Table("splits", task="collaborative")
USERS, N = 30, 300


class Store:
    """Takes a bundle as the registry does, and opens it."""

    taken: Scorer

    def register_bundle(self, folder: Path, name: str, **more: Any) -> str:
        self.taken = Scorer.load(folder)
        return "1"


@pytest.mark.parametrize("scanned", [N - 1, N])
@pytest.mark.parametrize("backbone", [BPRMF(dim=8, table_std=0.5), EASE(decay="mean")])
def test_catalog_above_the_threshold_is_served_by_an_index(
    tmp_path: Path, monkeypatch, backbone, scanned: int
) -> None:
    rng = np.random.default_rng(0)
    item = np.concatenate([1 + rng.permutation(N)[:6] for _ in range(USERS)])
    data = TrainingData(
        "collaborative", IdMap(tuple(f"u{i}" for i in range(USERS))),
        IdMap(tuple(f"b{i}" for i in range(N))), np.repeat(np.arange(1, USERS + 1), 6), item,
        np.arange(len(item)), np.tile([TRAIN] * 5 + [TEST], USERS).astype(np.int8),
    )  # fmt: skip
    train = Train(backbone, LOG)
    weights = tmp_path / "weights"
    weights.mkdir()
    save_weights(weights, backbone.build(data, 0).eval())
    items = pa.table({"item_id": list(data.items.ids), "title": list(data.items.ids)})
    held = {train: weights, LOG: data, ITEMS: items}
    manifest = SimpleNamespace(data_version="v", digest="d", inputs={}, info={}, flags=())
    ctx = SimpleNamespace(
        load=held.__getitem__, manifest=lambda node: manifest, dataset="books", run_id="",
        settings=SimpleNamespace(data=tmp_path), field_kinds={},
    )  # fmt: skip
    store = Store()
    monkeypatch.setattr(mlflow_store.MlflowStore, "from_settings", lambda settings: store)
    monkeypatch.setattr(index, "SCANNED", scanned)
    outcome = register.run(Register(Evaluate(train), ITEMS), ctx)
    found = store.taken.index
    if scanned < N and isinstance(backbone, BPRMF):
        assert found is not None and found.kind == "ivf8" and found.recall >= 0.99
        assert found.most == 50 + 6 + 1  # a user's items and the one unknown to the weights
        assert outcome.counts["index"] == f"ivf8, recall {found.recall}"
        one = store.taken.recommend("u3", 5)
        other = dataclasses.replace(store.taken, index=None).recommend("u3", 5)
        assert [r["item_id"] for r in one["items"]] == [r["item_id"] for r in other["items"]]
    else:  # few items, or a model without item vectors
        assert found is None and outcome.counts["index"] == "none: scanned"
    assert all(check.passed for check in outcome.checks)


def save_weights(folder: Path, net: torch.nn.Module) -> None:
    from safetensors.numpy import save_file

    from llmers_pipelines.train import trained

    config, arrays = export(net)
    (folder / trained.CONFIG).write_text(json.dumps(config))
    save_file(arrays, folder / trained.WEIGHTS)
    (folder / "cell.json").write_text('{"unknown_items": ["b299"]}')
