import numpy as np
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.columns import ColumnSelect, by_variance, evenly, most_interacted

pytestmark = pytest.mark.proof("llm_init", "equations")

CARD = np.array([[0, 1, 5, 0], [0, 2, 1, 0], [0, 3, 9, 1]], np.float32)


def vectors(values, mask=None):
    n = len(values)
    ids = tuple(f"i{k}" for k in range(n))
    return VectorTable("item", ids, values, np.ones(n, bool) if mask is None else mask)


def log_of(counts, held_out=()):
    """A log in which item k has counts[k] training rows."""
    item = np.concatenate([np.repeat(np.arange(1, len(counts) + 1), counts), held_out]).astype(int)
    split = np.full(len(item), TRAIN, np.int8)
    split[len(item) - len(held_out) :] = TEST
    ids = IdMap(tuple(f"i{k}" for k in range(len(counts))))
    n = len(item)
    return TrainingData(
        "collaborative", IdMap(("u",)), ids, np.ones(n, int), item, np.arange(n), split
    )


def test_golden_case_of_the_card():
    np.testing.assert_allclose(CARD.var(0, ddof=1), [0, 1, 16, 1 / 3])
    assert by_variance(CARD, 2).tolist() == [1, 2]
    out, info = ColumnSelect(dim=2, popular=1.0).apply([vectors(CARD)], log=log_of([1, 1, 1]))
    assert out.vectors.tolist() == [[1, 5], [2, 1], [3, 9]]
    assert info["columns"] == [1, 2] and info["popular_rows"] == 3 and not info["reused"]


def test_variance_is_taken_over_the_most_interacted_items_in_training():
    values = np.zeros((10, 3), np.float32)
    values[:2, 0] = [0, 5]  # the two popular items differ in column 0
    values[2:, 2] = np.arange(8) * 100  # the others in column 2
    counts = [9, 8] + [1] * 8
    log = log_of(counts, held_out=[10] * 50)  # test rows must not make item 10 popular
    assert ColumnSelect(dim=1).apply([vectors(values), log])[1]["columns"] == [0]
    every = ColumnSelect(dim=1, popular=1.0).apply([vectors(values)], log=log)
    assert every[1]["columns"] == [2]


def test_the_popular_share_is_never_fewer_than_two_and_ties_go_to_the_first():
    assert most_interacted(np.array([1, 3, 3, 2]), 0.2).tolist() == [1, 2]
    assert most_interacted(np.arange(10), 0.25).tolist() == [9, 8, 7]
    with pytest.raises(ValueError, match="needs two items"):
        most_interacted(np.array([1]), 0.2)


def test_evenly_spaced_columns():
    assert evenly(10, 3).tolist() == [0, 3, 6]
    assert evenly(768, 128).tolist() == list(range(0, 768, 6))
    out, _ = ColumnSelect(dim=2, how="uni").apply([vectors(CARD)])
    assert out.vectors.tolist() == [[0, 5], [0, 1], [0, 9]]


def test_random_columns_are_distinct_and_seeded():
    wide = vectors(np.tile(np.arange(50, dtype=np.float32), (3, 1)))
    drawn = ColumnSelect(dim=40, how="rand").apply([wide])[1]["columns"]
    assert len(set(drawn)) == 40 and drawn == sorted(drawn)
    assert ColumnSelect(dim=40, how="rand").apply([wide])[1]["columns"] == drawn
    assert ColumnSelect(dim=40, how="rand", seed=1).apply([wide])[1]["columns"] != drawn


def test_standardized_columns_are_safe_where_constant():
    mask = np.array([True, True, True, False])
    values = np.concatenate([CARD, [[8, 8, 8, 8]]]).astype(np.float32)
    out, _ = ColumnSelect(dim=4, how="uni", standardize=True).apply([vectors(values, mask)])
    own = out.vectors[:3]
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(own.std(0), [0, 1, 1, 1], atol=1e-6)
    assert np.isfinite(out.vectors).all()


def test_the_choice_is_kept_until_a_new_version(tmp_path):
    log = log_of([1, 1, 1])
    select = ColumnSelect(dim=2, popular=1.0)
    select.apply([vectors(CARD)], log=log, state_folder=tmp_path)
    grown = vectors(np.concatenate([CARD, [[50, 0, 0, 90], [-50, 0, 0, -90]]]).astype(np.float32))
    log = log_of([1] * 5)
    kept = select.apply([grown], log=log, state_folder=tmp_path)[1]
    assert kept["columns"] == [1, 2] and kept["reused"]
    again = ColumnSelect(dim=2, popular=1.0, version=2)
    assert again.apply([grown], log=log, state_folder=tmp_path)[1]["columns"] == [0, 3]


def test_impossible_requests_name_the_mend():
    with pytest.raises(ValueError, match="expected one of var, uni, rand"):
        ColumnSelect(how="best")
    with pytest.raises(ValueError, match="width 4"):
        ColumnSelect(dim=5, how="uni").apply([vectors(CARD)])
    users = VectorTable("user", ("a", "b", "c"), CARD, np.ones(3, bool))
    with pytest.raises(ValueError, match="reads item vectors"):
        ColumnSelect(dim=2).apply([users], log=log_of([1, 1, 1]))
