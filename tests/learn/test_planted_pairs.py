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
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit

PAIRS, ITEMS, LOG = Table("pairs"), Table("items"), Table("splits", task="sequential")


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


BACKBONE = LightGCN(
    dim=16, layers=1, negatives=32, fit=Fit(lr=3e-3, batch=64, epochs=25, min_epochs=25)
)


@pytest.fixture(scope="module")
def logs():
    """Logs with two or three training rows a user, and what the backbone alone hits on them."""
    made = [
        planted_rings(n_users=150, n_items=60, clusters=3, seed=s, follow=0.3, length=(4, 5))
        for s in (0, 1)
    ]
    return [(p, hits(Train(BACKBONE, LOG), p, {}, s)) for s, p in enumerate(made)]


def test_right_pairs_help_and_drawn_or_permuted_ones_do_not(logs):
    train = Train(BACKBONE, LOG, aux=(AugmentedPairs(PAIRS, share=1.0),))
    gained: dict[str, list[float]] = {}
    for seed, (planted, base) in enumerate(logs):
        inputs = {PAIRS: oracle(planted, np.random.default_rng(seed))}
        arms = {"right": inputs} | {
            arm: control_inputs(inputs, arm, seed=seed, log=planted.data)
            for arm in ("random_pairs", "popular_pairs", "permuted")
        }
        for arm, given in arms.items():
            gained.setdefault(arm, []).append(hits(train, planted, given, seed) - base)
    mean = {arm: np.mean(values) for arm, values in gained.items()}
    assert mean["right"] > 0.04, mean
    assert mean["right"] > max(v for arm, v in mean.items() if arm != "right") + 0.05, mean


def test_texts_of_few_rows_tell_the_taste_and_permuted_ones_do_not(logs):
    train = Train(BACKBONE, LOG, fuse=(SideFeatures(ITEMS, c_text=0.5),))
    text, permuted = [], []
    for seed, (planted, base) in enumerate(logs):
        inputs = {ITEMS: planted.items}
        text.append(hits(train, planted, inputs, seed) - base)
        wrong = control_inputs(inputs, "permuted", seed=seed)
        permuted.append(hits(train, planted, wrong, seed) - base)
    assert np.mean(text) > 0.08
    assert np.mean(text) > np.mean(permuted) + 0.05
