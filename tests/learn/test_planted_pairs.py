"""Where an oracle names what users like: augmented pairs must carry it, drawn ones must not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import TEST, TRAIN
from llmers_pipelines.enhance.augmented_pairs import AugmentedPairs
from llmers_pipelines.enhance.side_features import SideFeatures
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import rank_metric, rank_targets
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.planted import planted_rings, planted_twins
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit

PAIRS, ITEMS, LOG = Table("pairs"), Table("items"), Table("splits", task="sequential")
FIT = Fit(lr=3e-3, batch=64, epochs=40, min_epochs=40, patience=40)


def oracle(planted, rng, picks=3):
    """Of each user, items of the own group as liked and of others as disliked; none from test."""
    data = planted.data
    liked, disliked = [], []
    for user in range(1, data.n_users + 1):
        rows = slice(data.user_start[user], data.user_start[user + 1])
        own = planted.group[data.item[rows][data.split[rows] == TRAIN][0]]
        free = np.setdiff1d(np.arange(1, data.n_items + 1), data.item[rows])
        same, other = free[planted.group[free] == own], free[planted.group[free] != own]
        liked.append([data.items.ids[i - 1] for i in rng.choice(same, picks, replace=False)])
        disliked.append([data.items.ids[i - 1] for i in rng.choice(other, picks, replace=False)])
    return pa.table({"user_id": data.users.ids, "liked": liked, "disliked": disliked})


def hits(train, planted, inputs, seed):
    ranks = rank_targets(fit(train, planted.data, inputs, seed=seed).model, planted.data, TEST)
    return rank_metric("hr@10", ranks)


@pytest.mark.parametrize("loss", ["bpr", "ssm"])
def test_right_pairs_help_and_drawn_or_permuted_ones_do_not(loss):
    backbone = LightGCN(dim=16, layers=1, loss=loss, negatives=32, fit=FIT)
    gained, lost = [], []
    for seed in (0, 1):
        planted = planted_rings(n_users=80, n_items=60, clusters=3, seed=seed, follow=0.3,
                                length=(4, 5))  # fmt: skip
        inputs = {PAIRS: oracle(planted, np.random.default_rng(seed))}
        train = Train(backbone, LOG, aux=(AugmentedPairs(PAIRS, share=1.0),))
        base = hits(Train(backbone, LOG), planted, {}, seed)
        gained.append(hits(train, planted, inputs, seed) - base)
        for arm in ("random_pairs", "popular_pairs", "permuted"):
            control = control_inputs(inputs, arm, seed=seed, log=planted.data)
            lost.append(hits(train, planted, control, seed) - base)
    assert np.mean(gained) > 0.1
    assert np.mean(gained) > max(lost) + 0.05


def test_side_features_find_rare_items_by_their_texts_and_permuted_ones_do_not():
    backbone = LightGCN(dim=16, layers=1, fit=FIT)
    train = Train(backbone, LOG, fuse=(SideFeatures(ITEMS, c_text=0.5),))

    def tail_hits(train, planted, inputs):
        ranks = rank_targets(fit(train, planted.data, inputs, seed=0).model, planted.data, TEST)
        return (ranks.rank[planted.tail[ranks.item]] <= 10).mean()

    planted = planted_twins(seed=0)
    inputs = {ITEMS: planted.items}
    text = tail_hits(train, planted, inputs)
    assert text > tail_hits(Train(backbone, LOG), planted, {}) + 0.05
    assert text > tail_hits(train, planted, control_inputs(inputs, "permuted", seed=0)) + 0.05
