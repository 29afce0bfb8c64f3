"""Items as adapted frozen vectors, and their alignment with a trained recommender."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.collaborative_alignment import CollaborativeAlignment
from llmers_pipelines.enhance.collaborative_alignment_net import AlignmentHook
from llmers_pipelines.enhance.frozen_items import FrozenItems
from llmers_pipelines.enhance.frozen_items_net import FrozenItemsHook
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.caser import Caser
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("llmemb", "equations")
LOG, ITEMS, KNOWN = Table("splits", task="sequential"), Table("items"), Table("known")
FIT = Fit(lr=3e-3, batch=16, epochs=2, min_epochs=1)
BACKBONES = {
    "sasrec": SASRec(dim=8, inner=16, dropout=0.2, fit=FIT),
    "gru4rec": GRU4Rec(dim=8, hidden=12, dropout=0.2, fit=FIT),
    "bert4rec": BERT4Rec(dim=8, inner=16, dropout=0.2, fit=FIT),
    "caser": Caser(dim=8, dropout=0.2, fit=FIT),
}
every = pytest.mark.parametrize("name", BACKBONES)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=30, n_items=20, seed=2)


@pytest.fixture(scope="module")
def known(rings):
    """Vectors of a recommender that was trained before, of the backbones' width."""
    drawn = np.random.default_rng(3).normal(size=(20, 8)).astype(np.float32)
    mask = np.ones(20, bool)
    mask[4] = False
    return VectorTable("item", rings.data.items.ids, drawn, mask)


def test_two_linear_maps_and_nothing_between():
    hook = FrozenItemsHook(torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.0, 1.0]]), 1, 1, 1)
    with torch.no_grad():
        hook.first.weight.copy_(torch.tensor([[1.0, 3.0]]))
        hook.first.bias.copy_(torch.tensor([10.0]))
        hook.second.weight.copy_(torch.tensor([[2.0]]))
        hook.second.bias.copy_(torch.tensor([-1.0]))
    # W2 (W1 z + b1) + b2: -5 + 10 = 5 -> 9, and 3 + 10 = 13 -> 25; padding stays zero
    assert hook.item_input(None, None, torch.tensor([1, 2, 0])).tolist() == [[9], [25], [0]]
    assert hook.item_output(None, None, None).tolist() == [[0], [9], [25]]


def test_every_item_reads_its_own_vector(rings):
    """First, last and all others: no row is moved where a padding row is put before the table."""
    order = np.random.default_rng(0).permutation(20)
    ids = rings.items.ids
    shuffled = VectorTable("item", tuple(ids[i] for i in order), rings.items.vectors[order],
                           rings.items.mask[order])  # fmt: skip
    model = SASRec(dim=8).build(rings.data, 0)
    attach_parts(model, (FrozenItems(ITEMS),), rings.data, {ITEMS: shuffled}, 0)
    table = model.hooks[0].vectors.numpy()
    assert len(table) == 21 and not table[0].any()
    for row, item in enumerate(ids):
        position = int(rings.data.items.index([item])[0])
        np.testing.assert_array_equal(table[position], rings.items.vectors[row])


@every
def test_the_folded_tables_score_like_the_model(name, rings, known):
    from llmers_pipelines.models.ranking_net import scoring_batch

    model = BACKBONES[name].build(rings.data, 0)
    parts = (FrozenItems(ITEMS), CollaborativeAlignment(KNOWN))
    attach_parts(model, parts, rings.data, {ITEMS: rings.items, KNOWN: known}, 0)
    batch = scoring_batch(np.array([1, 2]), [np.array([3, 4, 5]), np.array([6])], model.max_len)
    model.eval()
    with torch.no_grad():
        before = model.score(model.user_state(batch))
        served = fold(model)
        after = served.score(served.user_state(batch))
    torch.testing.assert_close(after[:, 1:], before[:, 1:], rtol=1e-4, atol=1e-5)
    assert not list(served.hooks), "neither vectors nor adapter nor alignment is served"


@every
def test_alpha_0_is_the_adapter_over_frozen_vectors(name, rings, known):
    inputs = {ITEMS: rings.items, KNOWN: known}
    alone = Train(BACKBONES[name], LOG, fuse=(FrozenItems(ITEMS),))
    off = dataclasses.replace(alone, aux=(CollaborativeAlignment(KNOWN, weight=0.0),))
    on = dataclasses.replace(alone, aux=(CollaborativeAlignment(KNOWN, weight=5.0),))
    one, two, three = (fit(t, rings.data, inputs, seed=1).export()[1] for t in (alone, off, on))
    assert set(one) == set(two)
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert any(not np.array_equal(one[k], three[k]) for k in one)


def test_frozen_rows_stay_bit_for_bit(rings, known):
    vectors, aligned = rings.items.vectors.copy(), known.vectors.copy()
    train = Train(BACKBONES["sasrec"], LOG, fuse=(FrozenItems(ITEMS),),
                  aux=(CollaborativeAlignment(KNOWN),))  # fmt: skip
    fit(train, rings.data, {ITEMS: rings.items, KNOWN: known}, seed=0)
    np.testing.assert_array_equal(rings.items.vectors, vectors)
    np.testing.assert_array_equal(known.vectors, aligned)


class Tables:
    """A model of which the loss reads item vectors alone."""

    def __init__(self, rows):
        self.rows = torch.nn.Parameter(rows)

    def item_input(self, ids):
        return self.rows[ids]


def test_targets_are_aligned_once_each_and_by_hand():
    """Two targets, one of them twice, one without a vector: the soft-target loss of I against I."""
    vectors = torch.zeros(5, 2)
    vectors[1:3] = torch.eye(2)
    model = Tables(vectors.clone())
    hook = AlignmentHook(vectors, 0.5, 1.0, "soft_target", 256)
    batch = SequenceBatch(torch.tensor([1, 2]), torch.tensor([[1, 2], [0, 1]]),
                          torch.tensor([[2, 1], [0, 2]]))  # fmt: skip
    heavy = dataclasses.replace(batch, weight=torch.tensor(3.0))  # of how many they are
    loss = hook.extra_loss(model, heavy, None)
    assert float(loss.detach()) == pytest.approx(0.5 * 0.58220, abs=1e-5)
    loss.backward()
    assert model.rows.grad[0].tolist() == [0, 0] and model.rows.grad[4].tolist() == [0, 0]
    lone = dataclasses.replace(batch, targets=torch.tensor([[0, 1], [0, 4]]))
    assert hook.extra_loss(model, lone, None) == 0.0, "one item has nothing to be told from"


def test_of_many_targets_some_are_drawn():
    vectors = torch.randn(50, 3)
    vectors[0] = 0
    model, seen = Tables(vectors.clone()), []
    hook = AlignmentHook(vectors, 1.0, 1.0, "info_nce", 8)
    hook_ids = model.item_input
    model.item_input = lambda ids: (seen.append(ids), hook_ids(ids))[1]
    batch = SequenceBatch(torch.tensor([1]), torch.arange(49)[None], torch.arange(1, 50)[None])
    hook.extra_loss(model, batch, None)
    assert len(seen[0]) == 8 == len(set(seen[0].tolist()))


def test_what_cannot_be_aligned(rings):
    wide = VectorTable("item", rings.data.items.ids, np.ones((20, 5), np.float32),
                       np.ones(20, bool))  # fmt: skip
    train = Train(BACKBONES["sasrec"], LOG, aux=(CollaborativeAlignment(KNOWN),))
    with pytest.raises(ValueError, match="width 5, the backbone's is 8"):
        fit(train, rings.data, {KNOWN: wide}, seed=0)
    with pytest.raises(PlanError, match="at least 2"):
        CollaborativeAlignment(KNOWN, most=1)
    with pytest.raises(PlanError, match="source"):
        FrozenItems()
