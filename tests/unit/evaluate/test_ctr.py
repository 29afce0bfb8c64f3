from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.evaluate import ctr


def test_golden_auc_counts_a_tie_half():
    label, p = np.array([1, 1, 0, 0.0]), np.array([0.9, 0.5, 0.5, 0.1])
    assert ctr.auc(label, p) == 0.875


def test_golden_logloss_and_normalised_entropy():
    p, y = np.array([0.9, 0.8, 0.2, 0.1]), np.array([1, 1, 0, 0.0])
    assert ctr.logloss(y, p) == pytest.approx(0.164252, abs=1e-6)
    assert ctr.normalised_entropy(y, p) == pytest.approx(0.236966, abs=1e-6)


def test_golden_relative_improvements():
    assert ctr.relaimpr(0.8376, 0.8313) == pytest.approx(0.0190, abs=5e-5)
    assert ctr.relaimpr(0.8137, 0.7990) == pytest.approx(0.0492, abs=5e-5)
    assert ctr.auc_ratio(0.8600, 0.8548) == pytest.approx(0.0061, abs=5e-5)
    assert ctr.relaimpr(0.8600, 0.8548) == pytest.approx(0.0147, abs=5e-5)
    assert ctr.relaimpr(0.6, 0.5) is None


def test_golden_ece_of_two_bins():
    p, y = np.array([0.2, 0.4, 0.6, 0.9]), np.array([0, 1, 1, 1.0])
    assert ctr.ece(y, p, bins=2) == pytest.approx(0.225)


def test_certain_mistakes_are_clipped_at_1e_7():
    assert ctr.logloss(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-7))
    assert ctr.logloss(np.array([0.0]), np.array([1.0])) == pytest.approx(-math.log(1e-7), rel=1e-4)


def test_gauc_is_weighted_by_rows_and_tells_the_share_of_users():
    user = np.array([1, 1, 2, 2, 2, 3, 3])
    y = np.array([1, 0, 1, 0, 0, 1, 1.0])  # user 3 has one class
    p = np.array([0.9, 0.1, 0.5, 0.7, 0.2, 0.3, 0.4])
    value, share = ctr.gauc(user, y, p)
    assert value == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert share == pytest.approx(2 / 3)


def test_one_class_gives_none_not_nan():
    table = pa.table({"user": [1, 1], "label": [1.0, 1.0], "p": [0.2, 0.3]})
    values = ctr.metrics(table)
    assert values["auc"] is None and values["gauc"] is None and values["ne"] is None
    assert values["gauc_share"] == 0.0 and values["logloss"] > 0
    empty = {"user": pa.array([], pa.int64()), "label": pa.array([], pa.float64()),
             "p": pa.array([], pa.float64())}  # fmt: skip
    assert set(ctr.metrics(pa.table(empty)).values()) == {None}


def test_constant_predictions_are_chance_and_one_bin():
    y = np.array([1, 0, 0, 0.0])
    assert ctr.auc(y, np.full(4, 0.25)) == 0.5
    assert ctr.ece(y, np.full(4, 0.25)) == 0.0
    assert len(ctr.reliability(y, np.full(4, 0.25))) == 1
    assert ctr.normalised_entropy(y, np.full(4, 0.25)) == pytest.approx(1.0)


def test_row_order_does_not_matter():
    rng = np.random.default_rng(0)
    user, y = rng.integers(1, 9, 200), (rng.random(200) < 0.4).astype(float)
    p = rng.integers(0, 20, 200) / 20
    order = rng.permutation(200)
    a, b = (
        ctr.metrics(pa.table({"user": user[o], "label": y[o], "p": p[o]}))
        for o in (np.arange(200), order)
    )
    assert a == pytest.approx(b)


def test_agrees_with_scikit_learn_on_random_data():
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import log_loss, roc_auc_score

    rng = np.random.default_rng(7)
    user, p = rng.integers(0, 30, 2000), np.round(rng.random(2000), 2)
    y = (rng.random(2000) < p).astype(float)
    assert ctr.auc(y, p) == pytest.approx(roc_auc_score(y, p))
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    assert ctr.logloss(y, p) == pytest.approx(log_loss(y, clipped))
    values, users = ctr.user_auc(user, y, p)
    expected = [roc_auc_score(y[user == u], p[user == u]) for u in users]
    assert np.allclose(values, expected)
    continuous = rng.random(2000)
    y = (rng.random(2000) < continuous**2).astype(float)
    rate, mean = calibration_curve(y, continuous, n_bins=10, strategy="quantile")
    table = ctr.reliability(y, continuous)
    assert np.allclose(table[:, 1], mean, atol=2e-3) and np.allclose(table[:, 2], rate, atol=6e-3)
