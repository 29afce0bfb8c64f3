"""Batches of observed pairs: every pair once an epoch, negatives drawn anew."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.fit import Fit
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
