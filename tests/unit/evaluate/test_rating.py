"""Rating errors: per row in the points, by user in the resamples."""

from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.data.training import TEST
from llmers_pipelines.evaluate import rating
from llmers_pipelines.evaluate.cells import align, card
from llmers_pipelines.evaluate.compare import compare
from llmers_pipelines.evaluate.gate import decide
from llmers_pipelines.evaluate.predict import rating_table
from llmers_pipelines.evaluate.slices import standard_slices
from llmers_pipelines.testing.contract import contract_data


class Fixed:
    def __init__(self, values):
        self.values = values

    def predict(self, rows):
        return self.values[rows]


@pytest.fixture(scope="module")
def data():
    return contract_data("rating")


def table(data, error, seed=0, split=TEST):
    noise = np.random.default_rng(seed).normal(0, error, len(data.user))
    return rating_table(Fixed(data.rating + noise), data, split)


def test_a_table_has_every_row_of_the_split(data):
    found = table(data, 0.0)
    at = np.flatnonzero(data.split == TEST)
    assert found.column_names == ["user_id", "user", "item", "row", "rating", "p"]
    assert found["row"].to_pylist() == at.tolist()
    assert found["rating"].to_pylist() == found["p"].to_pylist() == data.rating[at].tolist()
    assert rating.metrics(found) == {"rmse": 0.0, "mae": 0.0}
    assert rating.metrics(found.slice(0, 0)) == {"rmse": None, "mae": None}


def test_predictions_that_are_no_numbers_are_refused(data):
    bad = np.full(len(data.user), np.nan)
    with pytest.raises(ValueError, match="expected a number"):
        rating_table(Fixed(bad), data, TEST)
    with pytest.raises(ValueError, match="lacks ratings"):
        rating_table(Fixed(bad), contract_data("sequential"), TEST)


def test_resamples_draw_users_with_all_their_rows(data):
    cells = {("a", 0): table(data, 0.5, 1), ("a", 1): table(data, 0.5, 2), ("b", 0): table(data, 1)}
    aligned = align(cells)
    assert aligned.kind == "rating"
    assert aligned.usual() == ("rmse", ("rmse", "mae"))
    every = np.ones(aligned.rows.num_rows, bool)
    found = card(aligned, every, ["rmse", "mae"], resamples=400, seed=3)
    truth = aligned.rows["rating"].to_numpy()
    errors = [t["p"].to_numpy() - truth for t in aligned.arms["a"].values()]
    expected = np.mean([np.sqrt((e**2).mean()) for e in errors])
    assert found.value("a", "rmse") == pytest.approx(expected)
    assert found.value("a", "mae") == pytest.approx(np.mean([np.abs(e).mean() for e in errors]))
    user = aligned.rows["user"].to_numpy()
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        picked = rng.choice(np.unique(user), len(np.unique(user)))
        rows = np.concatenate([np.flatnonzero(user == u) for u in picked])
        drawn.append(np.mean([np.sqrt((e[rows] ** 2).mean()) for e in errors]))
    for q in (10, 50, 90):
        mine, theirs = np.percentile(found.draws["a"]["rmse"], q), np.percentile(drawn, q)
        assert mine == pytest.approx(theirs, rel=0.05)


def test_a_smaller_error_is_the_better_one(data):
    errors = {"base": 1.0, "enhanced": 0.5, "permuted": 0.9}
    cells = {(a, s): table(data, e, s) for a, e in errors.items() for s in range(3)}
    made = compare(cells, slices=standard_slices(data), resamples=500)
    assert made.primary == "rmse"
    row = made.headline
    assert row["difference"] < 0
    assert row["high"] < 0
    assert row["test"] == "bootstrap"
    assert made.verdict.status == "not shown", "no reference stood beside it"
    made = compare(cells | {("ref", None): table(data, 2.0)}, references=["ref"], resamples=500)
    assert made.verdict.status == "claimed", made.verdict
    worse = compare({("base", s): cells["enhanced", s] for s in range(3)}
                    | {("enhanced", s): cells["base", s] for s in range(3)},
                    resamples=500)  # fmt: skip
    assert worse.verdict.status == "not shown"


def test_the_gate_reads_errors(data):
    good, bad = table(data, 0.5, 1, split=1), table(data, 1.0, 2, split=1)
    assert decide(good, champion=bad, reference=bad, resamples=500).promote
    assert not decide(bad, champion=good, reference=good, resamples=500).promote


def test_tables_of_other_ratings_are_not_compared(data):
    one = table(data, 0.5)
    other = one.set_column(4, "rating", one["rating"].combine_chunks().slice(0)).set_column(
        4, "rating", [np.asarray(one["rating"]) + 1]
    )
    with pytest.raises(ValueError, match="'rating'"):
        align({("a", 0): one, ("b", 0): other})
