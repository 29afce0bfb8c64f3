import numpy as np
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.kept import ids_sha256
from llmers_pipelines.derive.pca import PCA, fit_pca

pytestmark = pytest.mark.proof("llm2x", "equations")


def table(n=40, width=6, seed=0, mask=None, entity="item"):
    scale = np.arange(width, 0, -1)
    vectors = (np.random.default_rng(seed).normal(size=(n, width)) * scale + 3).astype(np.float32)
    ids = tuple(f"i{k}" for k in range(n))
    return VectorTable(entity, ids, vectors, np.ones(n, bool) if mask is None else mask)


def grown(old, extra, changed=()):
    new = table(extra, old.dim, seed=9)
    vectors = np.concatenate([old.vectors, new.vectors])
    vectors[list(changed)] += 5
    ids = old.ids + tuple(f"new{k}" for k in range(extra))
    return VectorTable("item", ids, vectors, np.ones(len(ids), bool))


def test_golden_case_of_a_line_in_the_plane():
    points = np.array([[0, 0], [1, 2], [2, 4]], np.float32)  # along (1, 2) / sqrt 5
    out, info = PCA(dim=2).apply([VectorTable("item", ("a", "b", "c"), points, np.ones(3, bool))])
    np.testing.assert_allclose(out.vectors, [[-np.sqrt(5), 0], [0, 0], [np.sqrt(5), 0]], atol=1e-6)
    assert info["explained_variance"] == pytest.approx(1.0)
    assert info["explained_variance_ratio"] == [1.0, 0.0] and info["axes"] == 1


def test_agrees_with_a_singular_value_decomposition():
    source = table(200, 12)
    out, info = PCA(dim=5).apply([source])
    centred = source.vectors.astype(np.float64) - source.vectors.mean(0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(out.vectors), np.abs(u[:, :5] * s[:5]), atol=1e-4)
    share = s[:5] ** 2 / (s**2).sum()
    np.testing.assert_allclose(info["explained_variance_ratio"], share, atol=2e-6)


def test_the_largest_loading_of_every_axis_is_positive():
    fit, _ = fit_pca(table(50, 8).vectors, np.arange(50), 8)
    peak = np.abs(fit["components"]).argmax(1)
    assert (fit["components"][np.arange(8), peak] > 0).all()


def test_chunks_do_not_change_the_fit(monkeypatch):
    whole, _ = PCA(dim=3).apply([table()])
    monkeypatch.setattr("llmers_pipelines.derive.pca.CHUNK", 7)
    monkeypatch.setattr("llmers_pipelines.derive.derivation.CHUNK", 7)
    np.testing.assert_allclose(PCA(dim=3).apply([table()])[0].vectors, whole.vectors, atol=1e-6)


def test_constant_columns_and_few_rows_give_zeros_not_nan():
    source = table(3, 6)
    source.vectors[:, 2] = 7
    out, info = PCA(dim=6).apply([source])
    assert np.isfinite(out.vectors).all() and info["axes"] == 2
    assert not out.vectors[:, 2:].any() and out.dim == 6
    same = VectorTable("item", ("a", "b"), np.ones((2, 3), np.float32), np.ones(2, bool))
    out, info = PCA(dim=2).apply([same])
    assert not out.vectors.any() and info["explained_variance"] == 0.0


def test_fallback_rows_do_not_take_part_in_the_fit():
    mask = np.ones(40, bool)
    mask[30:] = False
    a, b = table(mask=mask), table(mask=mask)
    b.vectors[30:] += 100
    pa, pb = PCA(dim=3).apply([a])[0], PCA(dim=3).apply([b])[0]
    assert (pa.vectors[:30] == pb.vectors[:30]).all()
    assert (pa.mask == mask).all()


def test_the_mean_fallback_lands_on_the_mean():
    source = table(40, mask=np.arange(40) != 5)
    source.vectors[5] = source.vectors[source.mask].mean(0, dtype=np.float64)
    out, _ = PCA(dim=3).apply([source])
    np.testing.assert_allclose(out.vectors[5], 0, atol=1e-5)


def test_new_rows_meet_the_kept_fit_and_old_ones_stay(tmp_path):
    first, info = PCA(dim=3).apply([table()], state_folder=tmp_path)
    assert not info["reused"]
    second, info = PCA(dim=3).apply([grown(table(), 60, changed=[1])], state_folder=tmp_path)
    assert info["reused"] and info["fit_rows"] == 40
    unchanged = np.arange(40) != 1
    assert (second.vectors[:40][unchanged] == first.vectors[unchanged]).all()
    fresh, _ = PCA(dim=3).apply([grown(table(), 60)])
    assert not np.allclose(fresh.vectors[:40], first.vectors, atol=1e-3)


def test_a_new_version_or_refit_fits_again(tmp_path):
    PCA(dim=3).apply([table()], state_folder=tmp_path)
    more = grown(table(), 60)
    assert not PCA(dim=3, version=2).apply([more], state_folder=tmp_path)[1]["reused"]
    assert not PCA(dim=3, fit="refit").apply([more], state_folder=tmp_path)[1]["reused"]
    assert not PCA(dim=2).apply([more], state_folder=tmp_path)[1]["reused"]
    assert PCA(dim=3).apply([more], state_folder=tmp_path)[1]["reused"]


def test_another_encoder_gets_its_own_fit_and_the_first_is_found_again(tmp_path):
    one, other = table(seed=0), table(seed=5)
    first, _ = PCA(dim=3).apply([one], state_folder=tmp_path)
    second, info = PCA(dim=3).apply([other], state_folder=tmp_path)
    assert not info["reused"]
    assert (second.vectors == PCA(dim=3).apply([other])[0].vectors).all()
    again, info = PCA(dim=3).apply([one], state_folder=tmp_path)
    assert info["reused"] and (again.vectors == first.vectors).all()
    wider, info = PCA(dim=3).apply([table(width=9)], state_folder=tmp_path)
    assert not info["reused"] and wider.dim == 3


def test_warm_items_alone_are_fitted_on():
    source = table(10, 4)
    ids = IdMap(source.ids)
    item = np.array([1, 2, 3, 4, 5, 9])
    split = np.array([TRAIN] * 5 + [TEST], np.int8)
    log = TrainingData("sequential", IdMap(("u",)), ids, np.ones(6, int), item, np.arange(6), split)
    out, info = PCA(dim=2, on="warm").apply([source, log])
    assert info["fit_rows"] == 5 and info["fit_ids_sha256"] == ids_sha256(list(source.ids[:5]))
    fit, _ = fit_pca(source.vectors, np.arange(5), 2)
    expected = (source.vectors - fit["mean"]) @ fit["components"].T
    np.testing.assert_allclose(out.vectors, expected, atol=1e-5)
    with pytest.raises(ValueError, match="PCA needs the splits of a task"):
        PCA(dim=2, on="warm").apply([source])


def test_impossible_requests_name_the_mend():
    with pytest.raises(ValueError, match=r"PCA\(dim=7\).*width 6.*up to 6"):
        PCA(dim=7).apply([table()])
    with pytest.raises(ValueError, match="none of the 40 rows"):
        PCA(dim=2).apply([table(mask=np.zeros(40, bool))])
    with pytest.raises(ValueError, match="reduces one vector table; got nothing"):
        PCA().apply([])
    with pytest.raises(ValueError, match="expected fit 'reuse' or 'refit'"):
        PCA(fit="always")
