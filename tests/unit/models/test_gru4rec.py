"""GRU4Rec against a recurrence written out by hand, and what padding must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("gru4rec", "equations")

DATA = planted_rings(n_users=10, n_items=20).data


def built(**settings):
    settings = {"dim": 6, "hidden": 5, "dropout": 0.0, "max_len": 8, **settings}
    return GRU4Rec(**settings).build(DATA, 3)


def unrolled(model, items):
    """The states after each of ``items``, from the gates' equations."""
    x = [model.norm(model.item_table.weight[i]) for i in items]
    for layer in model.layers:
        w_ih, w_hh = layer.weight_ih_l0, layer.weight_hh_l0
        b_ih, b_hh = layer.bias_ih_l0, layer.bias_hh_l0
        h, out = torch.zeros(w_hh.shape[1]), []
        for value in x:
            r_in, z_in, n_in = (w_ih @ value + b_ih).chunk(3)
            r_h, z_h, n_h = (w_hh @ h + b_hh).chunk(3)
            reset, update = torch.sigmoid(r_in + r_h), torch.sigmoid(z_in + z_h)
            new = torch.tanh(n_in + reset * n_h)
            h = (1 - update) * new + update * h
            out.append(h)
        x = out
    return torch.stack([model.out.weight @ h + model.out.bias for h in x])


@pytest.mark.parametrize("layers", [1, 2])
def test_states_and_scores_are_those_of_the_equations(layers):
    model = built(layers=layers).eval()
    histories = [[3, 7, 1, 7], [5], [2, 9, 4, 4, 11, 6]]
    width = max(map(len, histories))
    items = torch.zeros(3, width, dtype=torch.int64)
    for row, history in enumerate(histories):
        items[row, width - len(history) :] = torch.tensor(history)
    with torch.no_grad():
        states = model.hidden_states(SequenceBatch(torch.ones(3, dtype=torch.int64), items))
        for row, history in enumerate(histories):
            expected = unrolled(model, history)
            torch.testing.assert_close(states[row, width - len(history) :], expected)
            scores = model.score(states[row, -1:])
            torch.testing.assert_close(scores[0], model.item_table.weight @ expected[-1])


def test_a_state_depends_neither_on_padding_nor_on_other_rows_nor_on_what_follows():
    model = built().eval()
    users = np.array([1, 2])
    with torch.no_grad():
        both = model.user_state(scoring_batch(users, [np.array([3, 4]), np.arange(1, 8)], 8))
        alone = model.user_state(scoring_batch(users[:1], [np.array([3, 4])], 8))
        torch.testing.assert_close(both[:1], alone)
        batch = SequenceBatch(torch.tensor([1]), torch.tensor([[3, 4, 5, 6]]))
        other = SequenceBatch(torch.tensor([1]), torch.tensor([[3, 4, 5, 9]]))
        one, two = model.hidden_states(batch), model.hidden_states(other)
        assert torch.equal(one[:, :3], two[:, :3])
        assert not torch.allclose(one[:, 3], two[:, 3])


def test_an_empty_history_has_finite_scores_and_gradients():
    model = built()
    state = model.user_state(scoring_batch(np.array([0]), [np.zeros(0, np.int64)], 8))
    assert torch.isfinite(model.score(state)).all()
    model.score(state).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_long_history_is_refused_and_scoring_takes_the_newest():
    model = built(max_len=4).eval()
    long = np.arange(1, 10)
    with pytest.raises(ValueError, match="history of length 9, at most max_len = 4"):
        model.hidden_states(SequenceBatch(torch.tensor([1]), torch.from_numpy(long)[None]))
    with torch.no_grad():
        whole = model.user_state(scoring_batch(np.array([1]), [long], 4))
        tail = model.user_state(scoring_batch(np.array([1]), [long[-4:]], 4))
    assert torch.equal(whole, tail)
