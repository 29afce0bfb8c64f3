"""On rings, where the next item is known and popularity knows nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.api import knowledge, knowledge_links
from llmers_pipelines.data.training import TEST
from llmers_pipelines.data.words import word_codes
from llmers_pipelines.models.als import ALS
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.caser import Caser
from llmers_pipelines.models.cfkg import CFKG
from llmers_pipelines.models.cke import CKE
from llmers_pipelines.models.comirec import ComiRec
from llmers_pipelines.models.ease import EASE
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.itemknn import ItemKNN
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.popularity import Popularity
from llmers_pipelines.models.ranking_net import ndcg, rank_metric, rank_targets
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.sgl import SGL
from llmers_pipelines.models.srgnn import SRGNN
from llmers_pipelines.models.two_tower import TwoTower
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.planted import planted_rings, shuffled_items
from llmers_pipelines.train.loop import fit

LOG = Table("splits", task="sequential")
FIT = Fit(lr=3e-3, batch=32, epochs=30, min_epochs=10, patience=5)
BACKBONES = {
    "sasrec": SASRec(dim=32, inner=64, dropout=0.1, fit=FIT),
    "sasrec-right": SASRec(dim=32, inner=64, dropout=0.1, positions="right", fit=FIT),
    "gru4rec": GRU4Rec(dim=32, hidden=64, dropout=0.1, fit=FIT),
    "bert4rec": BERT4Rec(
        dim=32, inner=64, dropout=0.1,
        fit=Fit(lr=3e-3, batch=32, epochs=80, min_epochs=40, patience=15),
    ),
    "caser": Caser(dim=32, targets=1, dropout=0.1, fit=FIT),
    "srgnn": SRGNN(dim=32, dropout=0.1, fit=FIT),
    "hstu": HSTU(dim=32, inner=32, attention=32, fit=FIT),
    "comirec": ComiRec(dim=32, interests=2, inner=64, dropout=0.1, fit=FIT),
    "sasrec-in_batch": SASRec(dim=32, inner=64, dropout=0.1, loss="in_batch", fit=FIT),
    "sasrec-ssm": SASRec(dim=32, inner=64, dropout=0.1, loss="ssm", negatives=32, fit=FIT),
    "sasrec-bpr": SASRec(dim=32, inner=64, dropout=0.1, loss="bpr", fit=FIT),
    "als": ALS(dim=8),
    "sgl": SGL(dim=16, fit=FIT),
    "lightgcn-ssm": LightGCN(dim=16, fit=FIT),
    "lightgcn-bpr": LightGCN(dim=16, loss="bpr", fit=FIT),
    "bprmf-ssm": BPRMF(dim=16, fit=FIT),
    "bprmf-bpr": BPRMF(dim=16, loss="bpr", fit=FIT),
    "bprmf-ce": BPRMF(dim=16, loss="ce", fit=FIT),
    "cke": CKE(knowledge, knowledge_links, dim=16, triples=64, fit=FIT),
    "cfkg": CFKG(knowledge, knowledge_links, dim=16, triples=64, fit=FIT),
    "two_tower": TwoTower(word_dim=32, dim=32, mlp=(64,), item_id=True, dropout=0.1, fit=FIT),
}  # fmt: skip
COUNTED = {"itemknn": ItemKNN(), "ease": EASE(), "popularity": Popularity()}
every = pytest.mark.parametrize("name", BACKBONES)


def ranks_of(backbone, data):
    """Facts and titles say nothing but which item it is: what is learned comes from the log."""
    ids = data.items.ids
    if isinstance(backbone, TwoTower):
        titles = {"title": word_codes(ids, np.ones(len(ids), bool))}
        data = dataclasses.replace(data, task="retrieval", item_texts=titles)
    entities = [f"e{i}" for i in ids]
    facts = {
        knowledge: pa.table({"head_id": entities, "relation": ["is"] * len(ids), "tail_id": ids}),
        knowledge_links: pa.table({"item_id": ids, "entity_id": entities}),
    }
    return rank_targets(fit(Train(backbone, LOG), data, facts, seed=0).model, data, TEST)


@every
def test_beats_popularity_clearly(name):
    data = planted_rings().data
    hits = rank_metric("hr@10", ranks_of(BACKBONES[name], data))
    popular = rank_metric("hr@10", ranks_of(Popularity(), data))
    assert hits > 2 * popular
    if getattr(BACKBONES[name], "loader", "pair") != "pair":  # order says more than the cluster
        assert hits > 0.9


@pytest.mark.parametrize("name", [*BACKBONES, *COUNTED])
def test_equals_chance_on_shuffled_rows(name):
    data = shuffled_items(planted_rings(n_users=400, n_items=60).data)
    ranks = ranks_of({**BACKBONES, **COUNTED}[name], data)
    chance = sum(1 / math.log2(r + 1) for r in range(1, 11)) / ranks.candidates.mean()
    assert ndcg(ranks) == pytest.approx(chance, abs=4 * 0.2 / math.sqrt(len(ranks.user)))
