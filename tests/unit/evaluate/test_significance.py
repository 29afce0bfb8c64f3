from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.evaluate.significance import (
    Gain,
    holm,
    lift_claim,
    mcnemar,
    mcnemar_counts,
    paired_gain,
    paired_t,
    seed_spread,
)


def test_golden_paired_t_test():
    result = paired_t(np.array([0.1, 0.2, -0.1, 0, 0.3]))
    assert result.t == pytest.approx(1.41421, abs=1e-5)
    assert result.df == 4
    assert result.p == pytest.approx(0.2302, abs=1e-4)


def test_t_test_agrees_with_scipy_and_handles_no_variance():
    from scipy.stats import ttest_1samp

    d = np.random.default_rng(0).standard_normal(50) + 0.2
    expected = ttest_1samp(d, 0)
    assert paired_t(d).t == pytest.approx(expected.statistic)
    assert paired_t(d).p == pytest.approx(expected.pvalue)
    assert paired_t(np.zeros(5)).p == 1.0 and paired_t(np.zeros(5)).t is None
    assert paired_t(np.full(5, 0.1)).p == 0.0
    assert paired_t(np.array([0.3])).p is None


def test_golden_mcnemar():
    assert mcnemar_counts(10, 2) == pytest.approx(0.0386, abs=1e-4)
    base = np.array([1] * 10 + [0] * 2 + [1] * 5 + [0] * 7)
    other = np.array([0] * 10 + [1] * 2 + [1] * 5 + [0] * 7)
    assert mcnemar(base, other) == pytest.approx(0.0386, abs=1e-4)
    assert mcnemar(base, base) == 1.0


def test_mcnemar_agrees_with_the_binomial_test():
    from scipy.stats import binomtest

    for a, b in ((3, 3), (0, 6), (17, 30)):
        assert mcnemar_counts(a, b) == pytest.approx(binomtest(a, a + b).pvalue)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == [] and holm([None]) == [None]


def test_paired_gain_is_about_differences_not_levels():
    rng = np.random.default_rng(0)
    base = rng.random(500)
    gain = paired_gain(base, base + 0.01 + 0.02 * rng.standard_normal(500), "ndcg@10")
    assert gain.difference == pytest.approx(0.01, abs=0.003)
    assert gain.better and not gain.worse and gain.p < 1e-6
    assert gain.low < gain.difference < gain.high < 0.013
    assert gain.relative == pytest.approx(gain.difference / base.mean())
    assert gain.relative_low < gain.relative < gain.relative_high
    back = paired_gain(base + 0.01, base)
    assert back.worse and not back.better


def test_a_zero_base_has_no_relative_gain():
    gain = paired_gain(np.zeros(30), np.ones(30))
    assert gain.relative is None and gain.relative_low is None and gain.low == 1.0
    with pytest.raises(ValueError, match="non-empty"):
        paired_gain(np.zeros(0), np.zeros(0))


def test_lower_is_better_turns_the_sides():
    gain = Gain("logloss", 0.6, 0.5, -0.12, -0.08, lower_is_better=True)
    assert gain.better and not gain.worse
    assert Gain("logloss", 0.5, 0.6, 0.08, 0.12, lower_is_better=True).worse


def test_seed_spread_is_a_t_interval():
    from scipy.stats import t

    values = [0.010, 0.012, 0.017]
    s = seed_spread(values)
    assert s.mean == pytest.approx(0.013) and s.sd == pytest.approx(np.std(values, ddof=1))
    low, high = t.interval(0.95, 2, s.mean, s.sd / np.sqrt(3))
    assert (s.low, s.high) == pytest.approx((low, high))
    assert {type(v) for v in (s.mean, s.sd, s.low, s.high)} == {float}
    assert seed_spread([0.1]).low is None and seed_spread([]).mean is None


GOOD = Gain("ndcg@10", 0.050, 0.056, 0.004, 0.008)
SEEDS = seed_spread([0.006, 0.0065, 0.0055])
REFERENCES = {"itemknn": Gain("ndcg@10", 0.049, 0.050, -0.001, 0.003)}
CONTROLS = {"permuted": Gain("ndcg@10", 0.051, 0.056, 0.003, 0.007)}


def claim(gain=GOOD, seeds=SEEDS, references=REFERENCES, controls=CONTROLS, **more):
    return lift_claim(gain, seeds, references=references, controls=controls, **more)


def test_a_control_that_fits_and_was_not_run_forbids_the_claim():
    assert claim(required=["permuted"]).status == "claimed"
    verdict = claim(required=["permuted", "gaussian"])
    assert verdict.status == "not shown"
    assert verdict.reasons == ("the control gaussian was not run",)
    once = claim(seeds=seed_spread([0.006]), required=["permuted", "gaussian"])
    assert once.status == "exploratory" and once.reasons[-1] == "the control gaussian was not run"


def test_a_lift_is_claimed_when_everything_holds():
    verdict = claim()
    assert verdict.status == "claimed" and str(verdict) == "claimed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gain": Gain("ndcg@10", 0.050, 0.051, -0.001, 0.003)}, "interval over users"),
        ({"seeds": seed_spread([0.006, 0.007])}, "2 seeds, at least 3"),
        ({"seeds": seed_spread([0.0033, 0.0060, 0.0087])}, "interval over 3 seeds"),
        ({"seeds": seed_spread([0.001, 0.004, 0.008, 0.006, 0.003])}, "two deviations"),
        ({"references": {}}, "no reference baseline"),
        ({"references": {"ease": Gain("ndcg@10", 0.06, 0.05, -0.012, -0.008)}}, "weaker than"),
        ({"controls": {}}, "no control"),
        ({"controls": {"gaussian": Gain("ndcg@10", 0.055, 0.056, -0.001, 0.003)}}, "gaussian"),
        ({"marks": ("contaminated",)}, "marked 'contaminated'"),
        ({"corrected_p": 0.2}, "corrected p is 0.2"),
    ],
)
def test_each_missing_condition_is_named(change, reason):
    verdict = claim(**change)
    assert verdict.status == "not shown"
    assert len(verdict.reasons) == 1 and reason in verdict.reasons[0]
    assert str(verdict).startswith("not shown: ")


def test_one_seed_is_exploratory_at_best():
    assert claim(seeds=seed_spread([0.006])).status == "exploratory"
    worse = Gain("ndcg@10", 0.050, 0.049, -0.004, 0.001)
    assert claim(gain=worse, seeds=seed_spread([-0.001])).status == "not shown"


def test_models_without_randomness_need_no_seeds():
    assert claim(seeds=seed_spread([0.006], exact=True)).status == "claimed"


def test_claims_on_losses_go_downwards():
    gain = Gain("logloss", 0.56, 0.55, -0.012, -0.008, lower_is_better=True)
    controls = {"permuted": gain}
    references = {"popularity": Gain("logloss", 0.6, 0.56, -0.05, -0.03, lower_is_better=True)}
    down = seed_spread([-0.0100, -0.0105, -0.0095])
    assert claim(gain, down, references, controls).status == "claimed"
    up = seed_spread([0.0100, 0.0105, 0.0095])
    assert claim(gain, up, references, controls).status == "not shown"
