"""Batches of observed pairs: every pair once an epoch, negatives drawn anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.unseen import Unseen
from llmers_pipelines.node import canonical
from llmers_pipelines.plan import PlanError
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.pair_loader import Loader

DATA = planted_rings(n_users=30, n_items=60).data
FIT = Fit(batch=16)


def by_pair(loader, number):
    """{(user, positive): its negatives} of one epoch."""
    found = {}
    for batch in loader.epoch(number):
        negative = batch.negative.expand(len(batch.user), -1)
        for u, i, n in zip(batch.user.tolist(), batch.positive.tolist(), negative, strict=True):
            assert (u, i) not in found
            found[u, i] = tuple(n.tolist())
    return found


@pytest.mark.parametrize("loss", ["bpr", "ssm"])
def test_each_epoch_draws_its_own_negatives_for_the_same_pairs(loss):
    loader = Loader(DATA, BPRMF(loss=loss, negatives=8, fit=FIT), 0)
    first, second = by_pair(loader, 1), by_pair(loader, 2)
    assert first.keys() == second.keys() and len(first) > 100
    alike = sum(first[pair] == second[pair] for pair in first)
    assert alike < 0.2 * len(first)
    again = Loader(DATA, BPRMF(loss=loss, negatives=8, fit=FIT), 0)
    assert by_pair(again, 2) == second
    other = Loader(DATA, dataclasses.replace(BPRMF(loss=loss, negatives=8), fit=FIT), 1)
    assert by_pair(other, 2) != second


def test_no_negative_of_a_pair_was_met_by_its_user():
    seen = {(u, i) for u, i in zip(DATA.user.tolist(), DATA.item.tolist(), strict=True)}
    trained = Loader(DATA, BPRMF(loss="bpr", fit=FIT), 0)
    drawn = [(u, n) for (u, _), (n,) in by_pair(trained, 1).items()]
    observed = {(int(u), int(i)) for b in trained.epoch(1)
                for u, i in zip(b.user, b.positive, strict=True)}  # fmt: skip
    assert observed <= seen
    assert not observed & set(drawn)
    assert torch.tensor([n for _, n in drawn]).unique().numel() > 20


def test_popular_negatives_are_as_likely_as_their_share_of_what_the_user_has_not_met():
    # item: users with a pair of it; 1: {1, 2, 3}, 2: {2}, 3: {1, 3}, 4: {3}, 5: nobody
    pairs = [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1), (3, 3), (3, 4)]
    user, item = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    draw = Unseen(user, item, 5, popular=True)
    rng = np.random.default_rng(0)
    share = {1: [0, 0, 1 / 2, 0, 1 / 2, 0], 2: [0, 0, 0, 2 / 3, 1 / 3, 0], 3: [0, 0, 1, 0, 0, 0]}
    for who, told in share.items():
        got = np.bincount(draw(np.full(30_000, who), rng), minlength=6) / 30_000
        np.testing.assert_allclose(got, told, atol=0.015)
    even = Unseen(user, item, 5)
    got = np.bincount(even(np.full(30_000, 1), rng), minlength=6) / 30_000
    np.testing.assert_allclose(got, [0, 0, 1 / 3, 0, 1 / 3, 1 / 3], atol=0.015)


def test_popular_negatives_end_for_a_user_of_every_item_that_has_a_pair():
    user, item = np.array([1, 1, 2]), np.array([1, 2, 1])
    with pytest.raises(ValueError, match=r"all 2 items with a row in .*draw to 'uniform'"):
        Unseen(user, item, 9, popular=True)
    drawn = Unseen(user, item, 9)(np.full(200, 1), np.random.default_rng(0))
    assert set(drawn.tolist()) == set(range(3, 10))


def test_draw_is_a_setting_of_losses_with_one_negative():
    even, popular = (Loader(DATA, BPRMF(loss="bpr", draw=draw, fit=FIT), 0)
                     for draw in ("uniform", "popularity"))  # fmt: skip
    counts = DATA.train_counts
    mean = [np.mean([counts[n] for e in (1, 2, 3) for (n,) in by_pair(loader, e).values()])
            for loader in (even, popular)]  # fmt: skip
    assert mean[1] > mean[0]
    with pytest.raises(PlanError, match="use one of uniform, popularity"):
        BPRMF(loss="bpr", draw="popular")
    with pytest.raises(PlanError, match="set loss to 'bpr' or 'bce'"):
        BPRMF(draw="popularity")


def test_popular_negatives_of_a_user_who_met_nearly_all_are_drawn_from_what_is_left():
    # user 1 has items 1..8, which 3,000 others have as well; 9 has two pairs, 10 has one
    user = np.append(np.repeat(np.arange(1, 3002), 8), [2, 3, 4])
    item = np.append(np.tile(np.arange(1, 9), 3001), [9, 9, 10])
    rounds = []

    class Counted(Unseen):
        def _draw(self, count, rng):
            rounds.append(count)
            return super()._draw(count, rng)

    got = Counted(user, item, 12, popular=True)(np.full(9_000, 1), np.random.default_rng(0))
    assert len(rounds) < 60
    share = np.bincount(got, minlength=13) / 9_000
    np.testing.assert_allclose(share[9:], [2 / 3, 1 / 3, 0, 0], atol=0.02)


def test_a_repeated_row_does_not_make_an_item_more_popular():
    # 2 is met by one user twenty times, 3 by two users once
    user = np.array([1] * 3 + [2] * 20 + [3, 4], np.int64)
    item = np.array([1] * 3 + [2] * 20 + [3, 3], np.int64)
    data = dataclasses.replace(
        DATA, user=user, item=item, time=np.arange(len(user)), split=np.zeros(len(user), np.int8),
        rating=None,
    )  # fmt: skip
    loader = Loader(data, BPRMF(loss="bce", draw="popularity", fit=FIT), 0)
    drawn = [n for e in range(3_000) for (u, _), (n,) in by_pair(loader, e).items() if u == 1]
    assert abs(drawn.count(2) / len(drawn) - 1 / 3) < 0.04


def test_the_draw_before_is_the_default_and_no_part_of_the_identity():
    default, popular = (
        str(canonical(BPRMF(loss="bpr", draw=draw), inputs=True))
        for draw in ("uniform", "popularity")
    )
    assert "draw" not in default and "popularity" in popular
