"""What only a sequence model can get wrong."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.sasrec_net import allowed_positions
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("sasrec", "equations")

SMALL = SASRec(dim=16, inner=32, heads=2, layers=2, max_len=8, dropout=0.5)
KINDS = [SMALL, dataclasses.replace(SMALL, positions="right")]
kinds = pytest.mark.parametrize("backbone", KINDS, ids=["distance", "right"])


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=20, n_items=30).data


def built(backbone, data):
    """A net whose position weights are not zero, so that a mistake with them shows."""
    net = backbone.build(data, 0).eval()
    with torch.no_grad():
        for p in (net.distances, net.places):
            if p is not None:
                p.normal_()
    return net


def batch(rows):
    items = torch.tensor(rows)
    return SequenceBatch(torch.ones(len(rows), dtype=torch.int64), items)


def plain_norm(layer, x):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


@kinds
def test_states_are_those_of_loops_over_positions(backbone, data):
    """Norm of the input, then attention and a wide layer, each with a residual and a norm."""
    net = built(backbone, data)
    with torch.no_grad():
        for p in net.parameters():  # norms of ones and biases of zeros would hide mistakes
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.4)
        history = [3, 7, 1, 7, 2]
        n, width = len(history), 8  # of a head
        x = net.item_table.weight[history]
        if net.places is not None:
            x = x + torch.stack([net.places[n - 1 - t] for t in range(n)])
        x = plain_norm(net.norm, x)
        for block in net.blocks:
            q, k, v = (block.qkv.weight @ x[..., None])[..., 0].add(block.qkv.bias).split(16, 1)
            mixed = torch.zeros(n, 16)
            for head in range(2):
                at = slice(width * head, width * (head + 1))
                for t in range(n):
                    logits = torch.stack([q[t, at] @ k[s, at] / width**0.5 for s in range(t + 1)])
                    if net.distances is not None:
                        logits = logits + net.distances[head, [t - s for s in range(t + 1)]]
                    weight = logits.exp() / logits.exp().sum()
                    mixed[t, at] = sum(weight[s] * v[s, at] for s in range(t + 1))
            x = plain_norm(block.attention_norm, x + mixed @ block.out.weight.T + block.out.bias)
            up = x @ block.up.weight.T + block.up.bias
            wide = up * 0.5 * (1 + torch.erf(up / 2**0.5))
            down = wide @ block.down.weight.T + block.down.bias
            x = plain_norm(block.inner_norm, x + down)
        states = net.hidden_states(batch([history]))[0]
        torch.testing.assert_close(states, x, atol=1e-5, rtol=1e-5)
        scores = net.score(states)
        torch.testing.assert_close(scores[:, 1:], (x @ net.item_table.weight.T)[:, 1:])


@kinds
def test_a_later_item_never_changes_an_earlier_state(backbone, data):
    net = built(backbone, data)
    a = net.hidden_states(batch([[3, 5, 7, 9, 11]]))
    b = net.hidden_states(batch([[3, 5, 7, 2, 11]]))
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3:], b[:, 3:])


@kinds
def test_left_padding_changes_nothing(backbone, data):
    net = built(backbone, data)
    short = net.user_state(batch([[3, 5, 7]]))
    long = net.user_state(batch([[0, 0, 0, 3, 5, 7], [1, 2, 3, 4, 5, 6]]))
    torch.testing.assert_close(long[:1], short)


@kinds
def test_an_empty_history_has_a_finite_state(backbone, data):
    net = built(backbone, data)
    assert torch.isfinite(net.score(net.user_state(batch([[0]])))).all()


@kinds
def test_order_matters(backbone, data):
    net = built(backbone, data)
    a, b = net.user_state(batch([[3, 5, 7], [5, 3, 7]]))
    assert not torch.allclose(a, b, atol=1e-3)


@kinds
def test_training_and_evaluation_attend_alike(backbone, data):
    net = built(dataclasses.replace(backbone, dropout=0.0), data)
    given = batch([[0, 5, 7, 9], [1, 2, 3, 4]])
    with torch.no_grad():
        evaluated = net.hidden_states(given)
        trained = net.train().hidden_states(given)
    torch.testing.assert_close(evaluated, trained, atol=1e-5, rtol=1e-5)


def test_loss_is_cross_entropy_over_all_items_at_every_target(data):
    net = built(dataclasses.replace(SMALL, dropout=0.0), data)
    given = dataclasses.replace(
        batch([[0, 5, 7], [1, 2, 3]]), targets=torch.tensor([[0, 7, 9], [2, 0, 4]])
    )
    states = net.hidden_states(given)
    logits = states @ net.item_table.weight.T
    logits[..., 0] = -torch.inf
    expected = nn.functional.cross_entropy(logits.transpose(1, 2), given.targets, ignore_index=0)
    torch.testing.assert_close(net.loss(given), expected)


def test_a_hook_on_scores_is_part_of_the_loss(data):
    class Louder(nn.Module):
        def score(self, model, nxt, state, ids):
            return 3 * nxt(state, ids)

    net = built(dataclasses.replace(SMALL, dropout=0.0), data)
    given = dataclasses.replace(batch([[1, 2, 3]]), targets=torch.tensor([[2, 3, 4]]))
    plain = net.loss(given)
    net.hooks.append(Louder())
    states = net.hidden_states(given)[0]
    logits = 3 * states @ net.item_table.weight.T
    logits[:, 0] = -torch.inf
    torch.testing.assert_close(
        net.loss(given), nn.functional.cross_entropy(logits, given.targets[0])
    )
    assert not torch.allclose(net.loss(given), plain)


def test_a_padding_position_may_look_at_itself_alone():
    allowed = allowed_positions(torch.tensor([[False, True, True]]))[0, 0]
    assert allowed.tolist() == [
        [True, False, False], [False, True, False], [False, True, True]
    ]  # fmt: skip


def test_mistakes_are_named(data):
    with pytest.raises(ValueError, match="dim 16 is not a multiple of heads 3"):
        dataclasses.replace(SMALL, heads=3).build(data, 0)
    with pytest.raises(ValueError, match="unknown positions 'left'"):
        dataclasses.replace(SMALL, positions="left").build(data, 0)
    with pytest.raises(ValueError, match="length 9, at most max_len = 8"):
        SMALL.build(data, 0).hidden_states(batch([list(range(1, 10))]))
