import numpy as np
import pytest

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive import neighbours
from llmers_pipelines.derive.neighbours import NearestNeighbours


def table(vectors, ids=None, mask=None, entity="user"):
    vectors = np.asarray(vectors, np.float32)
    ids = ids or [f"{entity}{k:05d}" for k in range(len(vectors))]
    mask = np.ones(len(vectors), bool) if mask is None else np.asarray(mask)
    return VectorTable(entity, tuple(ids), vectors, mask)


def of(out, who):
    column = out.column_names[0]
    return [(r["other_id"], r["rank"]) for r in out.to_pylist() if r[column] == who]


def brute_force(source, k):
    """Neighbours by (-cosine, id), one row at a time."""
    unit = source.vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    want = []
    for row, name in enumerate(source.ids):
        cos = unit @ unit[row]
        others = [o for o in range(len(unit)) if o != row]
        others.sort(key=lambda o: (-round(float(cos[o]), 7), source.ids[o]))
        want += [(name, rank, source.ids[o]) for rank, o in enumerate(others[:k], 1)]
    return want


def found(out):
    columns = [out.column(i).to_pylist() for i in range(3)]
    return list(zip(*columns, strict=True))


def test_golden_case():
    source = table([[1, 0], [1, 0.1], [0, 1], [-1, 0]], ids=["a", "b", "c", "d"])
    out, info = NearestNeighbours(k=2).apply([source])
    assert out.column_names == ["user_id", "rank", "other_id", "cos"]
    assert of(out, "a") == [("b", 1), ("c", 2)] and of(out, "d") == [("c", 1), ("b", 2)]
    assert out["cos"][0].as_py() == pytest.approx(1 / np.sqrt(1.01), abs=1e-6)
    assert info == {"search": "exact", "rows": 4, "distinct": 4, "left_out": 0}


def test_exact_search_equals_brute_force_over_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "SCORES", 7 * 60)
    monkeypatch.setattr(neighbours, "GATHERED", 100)
    source = table(np.random.default_rng(0).normal(size=(60, 5)))
    out, _ = NearestNeighbours(k=4).apply([source])
    assert found(out) == brute_force(source, 4)


def test_self_is_removed_by_id_among_duplicates():
    others = np.random.default_rng(0).normal(size=(20, 2))
    vectors = np.concatenate([np.tile([[1.0, 2.0]], (40, 1)), others])
    source = table(vectors[np.random.default_rng(1).permutation(60)])
    for k in (1, 3, 10, 59, 80):
        out, info = NearestNeighbours(k=k).apply([source])
        assert info["distinct"] == 21
        assert not any(a == b for a, _, b in found(out))
        assert found(out) == brute_force(source, k)


def test_ties_go_to_the_smaller_id_whatever_the_row_order():
    ids = ["m", "z", "a", "k"]
    source = table([[1, 0], [0, 1], [0, -1], [0, 1]], ids=ids)
    assert of(NearestNeighbours(k=3).apply([source])[0], "m") == [("a", 1), ("k", 2), ("z", 3)]
    turned = table(source.vectors[::-1], ids=ids[::-1])
    one, two = (NearestNeighbours(k=3).apply([t])[0] for t in (source, turned))
    assert sorted(found(one)) == sorted(found(two))
    assert one["user_id"].to_pylist()[::3] == ids  # rows come in the order of the table


def test_rows_without_knowledge_have_no_neighbours_and_are_none():
    vectors = [[1, 0], [1, 0], [0, 0], [0, 1]]
    source = table(vectors, ids=list("abcd"), mask=[True, False, True, True])
    out, info = NearestNeighbours(k=5).apply([source])
    assert found(out) == [("a", 1, "d"), ("d", 1, "a")] and info["left_out"] == 2


@pytest.mark.parametrize("mask", [[False, False], [True, False]])
def test_nothing_to_compare_gives_an_empty_table_of_the_same_columns(mask):
    out, _ = NearestNeighbours().apply([table(np.eye(2), mask=mask, entity="item")])
    assert out.num_rows == 0
    assert [str(t) for t in out.schema.types] == ["string", "int32", "string", "float"]
    assert out.column_names[0] == "item_id"


def test_centring_takes_out_the_common_direction():
    vectors = np.array([[10, 1], [10, 1.1], [10, -1], [10, -1.1]])
    raw = NearestNeighbours(k=3).apply([table(vectors)])[0]["cos"].to_numpy()
    out, _ = NearestNeighbours(k=3, centre=True).apply([table(vectors)])
    assert raw.min() > 0.97 and out["cos"].to_numpy().min() == pytest.approx(-1)


def test_large_sets_use_an_inverted_file_and_report_recall():
    centres = np.random.default_rng(0).normal(size=(60, 16)) * 3
    noise = np.random.default_rng(1).normal(size=(3000, 16)) * 0.3
    source = table(np.repeat(centres, 50, axis=0) + noise)
    exact, _ = NearestNeighbours(k=5).apply([source])
    out, info = NearestNeighbours(k=5, exact_below=1000).apply([source])
    assert info["search"] == "ivf" and info["recall"] >= 0.98
    same = set(found(out)) & set(found(exact))
    assert len(same) / exact.num_rows > 0.97
    again, _ = NearestNeighbours(k=5, exact_below=1000).apply([source])
    assert again.equals(out)


def test_k_must_be_positive():
    with pytest.raises(ValueError, match="k=0"):
        NearestNeighbours(k=0)


def test_candidates_do_not_keep_all_cosines_in_memory():
    unit = np.eye(50, dtype=np.float32)
    assert neighbours._top(unit, slice(0, 5), 3).base is None
