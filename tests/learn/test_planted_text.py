"""On twins, where a rare item has the text of a frequent one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import TEST
from llmers_pipelines.enhance.dual_view import DualView
from llmers_pipelines.enhance.from_vectors import FromVectors
from llmers_pipelines.enhance.mean_of_history import MeanOfHistory
from llmers_pipelines.enhance.neighbour_distillation import NeighbourDistillation
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import rank_metric, rank_targets
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.planted import planted_rings, planted_twins
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit

ITEMS, SIMILAR, LOG = Table("items"), Table("users"), Table("splits", task="sequential")
FIT = Fit(lr=3e-3, batch=32, epochs=30, min_epochs=10, patience=5)
BACKBONE = SASRec(dim=16, inner=32, dropout=0.2, fit=FIT)


def tail_hits(planted, parts, inputs, seed):
    """HR@10 of the test targets that are rare twins."""
    train = Train(BACKBONE, LOG, init=parts[0], fuse=parts[1])
    ranks = rank_targets(fit(train, planted.data, inputs, seed=seed).model, planted.data, TEST)
    return (ranks.rank[planted.tail[ranks.item]] <= 10).mean()


@pytest.fixture(scope="module")
def base():
    return [tail_hits(planted_twins(seed=s), ((), ()), {}, s) for s in (0, 1)]


@pytest.mark.parametrize("kind", ["init", "dual view"])
def test_text_helps_the_tail_and_its_controls_do_not(kind, base):
    parts = {
        "init": ((FromVectors("item", ITEMS),), ()),
        "dual view": ((FromVectors("item", ITEMS),), (DualView(ITEMS, dropout=0.2),)),
    }[kind]
    for seed in (0, 1):
        planted = planted_twins(seed=seed)
        inputs = {ITEMS: planted.items}
        text = tail_hits(planted, parts, inputs, seed)
        assert text > base[seed] + 0.08
        for arm in ("permuted", "gaussian"):
            control = control_inputs(inputs, arm, seed=seed)
            assert text > tail_hits(planted, parts, control, seed) + 0.08


def rings_hits(train, planted, inputs):
    ranks = rank_targets(fit(train, planted.data, inputs, seed=0).model, planted.data, TEST)
    return rank_metric("hr@10", ranks)


def test_users_that_start_as_the_mean_of_their_items_know_more_before_training():
    planted = planted_rings(n_users=200, n_items=60, follow=0.5, seed=1)
    backbone = LightGCN(dim=16, layers=0, fit=Fit(lr=1e-6, batch=64, epochs=1))
    items, mean = FromVectors("item", ITEMS), MeanOfHistory()
    inputs = {ITEMS: planted.items}
    cold = rings_hits(Train(backbone, LOG, init=(items,)), planted, inputs)
    warm = rings_hits(Train(backbone, LOG, init=(items, mean)), planted, inputs)
    assert warm > cold + 0.1


def test_distillation_from_users_of_the_same_cluster_beats_random_ones():
    planted = planted_rings(n_users=120, n_items=60, follow=0.3, length=(4, 6), seed=2)
    cluster = planted.group[planted.data.item[planted.data.user_start[1:-1]]]  # of each user
    rows = []
    for user, own in enumerate(cluster, start=1):
        same = [v for v in np.flatnonzero(cluster == own) + 1 if v != user]
        picked = np.random.default_rng(user).choice(same, 10, replace=False)
        rows += [(f"u{user}", r, f"u{v}") for r, v in enumerate(picked, start=1)]
    user, rank, other = zip(*rows, strict=True)
    similar = pa.table({"user_id": user, "rank": rank, "other_id": other})
    aux = (NeighbourDistillation(SIMILAR, weight=1.0),)
    train = Train(BACKBONE, LOG, aux=aux)
    inputs = {SIMILAR: similar}
    right = rings_hits(train, planted, inputs)
    wrong = rings_hits(train, planted, control_inputs(inputs, "gaussian", seed=0))
    assert right > wrong + 0.05
