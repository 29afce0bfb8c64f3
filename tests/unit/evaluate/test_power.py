from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from llmers_pipelines.evaluate.power import detectable, equivalence, share_error


def test_golden_errors_and_detectable_differences():
    assert share_error(0.05, 6040) == pytest.approx(0.0028, abs=5e-5)
    assert share_error(0.05, 22_363) == pytest.approx(0.0015, abs=5e-5)
    sd = np.sqrt(0.03)  # 3 % of the users have different hits
    for users, expected in ((6040, 0.0062), (22_363, 0.0032), (943, 0.016)):
        assert detectable(sd, users) == pytest.approx(expected, abs=3e-4)
    assert detectable(1.0, 0) is None


def test_what_is_detectable_is_found_in_as_many_samples_as_it_says():
    rng = np.random.default_rng(0)
    effect = detectable(1.0, 400)
    found = [ttest_1samp(effect + rng.standard_normal(400), 0).pvalue < 0.05 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.035)


def test_equivalence_is_the_worse_of_two_one_sided_tests():
    d = np.random.default_rng(1).normal(0.01, 0.1, 300)
    for margin in (0.005, 0.02, 0.05):
        low = ttest_1samp(d, -margin, alternative="greater").pvalue
        high = ttest_1samp(d, margin, alternative="less").pvalue
        assert equivalence(d, margin) == pytest.approx(max(low, high))
    few = d[:8]  # nothing is shown either way
    assert ttest_1samp(few, 0).pvalue > 0.05 and equivalence(few, 0.02) > 0.05
    assert equivalence(np.zeros(9), 0.1) == 0.0 and equivalence(np.ones(9), 0.1) == 1.0
    assert equivalence(d[:1], 0.1) is None
