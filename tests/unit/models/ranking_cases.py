"""The neural ranking backbones, small, and what their tests build them from."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import torch

from llmers_pipelines.api import knowledge, knowledge_links
from llmers_pipelines.data.training import VALID
from llmers_pipelines.data.words import word_codes
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.caser import Caser
from llmers_pipelines.models.cfkg import CFKG
from llmers_pipelines.models.cke import CKE
from llmers_pipelines.models.comirec import ComiRec
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.histories import history_before
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import Served
from llmers_pipelines.models.sgl import SGL
from llmers_pipelines.models.srgnn import SRGNN
from llmers_pipelines.models.two_tower import TwoTower
from llmers_pipelines.plan import Table
from llmers_pipelines.train.loop import load_loader

LOG = Table("splits", task="sequential")
FIT = Fit(lr=3e-3, batch=16, epochs=2, min_epochs=1, patience=2)
BACKBONES = {
    "sasrec": SASRec(dim=16, inner=32, dropout=0.2, max_len=12, fit=FIT),
    "sasrec-right": SASRec(
        dim=16, inner=32, heads=2, layers=2, dropout=0.2, max_len=12, positions="right", fit=FIT
    ),
    "gru4rec": GRU4Rec(dim=16, hidden=24, dropout=0.2, max_len=12, fit=FIT),
    "bert4rec": BERT4Rec(dim=16, inner=32, dropout=0.2, max_len=12, fit=FIT),
    "caser": Caser(dim=16, targets=3, horizontal=4, vertical=2, dropout=0.2, max_len=12, fit=FIT),
    "caser-shared": Caser(dim=16, personal=False, targets=1, dropout=0.2, max_len=12, fit=FIT),
    "srgnn": SRGNN(dim=16, dropout=0.2, max_len=12, fit=FIT),
    "hstu": HSTU(dim=16, inner=16, attention=16, heads=2, max_len=12, fit=FIT),
    "comirec": ComiRec(dim=16, inner=32, interests=2, dropout=0.2, max_len=12, fit=FIT),
    "lightgcn-ssm": LightGCN(dim=16, negatives=16, layers=2, fit=FIT),
    "lightgcn-bpr": LightGCN(dim=16, loss="bpr", layers=2, fit=FIT),
    "bprmf-ssm": BPRMF(dim=16, negatives=16, fit=FIT),
    "bprmf-bpr": BPRMF(dim=16, loss="bpr", fit=FIT),
    "bprmf-bce": BPRMF(dim=16, loss="bce", fit=FIT),
    "sgl": SGL(dim=16, negatives=16, layers=2, fit=FIT),
    "sgl-walk": SGL(dim=16, loss="bpr", layers=2, augment="walk", fit=FIT),
    "lightgcn-ce": LightGCN(dim=16, loss="ce", layers=2, fit=FIT),
    "lightgcn-in_batch": LightGCN(dim=16, loss="in_batch", layers=2, fit=FIT),
    "two_tower": TwoTower(
        word_dim=16, dim=16, mlp=(24,), item_id=True, dropout=0.2, max_len=12, fit=FIT
    ),
    "cke": CKE(knowledge, knowledge_links, dim=16, negatives=16, triples=32, fit=FIT),
    "cfkg": CFKG(knowledge, knowledge_links, dim=16, loss="bce", triples=32, fit=FIT),
}
ORDERED = {name for name, backbone in BACKBONES.items() if backbone.loader != "pair"}
CAUSAL = [name for name, backbone in BACKBONES.items() if backbone.loader == "sequence"]


def log_of(backbone, data):
    """``data`` as the backbone wants it: the two-tower reads a title that goes with the item."""
    if not isinstance(backbone, TwoTower):
        return data
    titles = [f"kind{int(i[1:]) % 3} {i}" for i in data.items.ids]
    words = word_codes(titles, np.ones(data.n_items, bool))
    return dataclasses.replace(data, task="retrieval", item_texts={"title": words})


def facts_of(data):
    """Triples that give each item one of three kinds, and the links to their items."""
    ids = data.items.ids
    kg = {"head_id": [f"e{i}" for i in ids], "relation": ["of"] * len(ids),
          "tail_id": [f"kind{int(i[1:]) % 3}" for i in ids]}  # fmt: skip
    link = {"item_id": list(ids), "entity_id": [f"e{i}" for i in ids]}
    return {knowledge: pa.table(kg), knowledge_links: pa.table(link)}


def build(backbone, data, seed=0):
    """The untrained network with all that it reads beside the log."""
    net = backbone.build(data, seed)
    if hasattr(net, "read"):
        net.read(data, facts_of(data), seed)
    return net


def lively(net, std=0.3):
    """``net`` in evaluation with weights that start at zero moved, so that mistakes show."""
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(std * torch.randn(p.shape, generator=draws))
        for table in ("item_table", "user_table", "entity_table"):
            if getattr(net, table, None) is not None:
                getattr(net, table).weight[0] = 0
    return net.eval()


def at_zero(backbone):
    """Settings under which the first scores are all but equal."""
    small = {"table_std": 1e-3, "l2": 0.0, "contrast": 0.0, "temperature": 100.0, "weight": 0.0}
    return dataclasses.replace(backbone, **{k: v for k, v in small.items() if hasattr(backbone, k)})


def batches_of(backbone, data, seed=0):
    """Batches without end, epoch after epoch."""
    loader = load_loader(backbone.loader)(data, backbone, seed)
    return itertools.chain.from_iterable(loader.epoch(n) for n in itertools.count(1))


def steps(model, batches, count, lr=0.01):
    """Train ``count`` steps and return their losses."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for batch in itertools.islice(batches, count):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def scores_of(model, data, split=VALID):
    users = np.arange(1, data.n_users + 1)
    return Served(model.eval()).scores(users, history_before(data, split).lists(users))
