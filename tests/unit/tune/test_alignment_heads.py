"""The heads of a joint pretraining against hand-computed cases (checks 1, 3 and 4 of FLIP)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.models.contrast_net import info_nce
from llmers_pipelines.tune.alignment_heads_net import (
    CrossAttention,
    MaskedFields,
    MaskedTokens,
    Projection,
    nce,
)

pytestmark = pytest.mark.proof("flip", "equations")


def tokens_head() -> tuple[MaskedTokens, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return MaskedTokens(5, 3, 11, 0.0), torch.randn(4, 6, 5), torch.randn(4, 3)


def test_open_positions_add_exactly_nothing() -> None:
    """The loss is that over masked tokens alone; others get a gradient of exactly 0."""
    head, tokens, state = tokens_head()
    tokens.requires_grad_()
    labels = torch.full((4, 6), -100)
    labels[0, 2], labels[1, 0], labels[1, 5], labels[3, 1] = 4, 0, 10, 7
    loss = head.loss(tokens, state, labels)
    both = torch.cat([tokens, state.unsqueeze(1).expand(-1, 6, -1)], 2)
    logits = head.out(torch.tanh(both @ head.mix.weight.T + head.mix.bias))
    wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert tokens.grad is not None
    assert not tokens.grad[labels == -100].any() and tokens.grad[labels != -100].abs().min() > 0
    assert float(head.loss(tokens, state, torch.full((4, 6), -100)).detach()) == 0


def test_without_ids_it_is_an_ordinary_masked_head() -> None:
    head, tokens, state = tokens_head()
    plain = head.out(torch.tanh(F.linear(tokens[:, 0], head.mix.weight[:, :5], head.mix.bias)))
    torch.testing.assert_close(head(tokens[:, 0], torch.zeros(4, 3)), plain)
    assert float((head(tokens[:, 0], state) - plain).detach().abs().max()) > 0.05


def test_padding_is_not_attended_to() -> None:
    torch.manual_seed(1)
    attention, tokens, state = CrossAttention(3, 5), torch.randn(2, 4, 5), torch.randn(2, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    found = attention(state, tokens, mask)
    q = F.layer_norm(F.linear(state, attention.query[0].weight, attention.query[0].bias), (5,))
    weights = torch.softmax(tokens[0, :2] @ q[0], 0)
    torch.testing.assert_close(found[0], weights @ tokens[0, :2])
    longer = torch.cat([tokens, 100 * torch.ones(2, 3, 5)], 1)
    shut = torch.cat([mask, torch.zeros(2, 3, dtype=torch.long)], 1)
    torch.testing.assert_close(attention(state, longer, shut), found)
    assert float((attention(state, longer, torch.ones(2, 7)) - found).detach().abs().max()) > 1


def test_noise_contrastive_loss_by_hand() -> None:
    def sig(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    scores = torch.tensor([[2.0, 0.0, 1.0]])
    log_q = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    own = (2 - math.log(2 * 0.5), 0 - math.log(2 * 0.25), 1 - math.log(2 * 0.25))
    wanted = -math.log(sig(own[0])) - math.log(1 - sig(own[1])) - math.log(1 - sig(own[2]))
    assert float(nce(scores, log_q)[0]) == pytest.approx(wanted, rel=1e-6)


def test_the_best_scores_have_accuracy_one_and_less_loss_than_the_start() -> None:
    torch.manual_seed(2)
    counts = {"user": np.array([5, 1, 3, 1]), "item.genre": np.array([2, 8])}
    head = MaskedFields(6, counts, width=4, k=25)
    states = torch.randn(10, 6)
    rows = np.arange(10)
    targets = [(0, rows, np.tile([0, 1, 2, 3, 0], 2)), (1, rows[:4], np.array([0, 1, 0, 1]))]
    start, _ = head.loss(states, targets, np.random.default_rng(0))

    def knowing(field: int, given: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return torch.where(chosen == chosen[:, :1], 0.0, -20.0)  # log p(v | x) of who knows

    head.scores = knowing  # type: ignore[method-assign]
    loss, accuracy = head.loss(states, [(0, rows, np.tile([1, 3], 5))], np.random.default_rng(0))
    del head.scores
    untold, _ = head.loss(states, [(0, rows, np.tile([1, 3], 5))], np.random.default_rng(0))
    assert accuracy == 1 and float(loss.detach()) < float(untold.detach())
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        now, _ = head.loss(states, targets, np.random.default_rng(step))
        now.backward()
        optimizer.step()
    assert float(now.detach()) < float(start.detach())
    assert head.loss(states, [], np.random.default_rng(0))[1] == 0


def test_noise_is_drawn_by_frequency_within_the_field() -> None:
    head = MaskedFields(3, {"a": np.array([6, 0, 3, 1]), "b": np.array([1, 1])}, width=2, k=25)
    drawn = head.noise(0, 4000, np.random.default_rng(0))
    assert drawn.shape == (4000, 25)
    share = np.bincount(drawn.ravel(), minlength=4) / drawn.size
    np.testing.assert_allclose(share, [0.6, 0, 0.3, 0.1], atol=0.01)
    torch.testing.assert_close(head.log_q[0][:1].exp(), torch.tensor([0.6]))


def test_contrast_of_dot_products_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    s = [[1 / 0.7, 0.0], [2 / 0.7, 2 / 0.7]]
    rows = [-s[a][a] + math.log(sum(math.exp(v) for v in s[a])) for a in (0, 1)]
    columns = [-s[a][a] + math.log(sum(math.exp(s[b][a]) for b in (0, 1))) for a in (0, 1)]
    wanted = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert float(info_nce(x, y, 0.7, cosine=False)) == pytest.approx(wanted, rel=1e-6)
    assert float(info_nce(x, y, 0.7)) != pytest.approx(wanted, rel=1e-3)


def test_a_projection_by_hand() -> None:
    torch.manual_seed(3)
    head, x = Projection(4, 3, 0.2).eval(), torch.randn(5, 4)
    p = x @ head.first.weight.T + head.first.bias
    wanted = p + F.gelu(p) @ head.second.weight.T + head.second.bias
    torch.testing.assert_close(head(x), F.layer_norm(wanted, (3,)))
