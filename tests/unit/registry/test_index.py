from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llmers_pipelines.registry import index as module
from llmers_pipelines.registry.index import (
    IndexSettings,
    build_index,
    load_index,
    measure_recall,
    suggested_index,
)


def vectors(n: int = 3000, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Clustered vectors of different lengths, as trained item tables are."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(40, dim))[rng.integers(0, 40, n)]
    rows = (centre + 0.5 * rng.normal(size=(n, dim))) * np.exp(0.3 * rng.normal(size=(n, 1)))
    return np.vstack([np.full((1, dim), 99), rows]).astype(np.float32)  # padding scores highest


def expected(table: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    return [(1 + np.argsort(-(table[1:] @ q), kind="stable")[:k]).tolist() for q in queries]


def test_flat_is_exact_and_never_finds_padding() -> None:
    table, queries = vectors(), vectors(seed=1)[1:20]
    scores, found = build_index(table, IndexSettings()).search(queries, 7)
    assert found.tolist() == expected(table, queries, 7)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ table.T, found, 1), rtol=1e-4)


def test_without_faiss_every_kind_is_exact(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    table, queries = vectors(), vectors(seed=1)[1:20]
    for kind in module.KINDS:
        made = build_index(table, IndexSettings(kind), unit=True)
        assert made.faiss_index is None and made.kind == "flat" and made.recall == 1.0
        assert made.search(queries, 7)[1].tolist() == expected(table, queries, 7)
        made.save(tmp_path / "index")
        assert not (tmp_path / "index").exists()
        assert load_index(None, table, made.describe()).describe() == made.describe()


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "ivf8"])
def test_effort_rises_until_the_measured_recall_suffices(kind: str, tmp_path: Path) -> None:
    table, queries = vectors(), vectors(seed=1)[1:257]
    low = build_index(table, IndexSettings(kind, target_recall=0.0, k=10), queries=queries)
    high = build_index(table, IndexSettings(kind, target_recall=0.99, k=10), queries=queries)
    assert high.recall >= 0.99 and high.effort >= low.effort
    hits = [
        len(set(a) & set(b)) / 10
        for a, b in zip(high.search(queries, 10)[1].tolist(), expected(table, queries, 10),
                        strict=True)
    ]  # fmt: skip
    assert np.isclose(np.mean(hits), high.recall) and high.measured_on == 256
    high.save(tmp_path / "index")
    again = load_index(tmp_path / "index", table, high.describe())
    assert again.describe() == high.describe()
    np.testing.assert_array_equal(again.search(queries, 10)[1], high.search(queries, 10)[1])


def test_what_bytes_find_is_scored_again_from_the_vectors() -> None:
    table, queries = vectors(), vectors(seed=1)[1:65]
    made = build_index(table, IndexSettings("ivf8", k=10, target_recall=0.999), queries=queries)
    scores, found = made.search(queries, 10)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ table.T, found, 1), rtol=1e-4)
    assert (np.diff(scores) <= 0).all()
    coarse = made.faiss_index.search(queries, 10)[0]
    assert np.abs(coarse - scores).max() > 1e-3  # bytes alone are less exact
    few = build_index(vectors(30), IndexSettings("ivf8", k=5, cells=4), queries=queries)
    scores, found = few.search(queries, 50)
    assert scores.shape == found.shape == (64, 50)
    assert (np.isneginf(scores) == (found == 0)).all() and (found == 0).any()


def test_effort_is_no_more_than_the_recall_needs(monkeypatch) -> None:
    tried: list[int] = []

    def needs_21(index, queries, k, exact, seen):
        tried.append(index.faiss_index.nprobe)
        return 0.995 if tried[-1] >= 21 else 0.9

    monkeypatch.setattr(module, "measure_recall", needs_21)
    made = build_index(vectors(), IndexSettings("ivf", k=10, cells=50))
    assert tried[:4] == [4, 8, 16, 32] and 21 <= made.effort <= 24  # within an eighth
    assert made.faiss_index.nprobe == made.effort and made.recall == 0.995


def test_index_that_cannot_reach_its_target_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_EFFORT", 16)
    table, queries = vectors(), vectors(seed=1)[1:257]
    made = build_index(table, IndexSettings("hnsw", target_recall=1.0, links=4), queries=queries)
    assert (made.kind, made.recall) == ("flat", 1.0)
    assert made.search(queries[:5], 7)[1].tolist() == expected(table, queries[:5], 7)


def test_recall_of_a_wrong_index_is_low() -> None:
    table, queries = vectors(), vectors(seed=1)[1:50]
    made = build_index(table, IndexSettings())
    assert measure_recall(made, queries, 10) == 1.0
    made.vectors = vectors(seed=2)
    assert measure_recall(made, queries, 10) < 0.1


def test_index_of_another_item_table_is_refused(tmp_path: Path) -> None:
    made = build_index(vectors(500), IndexSettings("hnsw"))
    made.save(tmp_path / "index")
    with pytest.raises(ValueError, match="500 vectors of width 16; the item table has 499"):
        load_index(tmp_path / "index", vectors(499), made.describe())


def test_more_wanted_than_there_is() -> None:
    table = vectors(3)
    for made in (build_index(table, IndexSettings()), module.ItemIndex(table)):
        scores, found = made.search(table[1:2], 5)
        assert sorted(found[0, :3].tolist()) == [1, 2, 3] and found[0, 3:].tolist() == [0, 0]
        assert np.isneginf(scores[0, 3:]).all()


def test_exact_search_in_blocks_equals_one_pass(monkeypatch) -> None:
    table, queries = vectors(300), vectors(50, seed=1)[1:]
    whole = module._exact(table, queries, 5)
    monkeypatch.setattr(module, "BLOCK", 700)
    for a, b in zip(whole, module._exact(table, queries, 5), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_wrong_settings_and_queries_are_named() -> None:
    with pytest.raises(ValueError, match="index kind 'tree'; expected one of flat, hnsw"):
        IndexSettings("tree")
    with pytest.raises(ValueError, match=r"expected \(B, 16\)"):
        build_index(vectors(20), IndexSettings()).search(np.zeros((2, 15), np.float32), 3)


def test_small_catalogs_are_scanned() -> None:
    assert suggested_index(20_000) is None
    assert suggested_index(1_000_000).kind == "ivf8"


def test_seen_items_are_left_out_and_the_next_ones_take_their_place() -> None:
    found = np.array([[4, 2, 7, 1], [3, 5, 0, 0]])
    seen = [np.array([2, 4]), np.array([9])]
    assert module.unseen(found, seen, 3).tolist() == [[7, 1, 0], [3, 5, 0]]
    assert module.unseen(found, None, 2).tolist() == [[4, 2], [3, 5]]


def test_effort_suffices_for_users_who_have_seen_what_is_nearest() -> None:
    table, queries = vectors(6000), vectors(seed=1)[1:201]
    near = np.array(expected(table, queries, 400))
    count = [0] * 140 + [200] * 50 + [400] * 10
    seen = [row[:n] for row, n in zip(near, count, strict=True)]
    settings = IndexSettings("ivf", k=10)
    plain = build_index(table, settings, queries=queries)
    held = build_index(table, settings, queries=queries, seen=seen)
    heavy = slice(140, 190)
    assert plain.most == 10 and held.most == 210  # a user with 400 is not what it is made for
    assert measure_recall(plain, queries[heavy], 10, seen=seen[heavy]) < 0.95
    assert measure_recall(held, queries[heavy], 10, seen=seen[heavy]) >= 0.99
    assert held.recall >= 0.99 and held.measured_on == 190


def test_index_of_an_older_bundle_holds_for_what_it_was_measured_at(tmp_path: Path) -> None:
    made = build_index(vectors(500), IndexSettings("ivf"))
    made.save(tmp_path / "index")
    old = {k: v for k, v in made.describe().items() if k != "most"}
    assert load_index(tmp_path / "index", vectors(500), old).most == 50
