"""Untrained references on a public log: the values that every table is read against."""

from __future__ import annotations

import pytest

from llmers_pipelines.data.catalog import load_catalog
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.data.splits import build_training_data
from llmers_pipelines.data.training import TEST
from llmers_pipelines.models.ease import EASE
from llmers_pipelines.models.itemknn import ItemKNN
from llmers_pipelines.models.popularity import Popularity
from llmers_pipelines.models.ranking_net import ndcg, rank_targets
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.train.loop import fit


@pytest.mark.data
def test_references_on_amazon_office(data_root):
    description = find_dataset("amazon_office")
    data = build_training_data(load_catalog(description, data_root), description, "sequential")
    assert (data.n_users, data.n_items, len(data.user)) == (4905, 2420, 53258)
    expected = {Popularity(): 0.000421, ItemKNN(): 0.0494, EASE(): 0.0446}
    for backbone, value in expected.items():
        model = fit(Train(backbone, Table("splits", task="sequential")), data, {}, seed=0)
        found = ndcg(rank_targets(model.model, data, TEST))
        assert found == pytest.approx(value, rel=0.01), backbone  # 0 is none of them
