"""HSTU: pointwise attention by hand, and what masks and padding must not change."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.data.training import TEST
from llmers_pipelines.enhance.neighbour_distillation import NeighbourDistillation
from llmers_pipelines.evaluate.predict import rank_table
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.hstu_net import pointwise_attention, time_buckets
from llmers_pipelines.models.ranking_net import rank_metric, rank_targets, scoring_batch
from llmers_pipelines.models.served import export, fold
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.registry.manifest import BundleError
from llmers_pipelines.registry.ranker import load_ranker
from llmers_pipelines.testing.planted import leave_one_out, planted_rings
from llmers_pipelines.train.loop import fit, load_loader

pytestmark = pytest.mark.proof("hstu", "equations")


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=12, n_items=20).data


def built(data, **settings):
    given = {"dim": 6, "inner": 4, "attention": 8, "heads": 2, "layers": 2, "max_len": 8} | settings
    net = HSTU(dropout=0.0, **given).build(data, 0).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.project.weight.normal_(0, 0.3)
            block.distances.normal_()
    return net


def silu(x):
    return x / (1 + math.exp(-x))


def test_two_positions_by_hand():
    q, k = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[1.0], [-1.0]]]])
    v = torch.tensor([[[[10.0, 0.0], [0.0, 10.0]]]])
    bias = torch.tensor([[[0.5, 9.0], [0.25, 0.5]]])
    allowed = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    found = pointwise_attention(q, k, v, bias, allowed, 4)[0, 0]
    first = [silu(1.5) / 4 * 10, 0.0]  # what is not allowed is 0, whatever its bias
    second = [silu(2.25) / 4 * 10, silu(-1.5) / 4 * 10]
    torch.testing.assert_close(found, torch.tensor([first, second]))
    assert found[1, 1] < 0  # no softmax: weights may be negative and do not sum to 1


def test_states_are_those_of_loops_over_positions(data):
    net = built(data)
    history = [3, 7, 1, 7, 2]
    n = len(history)
    with torch.no_grad():
        x = net.item_table.weight[history] * 6**0.5 + net.places[:n].flip(0)
        for block in net.blocks:
            mixed = F.silu(F.layer_norm(x, (6,), eps=1e-6) @ block.project.weight.T)
            u, v, q, k = mixed.split([4, 4, 8, 8], 1)
            out = torch.zeros(n, 4)
            for head in range(2):
                for t in range(n):
                    for s in range(t + 1):
                        logit = q[t, 4 * head : 4 * head + 4] @ k[s, 4 * head : 4 * head + 4]
                        weight = F.silu(logit + block.distances[head, t - s]) / net.max_len
                        out[t, 2 * head : 2 * head + 2] += weight * v[s, 2 * head : 2 * head + 2]
            x = x + block.out(u * F.layer_norm(out, (4,), eps=1e-6))
        state = net.user_state(scoring_batch(np.array([1]), [np.array(history)], 8))[0]
        torch.testing.assert_close(state, F.normalize(x[-1], dim=0) / 0.05, atol=1e-4, rtol=1e-4)
        cosines = F.normalize(net.item_table.weight, dim=1) @ F.normalize(x[-1], dim=0)
        torch.testing.assert_close(net.score(state[None])[0], cosines / 0.05, atol=1e-4, rtol=1e-4)


def test_padding_changes_nothing_in_training_and_evaluation(data):
    net = built(data)
    lists = [np.array([3, 4]), np.arange(1, 8)]
    with torch.no_grad():
        both = net.user_state(scoring_batch(np.array([1, 2]), lists, 8))
        alone = net.user_state(scoring_batch(np.array([1]), lists[:1], 8))
        torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=1e-4)
        items = torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4]])
        trained = net.train().user_state(
            SequenceBatch(torch.ones(2, dtype=torch.int64), items, items)
        )
    torch.testing.assert_close(trained[0, -1], alone[0], atol=1e-4, rtol=1e-4)


def test_a_later_item_never_changes_an_earlier_state(data):
    net = built(data)
    user = torch.tensor([1])
    with torch.no_grad():
        one = net.hidden_states(SequenceBatch(user, torch.tensor([[3, 5, 7, 9, 11]])))
        two = net.hidden_states(SequenceBatch(user, torch.tensor([[3, 5, 7, 2, 11]])))
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3:], two[:, 3:])


def test_an_empty_history_has_finite_scores_and_gradients(data):
    net = built(data)
    state = net.user_state(scoring_batch(np.array([0]), [np.zeros(0, np.int64)], 8))
    scores = net.score(state)
    assert torch.isfinite(scores).all()
    scores.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_heads_must_divide_the_widths(data):
    with pytest.raises(ValueError, match="must be multiples of heads 3"):
        built(data, heads=3)


def timed(data, **settings):
    net = built(data, time_buckets=20, **settings)
    with torch.no_grad():
        for block in net.blocks:
            block.gaps.normal_()
    return net


def test_buckets_of_time_by_hand():
    times = torch.tensor([[0, 1, 101, 10**9]])
    found = time_buckets(times, 20)[0]
    assert found[2].tolist()[:3] == [int(math.log(101) / 0.301), int(math.log(100) / 0.301), 0]
    assert found[3, 0] == 19  # the last one is open
    assert found[1, 0] == 0 and found[0, 0] == 0  # up to a second


def test_states_with_times_are_those_of_loops_over_positions(data):
    net = timed(data, layers=1, heads=1)
    history, times = [3, 7, 1, 7], [10, 11, 500, 90_000]
    block = net.blocks[0]
    with torch.no_grad():
        x = net.item_table.weight[history] * 6**0.5 + net.places[:4].flip(0)
        mixed = F.silu(F.layer_norm(x, (6,), eps=1e-6) @ block.project.weight.T)
        u, v, q, k = mixed.split([4, 4, 8, 8], 1)
        out = torch.zeros(4, 4)
        for t in range(4):
            for s in range(t + 1):
                gap = min(19, int(math.log(max(1, times[t] - times[s])) / 0.301))
                logit = q[t] @ k[s] + block.distances[0, t - s] + block.gaps[0, gap]
                out[t] += F.silu(logit) / net.max_len * v[s]
        x = x + block.out(u * F.layer_norm(out, (4,), eps=1e-6))
        given = scoring_batch(np.array([1]), [np.array(history)], 8, "cpu", [np.array(times)])
        state = net.user_state(given)[0]
    torch.testing.assert_close(state, F.normalize(x[-1], dim=0) / 0.05, atol=1e-4, rtol=1e-4)


def test_neither_the_next_time_nor_a_shift_of_all_times_is_read(data):
    """A position knows when its own item and those before it came, and nothing of the next."""
    net, user = timed(data), torch.tensor([1])
    items = torch.tensor([[3, 5, 7, 9]])

    def states(*times):
        with torch.no_grad():
            return net.hidden_states(SequenceBatch(user, items, time=torch.tensor([times])))

    first = states(5, 50, 900, 901)
    torch.testing.assert_close(states(5, 50, 900, 70_000)[:, :3], first[:, :3])
    assert not torch.allclose(states(5, 50, 900, 70_000)[:, 3], first[:, 3])
    torch.testing.assert_close(states(1005, 1050, 1900, 1901), first)


def test_without_times_or_a_clock_it_says_so(data):
    with pytest.raises(ValueError, match="reads the times of a history, and none were given"):
        timed(data).user_state(scoring_batch(np.array([1]), [np.array([3])], 8))
    ordered = dataclasses.replace(data, info={"clock": "order"})
    with pytest.raises(ValueError, match="needs timestamps, and the clock of this log is 'order'"):
        built(ordered, time_buckets=20)
    with pytest.raises(BundleError, match="reads the times of a history, which a bundle lacks"):
        load_ranker(*export(fold(timed(data))), "sequential", data.n_items)


def test_what_only_times_tell_is_learned_and_evaluated_alike():
    """The item after a long pause lies 7 places on, else 1: the newest gap alone tells which."""
    rng = np.random.default_rng(0)
    long = rng.random((200, 10)) < 0.5
    place = rng.integers(20, size=(200, 1)) + np.cumsum(np.where(long, 7, 1), 1)
    walks = np.concatenate([place[:, :1] - 1, place], 1) % 20 + 1
    # the gap before an item says how far its successor is
    gaps = np.where(np.concatenate([np.zeros((200, 1), bool), long], 1), 100_000, 10)
    shifted = np.concatenate([gaps[:, 2:], gaps[:, :2]], 1)
    times = np.cumsum(np.concatenate([gaps[:, :1], shifted[:, :-1]], 1), 1)
    data = dataclasses.replace(leave_one_out(list(walks), 20), time=times.ravel())
    how = Fit(lr=3e-3, batch=32, epochs=25, min_epochs=25)
    first = {}
    for buckets in (0, 50):
        backbone = HSTU(
            dim=16, inner=16, attention=16, heads=2, dropout=0.0, max_len=8,
            time_buckets=buckets, fit=how,
        )  # fmt: skip
        trained = fit(Train(backbone, Table("splits", task="sequential")), data, {}, seed=0)
        ranks = rank_targets(trained.model, data, TEST)
        first[buckets] = rank_metric("hr@1", ranks)
        table = rank_table(trained, data, TEST)
        np.testing.assert_allclose(np.sort(table["rank"]), np.sort(ranks.rank))
    batch = next(load_loader("sequence")(data, backbone, 0).epoch(1))
    assert torch.equal(batch.time > 0, batch.items > 0)
    assert first[50] > max(0.9, first[0] + 0.15), first


@pytest.mark.parametrize("refresh", ["epoch", "step"])
def test_a_part_that_asks_for_other_users_gives_their_times(data, refresh):
    owners = [f"u{n}" for n in range(1, 13)]
    lists = pa.table({
        "user_id": owners, "rank": [1] * 12, "other_id": [*owners[1:], "u1"], "cos": [0.5] * 12,
    })  # fmt: skip
    node = Table("users")
    part = NeighbourDistillation(node, weight=0.1, refresh=refresh)
    how = Fit(lr=1e-3, batch=6, epochs=1, min_epochs=1)
    backbone = HSTU(dim=8, inner=8, attention=8, max_len=6, time_buckets=8, fit=how)
    train = Train(backbone, Table("splits", task="sequential"), aux=(part,))
    assert np.isfinite(fit(train, data, {node: lists}, seed=0).best_valid)
