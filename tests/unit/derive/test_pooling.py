import numpy as np
import pytest

from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.pooling import DECAYS, HistoryPooling, decay_weights, pool_history

pytestmark = pytest.mark.proof("llm2x", "equations")


def test_golden_case_of_the_card():
    rows = np.array([[1, 0], [0, 1], [1, 1]])
    np.testing.assert_allclose(pool_history(rows, "harmonic"), [0.7273, 0.8182], atol=5e-5)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("none", [1, 1, 1, 1]),
        ("linear", [0.7, 0.8, 0.9, 1]),
        ("scaled", [0.25, 0.5, 0.75, 1]),
        ("scaled2", [0.0625, 0.25, 0.5625, 1]),
        ("scaled3", [0.015625, 0.125, 0.421875, 1]),
        ("log", [1 / (np.log(4) + 1), 1 / (np.log(3) + 1), 1 / (np.log(2) + 1), 1]),
        ("harmonic", [0.25, 1 / 3, 0.5, 1]),
        ("harmonic2", [1 / 16, 1 / 9, 0.25, 1]),
        ("last", [0, 0, 0, 1]),
    ],
)
def test_decays_oldest_first(decay, expected):
    np.testing.assert_allclose(decay_weights(decay, 4), expected)


def test_linear_decay_never_reaches_zero():
    assert decay_weights("linear", 30).min() == 1e-5 and len(DECAYS) == 9


def test_users_are_pooled_from_training_rows_with_text():
    items = VectorTable(
        "item", ("a", "b", "c", "d"),
        np.array([[1, 0], [0, 1], [1, 1], [9, 9]], np.float32), np.array([True, True, True, False]),
    )  # fmt: skip
    log = TrainingData(
        "sequential", IdMap(("u", "v", "w")), IdMap(("d", "c", "b", "a")),
        user=np.array([1, 1, 1, 1, 1, 1, 2, 3]),
        item=np.array([4, 3, 2, 1, 4, 4, 1, 3]),
        time=np.arange(8),
        split=np.array([HISTORY, TRAIN, TRAIN, TRAIN, VALID, TEST, TRAIN, TEST], np.int8),
    )  # fmt: skip
    pooling = HistoryPooling()
    out, info = pooling.apply([items], log=log)
    assert out.entity == "user" and out.ids == ("u", "v", "w")
    np.testing.assert_allclose(out.vectors[0], [0.7273, 0.8182], atol=5e-5)  # item d has no text
    assert out.mask.tolist() == [True, False, False] and info == {"users": 1, "without_items": 2}
    assert (out.vectors[1] == out.vectors[0]).all()
    newest, _ = HistoryPooling(decay="none", last=1).apply([items, log])
    assert newest.vectors[0].tolist() == [1, 1]


def test_disliked_items_are_left_out():
    items = VectorTable("item", ("a", "b"), np.eye(2, dtype=np.float32), np.ones(2, bool))
    log = TrainingData(
        "ctr", IdMap(("u",)), IdMap(("a", "b")), np.array([1, 1]), np.array([1, 2]), np.arange(2),
        np.zeros(2, np.int8), label=np.array([1, 0], np.float32),
    )  # fmt: skip
    assert HistoryPooling().apply([items], log=log)[0].vectors.tolist() == [[1, 0]]


def test_where_a_cut_is_declared_no_row_that_is_a_label_is_pooled():
    items = VectorTable("item", ("a", "b"), np.eye(2, dtype=np.float32), np.ones(2, bool))
    log = TrainingData(
        "ctr", IdMap(("u",)), IdMap(("a", "b")), np.array([1, 1]), np.array([1, 2]), np.arange(2),
        np.array([HISTORY, TRAIN], np.int8), label=np.ones(2, np.float32),
    )  # fmt: skip
    assert HistoryPooling().apply([items], log=log)[0].vectors.tolist() == [[1, 0]]


def test_wrong_settings_and_inputs_are_named():
    with pytest.raises(ValueError, match="expected a decay of none, linear"):
        HistoryPooling(decay="fast")
    with pytest.raises(ValueError, match="expected one of"):
        decay_weights("fast", 3)
    users = VectorTable("user", ("a",), np.ones((1, 2), np.float32), np.ones(1, bool))
    with pytest.raises(ValueError, match="got user vectors"):
        HistoryPooling().apply([users])
