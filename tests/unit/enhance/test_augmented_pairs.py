from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.enhance.augmented_pairs import AugmentedPairs
from llmers_pipelines.enhance.augmented_pairs_net import pairs_by_user
from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.losses_net import bpr, kept_places, masked_restoration, pruned
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.seams import check_seams
from llmers_pipelines.plan import PlanError, Table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import load_loader

pytestmark = pytest.mark.proof("llmrec", "equations")

PAIRS = Table("pairs")
FIT = Fit(lr=3e-3, batch=32, epochs=2)
BACKBONES = [
    LightGCN(dim=8, layers=2, fit=FIT), LightGCN(dim=8, layers=2, loss="bpr", fit=FIT),
    BPRMF(dim=8, fit=FIT),
]  # fmt: skip
backbones = pytest.mark.parametrize("backbone", BACKBONES, ids=["lightgcn", "bpr", "bprmf"])


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=40, n_items=20).data


def table(data, seed=0):
    rng = np.random.default_rng(seed)
    liked, disliked = [], []
    for user in range(1, data.n_users + 1):
        rows = slice(data.user_start[user], data.user_start[user + 1])
        free = np.setdiff1d(np.arange(1, data.n_items + 1), data.item[rows])
        two = [data.items.ids[i - 1] for i in rng.choice(free, 2, replace=False)]
        liked.append(two[:1]), disliked.append(two[1:])
    return pa.table({"user_id": data.users.ids, "liked": liked, "disliked": disliked})


def attached(backbone, data, rows=None, **settings):
    model = backbone.build(data, 0)
    part = AugmentedPairs(PAIRS, **settings)
    attach_parts(model, (part,), data, {PAIRS: table(data) if rows is None else rows}, 0)
    return model


def batch_of(backbone, data):
    return next(load_loader("pair")(data, backbone, 0).epoch(1))


def test_golden_case_of_the_card():
    """Margins 2, .5, -1, 0; half is dropped."""
    margins = torch.tensor([2.0, 0.5, -1.0, 0.0])
    losses = torch.nn.functional.softplus(-margins)
    np.testing.assert_allclose(losses, [0.1269, 0.4741, 1.3133, 0.6931], atol=5e-5)
    assert float(pruned(losses, 0.5, "hardest").mean()) == pytest.approx(1.0032, abs=5e-5)
    assert float(pruned(losses, 0.5, "easiest").mean()) == pytest.approx(0.3005, abs=5e-5)
    assert pruned(losses, 0.0) is losses


def test_how_many_losses_stay():
    losses = torch.arange(10.0)
    stay = [len(kept_places(losses, drop)) for drop in (0.0, 0.09, 0.1, 0.71, 0.99)]
    assert stay == [10, 10, 9, 3, 1]
    assert sorted(kept_places(losses, 0.7, "hardest").tolist()) == [7, 8, 9]
    assert len(kept_places(losses[:0], 0.5)) == 0
    with pytest.raises(ValueError, match="easiest"):
        kept_places(losses, 0.5, "largest")


def test_golden_case_of_masked_restoration():
    """cos 1, 0 and -1 give distances 0, 1, 2; squared and averaged 5 / 3."""
    original = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    restored = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert float(masked_restoration(restored, original, 2)) == pytest.approx(5 / 3)
    assert float(masked_restoration(restored, original, 1)) == pytest.approx(1.0)
    assert float(masked_restoration(restored[:0], original[:0], 2)) == 0


@backbones
def test_with_share_and_drop_zero_or_weight_zero_training_is_that_of_the_backbone(backbone, data):
    def weights(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for batch in itertools.islice(load_loader("pair")(data, backbone, 0).epoch(1), 20):
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
        return model.item_table.weight.detach()

    bare = weights(backbone.build(data, 0))
    assert torch.equal(bare, weights(attached(backbone, data, share=0.0)))
    assert torch.equal(bare, weights(attached(backbone, data, weight=0.0)))
    assert not torch.allclose(bare, weights(attached(backbone, data, share=0.5)), atol=1e-4)
    assert not torch.allclose(bare, weights(attached(backbone, data, share=0.0, drop=0.3)))


@backbones
def test_the_losses_of_pairs_are_those_whose_mean_is_the_loss(backbone, data):
    model, batch = backbone.build(data, 0), batch_of(backbone, data)
    states = model.user_state(batch)
    rows = model.pair_losses(batch, states)
    assert rows.shape == (len(batch.user),)
    torch.testing.assert_close(rows.mean(), model._pair_loss(batch, states))
    scores = model.score(states)
    expected = scores.gather(1, batch.positive[:, None]) - scores.gather(1, batch.user[:, None] % 5)
    found = model.margins(states, batch.positive, batch.user % 5)
    torch.testing.assert_close(found, expected[:, 0])


def parts(model, batch):
    """The losses of the batch and of the pairs that its hook draws next, by hand."""
    (hook,) = model.hooks
    before = hook.stream._cpu.clone()
    with hook.stream():
        place, liked, disliked = hook.drawn(batch.user)
    hook.stream._cpu = before
    states = model.user_state(batch)
    scores = model.score(states)
    added = [-torch.nn.functional.logsigmoid(scores[p, i] - scores[p, j])
             for p, i, j in zip(place, liked, disliked, strict=True)]  # fmt: skip
    return model.pair_losses(batch, states), torch.stack(added)


@backbones
def test_added_pairs_weigh_like_observed_ones(backbone, data):
    model, batch = attached(backbone, data, share=0.5, weight=0.25), batch_of(backbone, data)
    rows, added = parts(model, batch)
    assert len(added) == len(batch.user) // 2
    expected = (rows.sum() + 0.25 * added.sum()) / (len(rows) + len(added))
    found = model.loss(batch) - model._penalty(batch)
    torch.testing.assert_close(found, expected)


def test_one_objective_is_pruned_as_one_list_two_apart(data):
    one = attached(BACKBONES[1], data, share=0.5, drop=0.4)
    batch = batch_of(BACKBONES[1], data)
    rows, added = parts(one, batch)
    every = torch.cat([rows, added]).sort().values[: len(rows) + len(added) - 19]
    assert int(0.4 * (len(rows) + len(added))) == 19
    torch.testing.assert_close(one.loss(batch) - one._penalty(batch), every.mean())

    two = attached(BACKBONES[0], data, share=0.5, drop=0.4, weight=2.0)
    batch = batch_of(BACKBONES[0], data)
    rows, added = (x.sort().values for x in parts(two, batch))
    rows, added = rows[: len(rows) - 12], added[: len(added) - 6]
    expected = (rows.sum() + 2 * added.sum()) / (len(rows) + len(added))
    torch.testing.assert_close(two.loss(batch) - two._penalty(batch), expected)


def test_pruning_weighs_what_stays(data):
    model = attached(BACKBONES[1], data, share=1.0, drop=0.5, weight=3.0, keep="hardest")
    batch = batch_of(BACKBONES[1], data)
    rows, added = parts(model, batch)
    every = torch.cat([rows, added])
    weight = torch.cat([torch.ones(len(rows)), 3 * torch.ones(len(added))])
    stay = every.argsort(descending=True)[: len(every) - len(every) // 2]
    expected = (weight * every)[stay].mean()
    torch.testing.assert_close(model.loss(batch) - model._penalty(batch), expected)


def test_pairs_are_drawn_from_the_users_of_the_batch(data):
    rows = table(data)
    some = [v if n % 3 else None for n, v in enumerate(rows["liked"].to_pylist())]
    other = [v if n % 3 else None for n, v in enumerate(rows["disliked"].to_pylist())]
    rows = pa.table({"user_id": rows["user_id"], "liked": some, "disliked": other})
    (hook,) = attached(BACKBONES[0], data, rows, share=0.5).hooks
    users = torch.arange(1, 33)
    seen = set()
    for _ in range(30):
        place, liked, disliked = hook.drawn(users)
        assert len(place) <= 16 and len(set(place.tolist())) == len(place)
        for p, i, j in zip(place.tolist(), liked.tolist(), disliked.tolist(), strict=True):
            assert (data.items.ids[i - 1], data.items.ids[j - 1]) == (some[p][0], other[p][0])
        seen |= set(place.tolist())
    assert seen == {n for n in range(32) if n % 3}


def test_pairs_that_cannot_be_used_are_left_out(data):
    met = data.items.ids[data.item[(data.user == 1) & (data.split == TRAIN)][0] - 1]
    free = [i for n, i in enumerate(data.items.ids, 1) if n not in data.item[data.user == 1]]
    a, b = free[:2]
    rows = pa.table({
        "user_id": ["u1", "nobody", "u2", "u3"],
        "liked": [[a, met, a, "nothing"], [a], None, []],
        "disliked": [[b, b, a, b], [b], None, []],
    })  # fmt: skip
    start, liked, disliked = pairs_by_user(rows, data, "pairs")
    assert [data.items.ids[i - 1] for i in (*liked, *disliked)] == [a, b]
    assert (start[1], start[2], start[-1]) == (0, 1, 1)


def test_what_does_not_fit_is_named(data):
    rows = table(data)
    with pytest.raises(ValueError, match="missing \\['disliked'\\]"):
        pairs_by_user(rows.drop_columns("disliked"), data, "pairs")
    bad = pa.table({"user_id": ["u1"], "liked": [["i1", "i2"]], "disliked": [["i3"]]})
    with pytest.raises(ValueError, match="user_id 'u1': 2 liked and 1 disliked"):
        pairs_by_user(bad, data, "pairs")
    none = pa.table({"user_id": ["x"], "liked": [["i1"]], "disliked": [["i3"]]})
    with pytest.raises(ValueError, match="none of its 1 pairs can be used"):
        pairs_by_user(none, data, "pairs")
    for settings in ({"share": 2.0}, {"drop": 1.0}, {"weight": -1.0}, {"keep": "all"}):
        with pytest.raises(PlanError):
            AugmentedPairs(PAIRS, **settings)
    with pytest.raises(PlanError, match="pair_loss"):
        check_seams(SASRec(), (AugmentedPairs(PAIRS),), "a recipe")


def test_a_model_without_gradient_through_the_choice(data):
    losses = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
    pruned(losses, 0.4).sum().backward()
    assert losses.grad.tolist() == [1, 0, 1]


def test_bpr_of_one_negative_is_the_pair_loss():
    model = dataclasses.replace(BACKBONES[1]).build(planted_rings(n_users=4, n_items=8).data, 0)
    batch = PairBatch(torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([[5], [6]]))
    states = model.user_state(batch)
    scores = model.score(states)
    expected = bpr(
        scores.gather(1, batch.positive[:, None])[:, 0], scores.gather(1, batch.negative)
    )
    torch.testing.assert_close(model.pair_losses(batch, states).mean(), expected)
