import numpy as np
import pytest

from llmers_pipelines.encode.geometry import (
    anisotropy,
    category_purity,
    constant_columns,
    duplicate_rate,
    effective_rank,
)


def test_anisotropy_is_the_mean_pairwise_cosine():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32) + 0.7
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(30, 1)]
    assert anisotropy(x) == pytest.approx(pairs.mean(), abs=1e-6)
    assert anisotropy(np.array([[1, 0], [0, 1]])) == pytest.approx(0)
    assert anisotropy(np.array([[2, 0], [5, 0], [0, 0]])) == pytest.approx(1)
    assert anisotropy(np.zeros((3, 2))) is None and anisotropy(np.zeros((0, 2))) is None


def test_effective_rank():
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.outer(np.arange(1, 5), [1, 2, 3])) == pytest.approx(1, abs=1e-4)
    p = np.array([3, 1]) / 4  # singular values 3 and 1
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    wide = np.array([[3.0, 0, 0], [0, 1, 0]])
    assert effective_rank(wide) == pytest.approx(1.75477, 1e-4)
    assert effective_rank(wide.T) == pytest.approx(1.75477, 1e-4)
    assert effective_rank(np.zeros((3, 2))) is None and effective_rank(np.zeros((0, 2))) is None


def test_duplicates_and_constant_columns():
    x = np.array([[1, 2, 0], [1, 2, 0], [1, 3, 0], [1, 2, 0]], np.float32)
    assert duplicate_rate(x) == 0.5 and constant_columns(x) == 2
    assert duplicate_rate(x[:0]) is None and constant_columns(x[:0]) == 0


def test_category_purity_counts_neighbours_that_share_a_category():
    x = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1], [-1, -1]], np.float32)
    categories = [{"a"}, {"a", "z"}, {"b"}, {"b"}, set()]
    near, chance = category_purity(x, categories, k=1)
    assert near == 1.0 and chance == pytest.approx(1 / 3)
    mixed, _ = category_purity(x, [{"a"}, {"b"}, {"a"}, {"b"}, set()], k=1)
    assert mixed == 0.0
    assert category_purity(x, categories, k=4) is None
