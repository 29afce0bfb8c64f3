"""The knowledge graph that a benchmark hands to all sides is the one that our models join."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import IdMap
from llmers_pipelines.models.knowledge_net import join_triples

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
KG = pa.table({
    "head_id": ["e1", "e3", "e9", "e1", "e1", "e2"],
    "relation": ["of", "by", "of", "by", "by", "of"],
    "tail_id": ["e7", "e1", "e8", "e7", "e7", "e2"],
})  # fmt: skip
LINK = pa.table({"item_id": ["b", "c", "d", "gone"], "entity_id": ["e1", "e3", "e5", "e2"]})


def test_triples_read_back_by_a_side_are_those_of_the_data_set(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.syspath_prepend(str(PEERS / "runners"))
    sides, ours = importlib.import_module("sides"), importlib.import_module("run_ours")
    data = SimpleNamespace(items=IdMap(("a", "b", "c", "d")))
    catalog = SimpleNamespace(extras={"kg": KG, "kg_link": LINK})
    sides.write_facts(catalog, SimpleNamespace(data=data, folder=tmp_path))
    with np.load(tmp_path / "facts.npz") as facts:
        assert np.flatnonzero(facts["linked"]).tolist() == [2, 3]  # e5 is in no triple
        job = ours.Job.__new__(ours.Job)
        job.given, job.split = {"model": "CKE"}, tmp_path
        backbone = ours.backbone_of(job)
        read = ours.inputs_of(job, backbone, data)
        found = join_triples(read[backbone.kg], read[backbone.link], data.items, "kg")
        names = ("head", "relation", "tail")
        rows = [np.stack([source[n] for n in names]).T.tolist() for source in (facts, vars(found))]
        assert sorted(rows[0]) == sorted(rows[1]) and len(rows[0]) == 5  # one of six is told twice
        np.testing.assert_array_equal(found.linked, facts["linked"])
    assert ours.inputs_of(job, ours.api.SGL(), data) == {}
    with pytest.raises(FileNotFoundError):
        job.split = tmp_path / "none"
        ours.inputs_of(job, backbone, data)
