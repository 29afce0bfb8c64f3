from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.evaluate import ctr
from llmers_pipelines.evaluate.cells import align, card


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


def shown_table(error, seed=0):
    """Clicks of users who have several impressions; one of one class, and rows of none."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(1, 13), 12)
    impression = np.tile(np.repeat([1, 2, 3, 0], 3), 12)  # numbers start again for each user
    label = np.tile([1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1], 12).astype(float)
    p = 1 / (1 + np.exp(-(label + rng.normal(0, error, len(label)))))
    return pa.table({
        "user_id": user.astype(str), "user": user, "item": np.arange(144), "row": np.arange(144),
        "impression": impression, "label": label, "p": p,
    })  # fmt: skip


def test_the_mean_over_impressions_skips_those_of_one_class():
    table = shown_table(1.0)
    y, p = table["label"].to_numpy(), table["p"].to_numpy()
    values = []
    for u in range(12):
        for low in (12 * u, 12 * u + 3):  # the third impression has no click
            own, clicked = p[low : low + 3], y[low : low + 3] == 1
            values.append(np.mean(own[clicked][:, None] > own[~clicked]))
    assert ctr.metrics(table)["iauc"] == pytest.approx(np.mean(values))
    assert "iauc" not in ctr.metrics(table.drop_columns(["impression"]))
    one = table.set_column(5, "label", pa.array(np.zeros(144)))
    assert ctr.metrics(one)["iauc"] is None


def test_impressions_are_resampled_with_their_users():
    tables = {("base", 0): shown_table(1.0), ("enhanced", 0): shown_table(0.3, 1)}
    aligned = align(tables)
    assert aligned.usual() == ("iauc", ("iauc", *ctr.METRICS))
    every = np.ones(144, bool)
    found = card(aligned, every, ["iauc"], resamples=500, seed=0)
    values, user = ctr.impression_auc(tables["base", 0])
    by_user = np.bincount(user, values)[1:]
    rng = np.random.default_rng(1)
    drawn = [by_user[rng.integers(12, size=12)].sum() / 24 for _ in range(500)]
    for q in (10, 50, 90):
        mine = np.percentile(found.draws["base"]["iauc"], q)
        assert mine == pytest.approx(np.percentile(drawn, q), abs=0.03)
    assert found.gain("iauc", "base", "enhanced").difference > 0
    nothing = card(aligned, every & False, ["iauc"], resamples=50, seed=0)
    assert nothing.gain("iauc", "base", "enhanced") is None


def test_predictions_over_clicks():
    label, p = np.array([1.0, 0, 0, 1]), np.array([0.9, 0.3, 0.2, 0.6])
    assert ctr.predicted_over_observed(label, p) == pytest.approx(1.0)
    assert ctr.predicted_over_observed(label, p / 2) == pytest.approx(0.5)
    assert ctr.predicted_over_observed(np.zeros(3), p[:3]) is None
    assert ctr.predicted_over_observed(label[:0], p[:0]) is None
