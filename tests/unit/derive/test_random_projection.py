import numpy as np
import pytest

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.random_projection import RandomProjection


def table(n=20, width=300):
    vectors = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    return VectorTable("item", tuple(map(str, range(n))), vectors, np.ones(n, bool))


def test_norms_are_kept_in_expectation():
    out, _ = RandomProjection(dim=200).apply([table()])
    ratio = np.linalg.norm(out.vectors, axis=1) / np.linalg.norm(table().vectors, axis=1)
    assert out.dim == 200 and abs(ratio.mean() - 1) < 0.03 and np.ptp(ratio) < 0.4


def test_a_row_depends_on_itself_and_the_seed_alone():
    whole, _ = RandomProjection(dim=8).apply([table()])
    part = VectorTable("item", ("x",), table().vectors[3:4], np.ones(1, bool))
    alone, _ = RandomProjection(dim=8).apply([part])
    np.testing.assert_allclose(alone.vectors[0], whole.vectors[3], rtol=1e-5)
    other, info = RandomProjection(dim=8, seed=1).apply([table()])
    assert not np.allclose(other.vectors, whole.vectors) and info == {"seed": 1, "from": 300}


def test_the_matrix_is_the_frozen_one():
    eye = VectorTable("item", tuple("abcd"), np.eye(4, dtype=np.float32), np.ones(4, bool))
    out, _ = RandomProjection(dim=1).apply([eye])
    np.testing.assert_allclose(out.vectors[:, 0], [1.76405235, 0.40015721, 0.97873798, 2.2408932])


def test_wider_than_the_source_is_refused():
    with pytest.raises(ValueError, match="width 300"):
        RandomProjection(dim=301).apply([table()])
