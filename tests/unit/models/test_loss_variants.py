"""Each kind of loss on each ranking backbone: where it starts, and that training lowers it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from ranking_cases import (
    BACKBONES,
    ORDERED,
    at_zero,
    batches_of,
    build,
    log_of,
    scores_of,
    steps,
)

from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.models.histories import rows_of
from llmers_pipelines.models.losses_net import KINDS
from llmers_pipelines.models.served import Served
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import load_loader

NAMES = ("sasrec", "gru4rec", "bert4rec", "caser", "srgnn", "hstu", "comirec", "two_tower",
         "bprmf-ssm", "lightgcn-ssm", "sgl", "cke", "cfkg")  # fmt: skip
CASES = [
    pytest.param(name, kind, id=f"{name.partition('-')[0]}-{kind}")
    for name in NAMES
    for kind in (("full", "in_batch") if name == "two_tower" else KINDS)
]
variants = pytest.mark.parametrize(("name", "kind"), CASES)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=40, n_items=30, seed=3).data


def variant(name, kind):
    given = {"dropout": 0.0} if name in ORDERED else {"l2": 0.0}
    return dataclasses.replace(BACKBONES[name], loss=kind, **given)


@variants
def test_a_loss_starts_as_that_of_a_guess(name, kind, rings):
    backbone = at_zero(variant(name, kind))
    alike = dataclasses.replace(backbone.fit, weigh="batch")  # the loss, not what it counts
    backbone = dataclasses.replace(backbone, fit=alike)
    data = log_of(backbone, rings)
    loader, model = load_loader(backbone.loader)(data, backbone, 0), build(backbone, data)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        losses = [float(model.loss(b)) for n in range(1, 9) for b in loader.epoch(n)]
    n = data.n_items
    expected, near = math.log(n), 0.01
    if kind in ("bpr", "bce"):
        expected = math.log(2) * (1 + (kind == "bce"))
    elif kind == "ssm" and name not in ORDERED:  # uniform draws; the positive among them is out
        expected = math.log(1 + backbone.negatives * (n - 1) / n)
    elif kind in ("ssm", "in_batch"):  # weighted draws stand for the catalog
        near = 0.05
    assert np.mean(losses) == pytest.approx(expected, rel=near)


@variants
def test_every_loss_teaches(name, kind, rings):
    """Sequences: what came next is near the top. Pairs: a user's items come before the others."""
    backbone = variant(name, kind)
    data = log_of(backbone, rings)
    model = build(backbone, data)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        n_steps, lr = {"bert4rec": (400, 0.003)}.get(name, (120, 0.01 if name in ORDERED else 0.05))
        steps(model, batches_of(backbone, data), n_steps, lr)
    rows = rows_of(data, (TRAIN,))
    if name in ORDERED:
        users = np.arange(1, data.n_users + 1)
        lists = rows.lists(users)
        scores = Served(model.eval()).scores(users, [h[:-1] for h in lists])
        next_one = scores[users - 1, [h[-1] for h in lists]]
        below = (scores[:, 1:] < next_one[:, None]).mean(1)
    else:
        below = []
        for user, scores in enumerate(scores_of(model, data), start=1):
            own = np.isin(np.arange(data.n_items + 1), rows.of(user))
            below.append((scores[own][:, None] > scores[1:][~own[1:]]).mean())
    assert np.mean(below) > 0.8, np.mean(below)  # 0.5 is chance
