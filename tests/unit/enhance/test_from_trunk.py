"""A CTR model that starts whole from a pretrained one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN, TrainingData
from llmers_pipelines.data.weights import NamedWeights
from llmers_pipelines.enhance.from_trunk import FromTrunk
from llmers_pipelines.models.autoint import AutoInt
from llmers_pipelines.models.dcnv2 import DCNv2
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.seams import check_seams
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit, load_loader

pytestmark = pytest.mark.proof("flip", "equations")
SOURCE = Table("items")
SMALL: dict[str, Any] = {"dim": 4, "mlp": (8, 6), "dropout": 0.1}
KINDS = [
    DCNv2(crosses=2, **SMALL), DCNv2(crosses=2, structure="stacked", **SMALL),
    DCNv2(crosses=1, rank=3, experts=2, **SMALL), DeepFM(**SMALL), AutoInt(attention=8, **SMALL),
    DeepFM(user_id=False, act="relu", **SMALL),
]  # fmt: skip
IDS = ["dcnv2", "stacked", "experts", "deepfm", "autoint", "no user ids"]


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return contract_data("ctr")


def pretrained(backbone: Any, data: TrainingData) -> NamedWeights:
    trunk = backbone.build(data, 9).trunk
    return NamedWeights({n: t.detach().numpy() + np.float32(1) for n, t in trunk.items()})


def batch(backbone: Any, data: TrainingData) -> Any:
    return next(iter(load_loader("ctr")(data, backbone, 0).epoch(1)))


@pytest.mark.parametrize("backbone", KINDS, ids=IDS)
def test_the_trunk_is_all_that_the_state_hangs_on(backbone: Any, data: TrainingData) -> None:
    """By gradients, with nothing known of the network; and its logit reads that state alone."""
    model = backbone.build(data, 0)
    given = batch(backbone, data)
    model.states(model.embeddings(given)).square().sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    named = {n for n in model.trunk if ".running_" not in n}
    assert named == reached
    assert any(n.startswith("tower.rest") for n in named)
    model.eval()
    with torch.no_grad():
        e = model.embeddings(given)
        state, before = model.states(e), model.tower(model.interact(e)[0])
        last = model.tower.rest[-1]
        hidden = state[:, -last.in_features :]
        torch.testing.assert_close(last(hidden).squeeze(1), before)
    assert len(model.field_names) == e.shape[1] == model.n_fields


@pytest.mark.parametrize("backbone", KINDS, ids=IDS)
def test_step_zero_differs_in_the_loaded_tensors_alone(backbone: Any, data: TrainingData) -> None:
    alone, model = backbone.build(data, 0), backbone.build(data, 0)
    weights = pretrained(backbone, data)
    attach_parts(model, (FromTrunk(SOURCE),), data, {SOURCE: weights}, 0)
    before, now = alone.state_dict(), model.state_dict()
    moved = {n for n in now if not torch.equal(now[n], before[n])}
    assert moved == set(weights.arrays) and len(model.hooks) == 0
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(now[name].numpy(), array)
    assert all(p.requires_grad for p in model.parameters())


def test_a_share_of_the_weights(data: TrainingData) -> None:
    backbone, weights = KINDS[0], pretrained(KINDS[0], data)
    found = {}
    for share in (0.0, 0.25):
        model = backbone.build(data, 0)
        part = dataclasses.replace(FromTrunk(SOURCE), share=share)
        attach_parts(model, (part,), data, {SOURCE: weights}, 0)
        found[share] = {n: t.detach().clone() for n, t in model.trunk.items()}
    own = backbone.build(data, 0).trunk
    for name, tensor in own.items():
        assert torch.equal(found[0.0][name], tensor)
        wanted = 0.75 * tensor.detach() + 0.25 * torch.from_numpy(weights.arrays[name])
        torch.testing.assert_close(found[0.25][name], wanted)
    assert FromTrunk(SOURCE).inert().share == 0


def test_who_has_no_rows_starts_from_there_as_well(data: TrainingData) -> None:
    """Items that no training row has: served, with a finite probability, unknown users too."""
    split = np.where(np.isin(data.item, (1, 2)), TEST, data.split).astype(np.int8)
    less = dataclasses.replace(data, split=split)
    assert not np.isin(less.item[less.split == TRAIN], (1, 2)).any()
    backbone = dataclasses.replace(
        KINDS[0], fit=dataclasses.replace(KINDS[0].fit, epochs=1, min_epochs=1, batch=64)
    )
    node = Train(backbone, Table("splits", task="ctr"), init=(FromTrunk(SOURCE),))
    trained = fit(node, less, {SOURCE: pretrained(backbone, less)}, seed=0)
    p = trained.served.predict([1, 0], [1, 2], [np.array([3]), np.zeros(0, int)])
    assert np.isfinite(p).all() and (p > 0).all()


def test_controls_deal_and_draw_the_weights(data: TrainingData) -> None:
    weights = pretrained(KINDS[0], data)
    arms = {a: control_inputs({SOURCE: weights}, a, seed=1)[SOURCE] for a in
            ("permuted", "gaussian")}  # fmt: skip
    name = "items.table.weight"
    dealt, drawn, real = arms["permuted"].arrays, arms["gaussian"].arrays, weights.arrays
    np.testing.assert_array_equal(dealt[name][0], real[name][0])
    assert sorted(map(tuple, dealt[name])) == sorted(map(tuple, real[name]))
    assert not np.array_equal(dealt[name], real[name])
    same = [n for n in real if np.array_equal(dealt[n], real[n])]
    assert set(real) - set(same) == {name, "users.table.weight"}
    cross = "crosses.0.linear.weight"
    assert abs(drawn[cross].std() - real[cross].std()) < 0.05 and not np.allclose(
        drawn[cross], real[cross]
    )
    np.testing.assert_array_equal(drawn[name][0], real[name][0])
    assert weights.content_hash() != arms["permuted"].content_hash()
    again = control_inputs({SOURCE: weights}, "permuted", seed=1)[SOURCE]
    assert again.content_hash() == arms["permuted"].content_hash()


def test_what_does_not_fit_is_named(data: TrainingData) -> None:
    weights, model = pretrained(KINDS[0], data), KINDS[0].build(data, 0)

    def load(arrays: dict[str, np.ndarray], into: Any = model) -> None:
        attach_parts(into, (FromTrunk(SOURCE),), data, {SOURCE: NamedWeights(arrays)}, 0)

    with pytest.raises(ValueError, match=r"items.table.weight.*has the shape"):
        load({**weights.arrays, "items.table.weight": np.zeros((3, 4), np.float32)})
    with pytest.raises(ValueError, match="settings of the backbone"):
        load(dict(weights.arrays), KINDS[3].build(data, 0))
    name = "users.table.weight"
    with pytest.raises(ValueError, match="not finite"):
        load({**weights.arrays, name: np.full_like(weights.arrays[name], np.nan)})
    with pytest.raises(PlanError, match="source"):
        FromTrunk()
    with pytest.raises(PlanError, match="share"):
        FromTrunk(SOURCE, 2.0)
    from llmers_pipelines.models.din import DIN

    with pytest.raises(PlanError, match="trunk"):
        check_seams(DIN(), (FromTrunk(SOURCE),), "test")
