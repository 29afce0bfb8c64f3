"""SR-GNN against a loop over one session's graph, and its classic mistakes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.srgnn import SRGNN
from llmers_pipelines.models.srgnn_net import session_graph
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("srgnn", "equations")


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=12, n_items=20).data


def built(data, steps=1):
    return SRGNN(dim=4, steps=steps, dropout=0.0, max_len=8).build(data, 0).eval()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_loop(net, session):
    """The state of one session from the equations, node by node."""
    w = {k: v.numpy().astype(np.float64) for k, v in net.state_dict().items()}
    nodes = sorted(set(session))
    at = {item: i for i, item in enumerate(nodes)}
    count = np.zeros((len(nodes), len(nodes)))
    for a, b in itertools.pairwise(session):
        count[at[a], at[b]] += 1
    v = w["item_table.weight"][nodes]
    for _ in range(net.steps):
        into = v @ w["message_in.weight"].T + w["message_in.bias"]
        out = v @ w["message_out.weight"].T + w["message_out.bias"]
        new = []
        for i in range(len(nodes)):
            a_in, a_out = np.zeros(v.shape[1]), np.zeros(v.shape[1])
            for j in range(len(nodes)):
                if count[j, i]:
                    a_in += count[j, i] / count[:, i].sum() * into[j]
                if count[i, j]:
                    a_out += count[i, j] / count[i].sum() * out[j]
            x = w["cell.weight_ih"] @ np.concatenate([a_in, a_out]) + w["cell.bias_ih"]
            h = w["cell.weight_hh"] @ v[i] + w["cell.bias_hh"]
            (xr, xz, xn), (hr, hz, hn) = np.split(x, 3), np.split(h, 3)
            reset, keep = sigmoid(xr + hr), sigmoid(xz + hz)
            new.append((1 - keep) * np.tanh(xn + reset * hn) + keep * v[i])
        v = np.stack(new)
    last = v[at[session[-1]]]
    mixed = np.zeros_like(last)
    for item in session:
        u = v[at[item]]
        query = w["last.weight"] @ last + w["last.bias"] + w["each.weight"] @ u
        mixed += (w["query.weight"] @ sigmoid(query)) * u
    return w["out.weight"] @ np.concatenate([last, mixed])


def test_the_graph_of_a_session_with_a_repeated_item():
    node, out, into = session_graph(torch.tensor([[0, 5, 3, 5, 9]]))
    assert node.tolist() == [[0, 1, 2, 1, 4]]
    expected = torch.zeros(5, 5)
    expected[1, 2], expected[1, 4], expected[2, 1] = 0.5, 0.5, 1.0
    assert torch.equal(out[0], expected)
    expected = torch.zeros(5, 5)
    expected[2, 1], expected[4, 1], expected[1, 2] = 1.0, 1.0, 1.0
    assert torch.equal(into[0], expected)


def test_steps_back_are_normalised_by_the_degree_of_their_end():
    _, out, into = session_graph(torch.tensor([[1, 2, 3, 2]]))  # 1 -> 2, 2 -> 3, 3 -> 2
    assert out[0, 1].tolist() == [0, 0, 1, 0]
    assert into[0, 1].tolist() == [0.5, 0, 0.5, 0]


def test_how_often_a_step_occurs_counts():
    _, out, _ = session_graph(torch.tensor([[1, 2, 1, 2, 1, 3]]))
    torch.testing.assert_close(out[0, 0], torch.tensor([0, 2 / 3, 0, 0, 0, 1 / 3]))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("session", [[3, 7, 1], [3, 7, 3, 9], [5, 5, 5], [4], [2, 9, 2, 9, 1]])
def test_states_are_those_of_the_loop(data, session, steps):
    net = built(data, steps)
    with torch.no_grad():
        state = net.user_state(scoring_batch(np.array([1]), [np.array(session)], 8))
        np.testing.assert_allclose(state[0].numpy(), by_loop(net, session), atol=1e-5)
        scores = net.score(state)[0].numpy()
    expected = net.item_table.weight.detach().numpy() @ by_loop(net, session)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_the_last_click_is_the_query_not_the_last_new_item(data):
    net = built(data)
    lists = [np.array([3, 7, 9, 3]), np.array([3, 7, 3, 9])]
    with torch.no_grad():
        state = net.user_state(scoring_batch(np.array([1, 1]), lists, 8))
    np.testing.assert_allclose(state[0].numpy(), by_loop(net, [3, 7, 9, 3]), atol=1e-5)
    assert not torch.allclose(state[0], state[1], atol=1e-4)


def test_in_training_every_prefix_is_a_session_of_its_own(data):
    net = built(data)
    batch = SequenceBatch(
        torch.tensor([1, 2]), torch.tensor([[0, 0, 3, 7], [4, 2, 4, 1]]),
        torch.tensor([[0, 0, 7, 1], [2, 4, 1, 0]]), torch.tensor([0, 0]),
    )  # fmt: skip
    with torch.no_grad():
        states = net.user_state(batch)
    sessions = {(0, 2): [3], (0, 3): [3, 7], (1, 0): [4], (1, 1): [4, 2], (1, 2): [4, 2, 4]}
    for (row, at), session in sessions.items():
        np.testing.assert_allclose(states[row, at].numpy(), by_loop(net, session), atol=1e-5)
    assert not states[1, 3].any()  # no target, no work


def test_padding_and_the_other_rows_change_nothing(data):
    net = built(data)
    lists = [np.array([3, 4]), np.arange(1, 8)]
    with torch.no_grad():
        both = net.user_state(scoring_batch(np.array([1, 2]), lists, 8))
        alone = net.user_state(scoring_batch(np.array([1]), lists[:1], 8))
    torch.testing.assert_close(both[:1], alone)


def test_a_long_history_is_cut_to_a_session(data):
    """A graph of all that somebody ever met is no session: the newest rows alone are read."""
    assert SRGNN().max_len <= 20
    net, rng = built(data), np.random.default_rng(0)
    long = rng.integers(1, 21, 30)
    with torch.no_grad():
        states = [
            net.user_state(scoring_batch(np.array([1]), [session], net.max_len))
            for session in (long, long[-8:], long[-9:])
        ]
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_an_empty_history_has_a_finite_state(data):
    net = built(data)
    state = net.user_state(scoring_batch(np.array([0]), [np.zeros(0, np.int64)], 8))
    assert torch.isfinite(net.score(state)).all()
