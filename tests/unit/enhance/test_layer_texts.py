from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.layer_texts import LayerTexts
from llmers_pipelines.models.contrast_net import info_nce
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.served import fold
from llmers_pipelines.plan import PlanError, Table
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import load_loader

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


def test_sum_and_concat_are_the_equations(data):
    for how in ("sum", "concat"):
        model, hook = attached(data, how=how)
        model.eval()
        with torch.no_grad():
            w = hook.project.weight.T
            own = model._final()
            users = [torch.zeros(data.n_users + 1, 8), hook.user1 @ w]
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


def test_raw_texts_alone_are_a_method_without_rounds(data):
    model = BACKBONE.build(data, 0)
    given = {I0: vectors("item", data.items, 0)}
    attach_parts(model, (LayerTexts((I0,)),), data, given, 0)
    model.eval()
    with torch.no_grad():
        text = model.item_output()[:, 8:]
        assert F.normalize(text, dim=1)[1:].abs().sum() > 0
        batch = next(load_loader("pair")(data, BACKBONE, 0).epoch(1))
        assert model.user_state(batch)[:, 8:].abs().sum() == 0


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


def test_wrong_settings_and_widths_are_refused(data):
    for settings in ({"items": ()}, {"users": (U1, U1, U1)}, {"how": "mlp"}, {"tau": 0.0}):
        with pytest.raises(PlanError, match="LayerTexts"):
            LayerTexts(**{"items": (I0, I1), "users": (U1,), **settings})
    with pytest.raises(ValueError, match="different widths"):
        attached(data, width=7)
