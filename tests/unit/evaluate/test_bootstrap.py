from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.evaluate import ctr
from llmers_pipelines.evaluate.bootstrap import (
    interval,
    resampled_auc,
    resampled_sums,
    two_sided_p,
)


def test_resampled_means_have_the_moments_of_the_bootstrap():
    x = np.random.default_rng(0).standard_normal((300, 2)) + 1
    means = resampled_sums(x, resamples=10_000, seed=1) / 300
    assert means.mean(0) == pytest.approx(x.mean(0), abs=4e-3)
    assert means.std(0) == pytest.approx(x.std(0) / np.sqrt(300), rel=0.03)
    shared = np.cov(x.T, bias=True)[0, 1] / 300  # columns are resampled together
    assert np.cov(means.T)[0, 1] == pytest.approx(shared, abs=3e-4)


def test_users_of_zero_rows_count_in_the_variance():
    """The shortcut for zero rows must equal drawing all users: binomial variance."""
    x = np.zeros((1000, 1))
    x[:50] = 1.0
    sums = resampled_sums(x, resamples=20_000, seed=2)[:, 0]
    assert sums.mean() == pytest.approx(50, abs=0.3)
    assert sums.var() == pytest.approx(1000 * 0.05 * 0.95, rel=0.05)


def test_equal_columns_have_no_difference_in_any_resample():
    x = np.repeat(np.random.default_rng(0).random((80, 1)), 2, axis=1)
    sums = resampled_sums(x, resamples=500)
    assert np.array_equal(sums[:, 0], sums[:, 1])


def test_same_seed_same_draws_and_other_seed_others():
    x = np.random.default_rng(0).random((80, 1))
    a, b, c = (resampled_sums(x, resamples=50, seed=s) for s in (3, 3, 4))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_no_live_row_and_bad_values():
    assert not resampled_sums(np.zeros((5, 2)), resamples=7).any()
    with pytest.raises(ValueError, match="NaN or infinity"):
        resampled_sums(np.array([[np.nan]]))


def impressions(n_users=40, seed=0, levels=0):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), rng.integers(1, 12, n_users))
    label = (rng.random(len(user)) < 0.35).astype(float)
    p = np.clip(0.3 * label + rng.random(len(user)) * 0.7, 0, 1)
    return user, label, np.round(p * levels) / levels if levels else p


@pytest.mark.parametrize("levels", [0, 8])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("paired", [0, 2048])
def test_weighted_auc_equals_auc_of_the_repeated_rows(levels, flip, paired, monkeypatch):
    from llmers_pipelines.evaluate import bootstrap

    monkeypatch.setattr(bootstrap, "PAIRED_USERS", paired)
    user, label, p = impressions(levels=levels)
    if flip:
        label = 1 - label
    drawn = []
    original = bootstrap._weights

    def spy(*args):
        drawn.append(original(*args))
        return drawn[-1]

    monkeypatch.setattr(bootstrap, "_weights", spy)
    got = resampled_auc(user, label, [p, 1 - p], resamples=70, seed=5)
    weights = np.concatenate(drawn)
    assert weights.shape == (70, 40) and (weights.sum(1) == 40).all()
    for r in range(70):
        rows = np.repeat(np.arange(len(user)), weights[r][user].astype(int))
        expected = ctr.auc(label[rows], p[rows])
        assert got[r, 0] == pytest.approx(expected)
        assert got[r, 1] == pytest.approx(1 - expected)


def test_clustered_spread_is_wider_than_that_of_rows():
    """Rows of one user that agree are worth one row, not ten."""
    rng = np.random.default_rng(0)
    one_label = (rng.random(60) < 0.5).astype(float)
    one_score = one_label * 0.5 + rng.standard_normal(60)
    user, label, score = (np.repeat(a, 10) for a in (np.arange(60), one_label, one_score))
    clustered = resampled_auc(user, label, [score], resamples=800).std()
    rows = resampled_auc(np.arange(600), label, [score], resamples=800).std()
    assert clustered > 2 * rows


def test_auc_without_two_classes_is_undefined():
    draws = resampled_auc(np.arange(4), np.ones(4), [np.arange(4.0)], resamples=10)
    assert np.isnan(draws).all() and interval(draws[:, 0]) == (None, None)
    assert two_sided_p(draws[:, 0]) is None


def test_interval_and_p():
    draws = np.arange(1001) / 1000
    assert interval(draws) == pytest.approx((0.025, 0.975))
    assert two_sided_p(draws + 1) == pytest.approx(2 / 1002)
    assert two_sided_p(draws - 0.5) == 1.0
    assert interval(np.array([1.0, np.nan, 2.0])) == (None, None)  # a third is undefined


def test_a_user_interval_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        x = rng.standard_normal((60, 1))
        low, high = interval(resampled_sums(x, resamples=400, seed=trial)[:, 0] / 60)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99
