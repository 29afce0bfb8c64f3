from __future__ import annotations

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.layer_texts import LayerTexts
from llmers_pipelines.models.contrast_net import info_nce
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit, load_loader

pytestmark = pytest.mark.proof("gacllm", "equations")

I0, I1, U1 = Table("item0"), Table("item1"), Table("user1")
BACKBONE = LightGCN(dim=8, layers=2, loss="bpr", l2=0.0, fit=Fit(lr=1e-2, batch=16, epochs=2))


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def vectors(entity, ids, seed, width=6):
    rows = np.random.default_rng(seed).standard_normal((len(ids), width)).astype(np.float32)
    return VectorTable(entity, ids.ids, rows, np.arange(len(ids)) % 5 > 0)


def attached(data, width=6, **settings):
    model = BACKBONE.build(data, 0)
    part = LayerTexts((I0, I1), (U1,), **settings)
    given = {I0: vectors("item", data.items, 0), I1: vectors("item", data.items, 1, width),
             U1: vectors("user", data.users, 2)}  # fmt: skip
    attach_parts(model, (part,), data, given, 0)
    return model, model.hooks[0]


def told(data, hook, number):
    """Return what users say in a round by loops: their text, else the mean over items met."""
    items, out = getattr(hook, f"item{number}"), torch.zeros(data.n_users + 1, 6)
    own = vectors("user", data.users, 2) if number == 1 else None
    for u in range(1, data.n_users + 1):
        met = set(data.item[(data.user == u) & (data.split == TRAIN)].tolist())
        if own is not None and own.mask[u - 1]:
            out[u] = getattr(hook, f"user{number}")[u]  # standardized over users, told elsewhere
        else:
            out[u] = sum(items[i] for i in met) / len(met)
    return out


def test_sum_and_concat_are_the_equations(data):
    for how in ("sum", "concat"):
        model, hook = attached(data, how=how)
        model.eval()
        with torch.no_grad():
            w = hook.project.weight.T
            own = model._final()
            users = [told(data, hook, 0) @ w, told(data, hook, 1) @ w]
            items = [hook.item0 @ w, hook.item1 @ w]
            found = model.item_output()
            batch = next(load_loader("pair")(data, BACKBONE, 0).epoch(1))
            state = model.user_state(batch)
        if how == "sum":
            torch.testing.assert_close(found, own[1] + (items[0] + items[1]) / 2)
            mixed = own[0] + (users[0] + users[1]) / 2
        else:
            torch.testing.assert_close(found, torch.cat([own[1], *items], 1))
            mixed = torch.cat([own[0], *users], 1)
        torch.testing.assert_close(state, mixed[batch.user])


def test_a_text_of_ones_own_stands_before_the_mean_of_neighbours(data):
    given = vectors("user", data.users, 2)
    _, hook = attached(data)
    rows = given.vectors[given.mask]
    centred = rows - rows.mean(0)
    expected = centred / np.sqrt((centred**2).mean())
    np.testing.assert_allclose(hook.user1[1:][given.mask], expected, atol=1e-5)
    assert hook.user1_real[1:].tolist() == given.mask.tolist() and not hook.user0_real.any()


def test_the_sum_is_the_mean_over_layers_of_graph_and_text_of_one_layer():
    """Hand case: two layers e^0 = 2, e^1 = 4 and texts 1, 3: mean(2 + 1, 4 + 3) = 5 = 3 + 2."""
    graph, text = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 3.0])
    assert (graph + text).mean() == graph.mean() + text.mean() == 5.0


def test_alignment_is_the_contrast_of_equal_layers_without_untold_rows(data):
    model, hook = attached(data, weight=0.5)
    batch = next(load_loader("pair")(data, BACKBONE, 0).epoch(1))
    layers = [x.tensor_split([data.n_users + 1]) for x in model.layers()]
    w, parts = hook.project.weight.T, []
    for number in (0, 1):
        for side, place, ids in (("user", 0, batch.user), ("item", 1, batch.positive)):
            if (number, side) == (0, "user"):
                continue
            ids = ids.unique()
            ids = ids[getattr(hook, f"{side}{number}_real")[ids]]
            text = getattr(hook, f"{side}{number}")[ids] @ w
            parts.append(info_nce(layers[number][place][ids], text, 0.2))
    expected = 0.5 * torch.stack(parts).mean()
    torch.testing.assert_close(hook.extra_loss(model, batch, None), expected)
    model.loss(batch).backward()
    assert model.user_table.weight.grad.abs().sum() > 0 and hook.project.weight.grad is not None


@pytest.mark.parametrize("how", ["concat", "sum"])
def test_what_is_served_is_what_was_trained(data, how):
    model, _ = attached(data, how=how)
    model.eval()
    histories = [np.array([1, 2, 3]), np.array([4, 4, 7]), np.array([5, 6])]
    batch = scoring_batch(np.array([1, 2, 0]), histories, None, torch.device("cpu"))
    with torch.no_grad():
        expected = model.score(model.user_state(batch))
        served = fold(model)
        torch.testing.assert_close(served.score(served.user_state(batch)), expected)


def scores(data, texts=0, **settings):
    """Return scores (5, N) of the raw texts of one seed and a trained graph; None: no part."""
    parts = () if texts is None else (LayerTexts((I0,), **settings),)
    given = {I0: vectors("item", data.items, texts)} if parts else {}
    node = Train(BACKBONE, Table("splits", task="sequential"), fuse=parts)
    histories = [data.item[data.user == u][:3] for u in range(1, 5)]
    return fit(node, data, given, seed=0).scores(np.arange(5), [histories[0], *histories])[:, 1:]


@pytest.mark.parametrize("how", ["concat", "sum"])
def test_without_rounds_the_raw_texts_count_in_the_score(data, how):
    """L = 0 is the graph with raw texts, of known users and of a stranger alike."""
    alone = scores(data, None)
    one, two = scores(data, 0, how=how, weight=0.0), scores(data, 1, how=how, weight=0.0)
    for row in range(5):
        assert np.abs(one[row] - alone[row]).max() > 1e-3
        assert np.abs(one[row] - two[row]).max() > 1e-3
    np.testing.assert_array_equal(scores(data, 0, how=how, weight=0.0, strength=0.0), alone)


def test_a_stranger_says_what_an_untold_user_of_the_same_history_says(data):
    model = BACKBONE.build(data, 0)
    attach_parts(model, (LayerTexts((I0,)),), data, {I0: vectors("item", data.items, 0)}, 0)
    model.eval()
    met = [data.item[(data.user == u) & (data.split == TRAIN)] for u in (1, 2)]
    known, strange = (scoring_batch(np.array(who), met, None, torch.device("cpu"))
                      for who in ([1, 2], [0, 0]))  # fmt: skip
    with torch.no_grad():
        served = fold(model)
        for net in (model, served):
            text = [net.user_state(batch)[:, 8:] for batch in (known, strange)]
            torch.testing.assert_close(text[0], text[1])
            assert text[0].abs().sum() > 0


def test_a_recipe_without_rounds_asks_nothing():
    from llmers_pipelines.config import Method
    from llmers_pipelines.orchestrate.build import instantiate
    from llmers_pipelines.plan import Generate, walk
    from llmers_pipelines.recipe import discover

    for rounds, asked in ((0, 0), (1, 2), (3, 6)):
        method = Method("gacllm", settings={"rounds": rounds})
        _, node = instantiate(method, discover())
        assert sum(isinstance(n, Generate) for n in walk([node])) == asked
        assert len(node.parts[0].items) == rounds + 1
        assert len(node.parts[0].users) == rounds


def test_named_columns_of_users_are_a_text_of_round_0():
    from llmers_pipelines.config import Method
    from llmers_pipelines.orchestrate.build import instantiate
    from llmers_pipelines.recipe import discover

    settings = {"rounds": 1, "user_fields": ("age", "gender")}
    _, node = instantiate(Method("gacllm", settings=settings), discover())
    users = node.parts[0].users
    assert len(users) == 2 and users[0].over.how.fields == ("age", "gender")


def test_the_tuning_of_the_language_model_can_be_set():
    from llmers_pipelines.config import Method
    from llmers_pipelines.orchestrate.build import instantiate
    from llmers_pipelines.plan import Tune, walk
    from llmers_pipelines.recipe import discover
    from llmers_pipelines.tune.sft import Sft

    def how(**settings):
        method = Method("gacllm", settings={"rounds": 1, "tuned": True, **settings})
        _, node = instantiate(method, discover())
        return next(n.how for n in walk([node]) if isinstance(n, Tune))

    assert how() == Sft()
    own = how(rank=4, lr=1e-3, epochs=2, batch=8)
    assert (own.lora.rank, own.lora.alpha, own.lr, own.epochs, own.batch) == (4, 8.0, 1e-3, 2, 8)


def test_wrong_settings_and_widths_are_refused(data):
    for settings in ({"items": ()}, {"users": (U1, U1, U1)}, {"how": "mlp"}, {"tau": 0.0}):
        with pytest.raises(PlanError, match="LayerTexts"):
            LayerTexts(**{"items": (I0, I1), "users": (U1,), **settings})
    with pytest.raises(ValueError, match="different widths"):
        attached(data, width=7)
