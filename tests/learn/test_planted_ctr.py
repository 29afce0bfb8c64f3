"""Clicks that depend on what only the text vectors say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID, Field, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.hybrid_experts import HybridExperts
from llmers_pipelines.models.autoint import AutoInt
from llmers_pipelines.models.dcnv2 import DCNv2
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.dien import DIEN
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.dlrm import DLRM
from llmers_pipelines.models.fibinet import FiBiNET
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.xdeepfm import XDeepFM
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.clicks import auc
from llmers_pipelines.train.loop import fit

USERS, ITEMS, LOG = Table("users"), Table("items"), Table("splits", task="ctr")
KAR = HybridExperts(user=USERS, item=ITEMS, shared=1, specific=2, hidden=16, out=8)
FIT = Fit(lr=3e-3, batch=128, epochs=25, min_epochs=8, patience=4, weight_decay=0.1, metric="auc")
BACKBONES = [
    DIN(dim=4, max_len=5, attention=8, mlp=(32, 16), fit=FIT),
    DeepFM(dim=4, max_len=5, mlp=(32, 16), fit=FIT),
]
CLICK_MODELS = [
    kind(dim=4, max_len=5, item_id=False, user_id=False, mlp=(32, 16), dropout=0.0, fit=FIT)
    for kind in (DIN, DeepFM, DCNv2, AutoInt, XDeepFM, FiBiNET, DIEN, DLRM)
]
TASTES = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]])  # user kind, item kind


def kinds_of(seed, n_users=400, n_items=800, rng=None):
    """Return the kind of each user and of each item, 0 to 3; row 0 is padding."""
    rng = rng or np.random.default_rng(seed)
    return rng.integers(4, size=n_users + 1), rng.integers(4, size=n_items + 1)


def planted_clicks(seed, n_users=400, n_items=800, each=10):
    """Users of four kinds like items of two of four kinds; a tenth of the labels is turned.

    Ids repeat too seldom to show their kind (5 training rows per item), and no kind is liked more
    than another, so what is left for a model without text is little more than chance.
    """
    rng = np.random.default_rng(seed)
    user_kind, item_kind = kinds_of(seed, n_users, n_items, rng)
    user = np.repeat(np.arange(1, n_users + 1), each)
    item = rng.integers(1, n_items + 1, n_users * each)
    label = TASTES[user_kind[user], item_kind[item]]
    label = np.where(rng.random(len(label)) < 0.1, 1 - label, label).astype(np.float32)
    data = TrainingData(
        "ctr", IdMap(tuple(f"u{n}" for n in range(1, n_users + 1))),
        IdMap(tuple(f"i{n}" for n in range(1, n_items + 1))), user, item,
        np.tile(np.arange(each), n_users), rng.choice([TRAIN, TRAIN, VALID, TEST], len(user)),
        label=label,
    )  # fmt: skip

    def text(entity, ids, kind):
        mixed = np.eye(4)[kind[1:]] @ rng.standard_normal((4, 12))
        rows = (mixed + 0.2 * rng.standard_normal(mixed.shape)).astype(np.float32)
        return VectorTable(entity, ids, rows, np.ones(len(ids), bool))

    return data, {
        USERS: text("user", data.users.ids, user_kind),
        ITEMS: text("item", data.items.ids, item_kind),
    }


def auc_on_test(backbone, data, inputs, seed, parts=(KAR,)):
    trained = fit(Train(backbone, LOG, fuse=parts), data, inputs, seed=seed)
    rows = np.flatnonzero(data.split == TEST)
    return auc(data.label[rows], trained.predict(rows))


@pytest.mark.parametrize("backbone", BACKBONES, ids=["din", "deepfm"])
def test_text_vectors_help_and_their_controls_do_not(backbone):
    for seed in (0, 1):
        data, inputs = planted_clicks(seed)
        text = auc_on_test(backbone, data, inputs, seed)
        base = auc_on_test(backbone, data, {}, seed, parts=())
        controls = [
            auc_on_test(backbone, data, control_inputs(inputs, arm, seed=seed), seed)
            for arm in ("permuted", "gaussian")
        ]
        assert text > 0.8  # 0.9 is what turned labels allow
        assert text > max(base, *controls) + 0.15


@pytest.mark.parametrize("backbone", CLICK_MODELS, ids=lambda b: type(b).__name__.lower())
def test_a_click_model_finds_which_kinds_go_together(backbone):
    data, _ = planted_clicks(0)
    user_kind, item_kind = kinds_of(0)
    letters = ("a", "b", "c", "d")
    fields = {
        "user_fields": {"kind": Field((user_kind + 1).astype(np.int32), letters)},
        "item_fields": {"kind": Field((item_kind + 1).astype(np.int32), letters)},
    }
    for side in fields.values():
        side["kind"].codes[0] = 0
    known = dataclasses.replace(data, **fields)
    chance = dataclasses.replace(
        known, label=np.random.default_rng(1).permutation(data.label).astype(np.float32)
    )
    assert auc_on_test(backbone, known, {}, 0, parts=()) > 0.8  # 0.9 is what turned labels allow
    assert 0.4 < auc_on_test(backbone, chance, {}, 0, parts=()) < 0.6
