"""What is special to the text two-tower: words, prefixes, two losses."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.data.training import TEST, TRAIN
from llmers_pipelines.data.words import word_codes
from llmers_pipelines.evaluate.predict import rank_table
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.losses_net import ItemLoss
from llmers_pipelines.models.served import load_served
from llmers_pipelines.models.two_tower import TwoTower
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.testing.planted import planted_twins
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.sequence_loader import Loader

pytestmark = pytest.mark.proof("two_tower", "equations")

LOG = Table("splits", task="retrieval")
SMALL = TwoTower(word_dim=8, dim=6, mlp=(10,), fit=Fit(lr=1e-2, batch=16, epochs=3, min_epochs=1))


@pytest.fixture(scope="module")
def data():
    return contract_data("retrieval")


def scoring(*items):
    return SequenceBatch(torch.ones(len(items), dtype=torch.long), torch.tensor(items))


def test_an_item_is_the_mean_of_its_words_through_an_mlp(data):
    net = SMALL.build(data, 0).eval()
    item, means = 7, []
    for table, name in zip(net.tower.tables, sorted(data.item_texts), strict=True):
        codes = data.item_texts[name].codes[item]
        means.append(table[torch.from_numpy(codes[codes > 0]).long()].mean(0))
    first, _, second = net.tower.layers
    h = second(torch.relu(first(torch.cat(means))))
    torch.testing.assert_close(net.item_output()[item], F.normalize(h, dim=0))


def test_a_state_reads_the_mean_so_far_and_the_newest_item(data):
    net = SMALL.build(data, 0).eval()
    x = net.item_input(torch.tensor([4, 5, 9]))
    for t in range(3):
        mean = x[: t + 1].mean(0)
        u = net.user(torch.cat([mean, x[t]])) + mean
        expected = F.normalize(u, dim=0) / 0.1
        torch.testing.assert_close(net.hidden_states(scoring([4, 5, 9]))[0, t], expected)


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_padding_and_the_future_change_nothing(data, temperature):
    net = dataclasses.replace(SMALL, temperature=temperature).build(data, 0).eval()
    short = net.user_state(scoring([4, 5]))
    torch.testing.assert_close(net.user_state(scoring([0, 0, 4, 5])), short)
    both = net.hidden_states(scoring([4, 5, 9], [4, 5, 2]))
    torch.testing.assert_close(both[0, :2], both[1, :2])
    assert (both[0, 2] - both[1, 2]).abs().max() > 1e-3
    assert torch.isfinite(net.user_state(scoring([0]))).all()


def test_the_first_full_loss_is_that_of_a_guess(data):
    net = dataclasses.replace(SMALL, temperature=0.0, item_id=False).build(data, 0)
    b = dataclasses.replace(next(Loader(data, SMALL, 0).epoch(1)), weight=None)
    loss = float(net.loss(b).detach())
    assert abs(loss - math.log(data.n_items)) < 0.3


def test_in_batch_each_other_row_is_a_candidate_less_its_log_share(data):
    """Beside its own target, a row meets the target of every other row, repeated ones again."""
    net = dataclasses.replace(SMALL, loss="in_batch").build(data, 0).eval()
    b = next(Loader(data, SMALL, 0).epoch(1))
    real, out = b.targets > 0, net.item_output()
    states, targets = net.user_state(b)[real], b.targets[real].tolist()
    assert len(set(targets)) < len(targets) / 2  # most candidates are repeated
    counts = np.bincount(data.item[data.split == TRAIN], minlength=data.n_items + 1)
    share = np.maximum(counts, 1) / np.maximum(counts[1:], 1).sum()
    losses = []
    for state, own in zip(states, targets, strict=True):
        scores = [state @ out[own]]
        scores += [state @ out[i] - math.log((len(targets) - 1) * share[i])
                   for i in targets if i != own]  # fmt: skip
        losses.append(torch.logsumexp(torch.stack(scores), 0) - scores[0])
    torch.testing.assert_close(net.loss(b), b.counted(torch.stack(losses).mean()))


def test_the_in_batch_loss_never_asks_the_tower_for_the_catalog(data, monkeypatch):
    net = dataclasses.replace(SMALL, loss="in_batch").build(data, 0)
    read, inner = set(), net._vectors
    monkeypatch.setattr(net, "_vectors", lambda ids: (read.update(ids.tolist()), inner(ids))[1])
    net.loss(SequenceBatch(torch.ones(1).long(), torch.tensor([[4, 5]]), torch.tensor([[5, 6]])))
    assert read == {4, 5, 6}


def test_the_optimum_of_the_in_batch_loss_ranks_by_log_probability(data):
    """One state and many draws, the batch covering all items: scores are log P + a constant."""
    drawn = np.array([0, 800, 400, 200, 100, 50, 25])  # of items 1..6
    targets = torch.from_numpy(np.repeat(np.arange(7), drawn))[:, None]
    n = drawn.sum()
    how = dataclasses.replace(SMALL, loss="in_batch", item_id=True, temperature=0.0, dropout=0.0)
    net = how.build(data, 0)
    net.objective = ItemLoss("in_batch", counts=np.pad(drawn, (0, data.n_items - 6)))
    b = SequenceBatch(torch.ones(n).long(), torch.full((n, 1), 9), targets)
    steps = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(250):
        steps.zero_grad()
        net.loss(b).backward()
        steps.step()
    with torch.no_grad():
        scores = net.score(net.user_state(scoring([9])), torch.arange(1, 7))[0]
    expected = torch.from_numpy(np.log(drawn[1:] / n)).float()
    gaps = (scores - scores[0]) - (expected - expected[0])
    assert gaps.abs().max() < 0.1, gaps  # twice the log would be 3.5 off


def test_an_unknown_loss_is_refused(data):
    with pytest.raises(ValueError, match=r"'hinge'.*'full', 'in_batch'"):
        dataclasses.replace(SMALL, loss="hinge").build(data, 0)


@pytest.mark.parametrize("item_id", [False, True])
def test_an_export_has_item_vectors_and_no_words(data, item_id):
    trained = fit(Train(dataclasses.replace(SMALL, item_id=item_id), LOG), data, {}, seed=0)
    config, arrays = trained.export()
    assert not [k for k in arrays if k.startswith("tower")]
    assert not arrays["item_table.weight"][0].any()
    served = load_served(json.loads(json.dumps(config)), arrays)
    users, histories = np.array([1, 2]), [np.array([3, 4]), np.array([5])]
    scores = served.scores(users, histories)
    np.testing.assert_allclose(scores, trained.scores(users, histories))
    assert np.isfinite(scores[:, 1:]).all()


@pytest.mark.parametrize("loss", ["full", "in_batch"])
def test_it_finds_items_by_their_words_that_training_hardly_met(loss):
    """Rare twins are named as their frequent sisters, so words find them and ids do not."""
    made = planted_twins(n_users=200, places=10, seed=1)
    data = made.data
    place = {}
    for vector, item in zip(made.items.vectors, range(1, data.n_items + 1), strict=True):
        near = max(place, key=lambda p: place[p] @ vector, default=None)
        if near is None or place[near] @ vector < 0.95 * np.linalg.norm(vector):
            place[item] = vector / np.linalg.norm(vector)
            near = item
        made.group[item] = near
    titles = [f"place{made.group[i]}" for i in range(1, data.n_items + 1)]
    assert 10 < len(set(titles)) < 0.7 * data.n_items
    words = {"title": word_codes(titles, np.ones(data.n_items, bool))}
    data = dataclasses.replace(data, task="retrieval", item_texts=words)
    how = Fit(lr=5e-3, batch=32, epochs=25, min_epochs=10, patience=5)
    net = TwoTower(word_dim=32, dim=32, mlp=(64,), dropout=0.0, loss=loss, fit=how)
    table = rank_table(fit(Train(net, LOG), data, {}, seed=0), data, TEST)
    tail = made.tail[table["item"].to_numpy()]
    assert tail.mean() > 0.3
    assert (table["rank"].to_numpy()[tail] <= 5).mean() > 0.6


def test_a_log_without_texts_is_refused(data):
    with pytest.raises(ValueError, match="no texts"):
        SMALL.build(dataclasses.replace(data, item_texts={}), 0)
