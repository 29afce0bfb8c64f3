from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.evaluate import ctr
from llmers_pipelines.evaluate.compare import compare, correct_primaries
from llmers_pipelines.evaluate.predict import ctr_table, rank_table
from llmers_pipelines.evaluate.ranking import user_values
from llmers_pipelines.evaluate.significance import paired_t
from llmers_pipelines.evaluate.slices import standard_slices

FAST = {"resamples": 400}


@pytest.fixture
def experiment(random_log, fixed):
    """Arms whose strength is known: the score of the target is raised by ``skill``."""
    data = random_log(300, 60)
    target = data.item[data.split == TEST]

    def cell(skill: float, seed: int) -> pa.Table:
        rng = np.random.default_rng([seed, 7])
        scores = np.random.default_rng(0).standard_normal((301, 61))  # what all arms share
        scores = scores + 0.05 * rng.standard_normal(scores.shape)
        scores[np.arange(1, 301), target] += skill
        return rank_table(fixed(scores), data, TEST)

    def cells(seeds=(0, 1, 2), enhanced=1.8):
        out = {("itemknn", None): cell(1.0, 99)}
        for s in seeds:
            out["base", s] = cell(1.0, s)
            out["enhanced", s] = cell(enhanced, s + 10)
            out["permuted", s] = cell(1.0, s + 20)
        return out

    return data, cells


def run(cells, **options):
    return compare(cells, references=["itemknn"], **{**FAST, **options})


def test_rows_hold_means_differences_and_intervals(experiment):
    data, cells = experiment
    made = cells()
    result = run(made, slices=standard_slices(data), metrics=["ndcg@10", "hr@10"])
    row = result.headline
    assert (row["metric"], row["slice"]) == ("ndcg@10", "all")
    per_seed = {
        arm: [user_values(made[arm, s], ["ndcg@10"]).means()["ndcg@10"] for s in range(3)]
        for arm in ("base", "enhanced")
    }
    assert row["base"] == pytest.approx(np.mean(per_seed["base"]))
    assert row["enhanced"] == pytest.approx(np.mean(per_seed["enhanced"]))
    assert row["difference"] == pytest.approx(row["enhanced"] - row["base"])
    assert row["relative"] == pytest.approx(row["difference"] / row["base"])
    assert row["low"] < row["difference"] < row["high"]
    steps = np.subtract(per_seed["enhanced"], per_seed["base"])
    assert row["seed_sd"] == pytest.approx(steps.std(ddof=1)) and row["seeds"] == 3
    assert row["base_sd"] == pytest.approx(np.std(per_seed["base"], ddof=1))
    permuted = row["control_permuted"]
    assert row["control_permuted_difference"] == pytest.approx(row["enhanced"] - permuted)
    assert row["control_permuted_low"] > 0
    assert row["reference_itemknn_low"] < 0 < row["reference_itemknn_high"]
    assert len(result.rows) == 2 * len(standard_slices(data))
    assert result.controls == ("permuted",) and result.references == ("itemknn",)


def test_seeds_are_averaged_per_user_before_the_test(experiment):
    _, cells = experiment
    made = cells()
    vectors = {
        arm: np.mean([user_values(made[arm, s]).values["ndcg@10"] for s in range(3)], axis=0)
        for arm in ("base", "enhanced")
    }
    expected = paired_t(vectors["enhanced"] - vectors["base"]).p
    assert run(made).headline["p"] == pytest.approx(expected)
    assert run(made).headline["test"] == "paired t"


def test_the_primary_stands_alone_and_the_rest_is_one_family(experiment):
    _, cells = experiment
    rows = run(cells(enhanced=1.15), metrics=["ndcg@10", "mrr@10", "ndcg@5"]).rows
    assert rows[0]["p_corrected"] == rows[0]["p"]
    rest = sorted(r["p"] for r in rows[1:])
    smallest = min(rows[1:], key=lambda r: r["p"])
    assert smallest["p_corrected"] == pytest.approx(min(1, 2 * rest[0]))


def test_claims_follow_the_rule(experiment):
    _, cells = experiment
    assert run(cells()).verdict.status == "claimed"
    assert run(cells(seeds=(0,))).verdict.status == "exploratory"
    assert "interval over users" in str(run(cells(enhanced=1.0)).verdict)
    assert "'contaminated'" in str(run(cells(), marks=["contaminated"]).verdict)
    without = {k: t for k, t in cells().items() if k[0] not in ("permuted", "itemknn")}
    verdict = compare(without, **FAST).verdict
    assert len(verdict.reasons) == 2 and "no control" in verdict.reasons[1]
    strong = {**cells(), ("text_knn", None): cells(enhanced=3.0)["enhanced", 0]}
    verdict = compare(strong, references=["itemknn", "text_knn"], **FAST).verdict
    assert "weaker than the reference text_knn" in str(verdict)


def test_one_seed_hits_use_mcnemar(experiment):
    _, cells = experiment
    rows = run(cells(seeds=(0,)), metrics=["hr@10"]).rows
    assert [r["test"] for r in rows] == ["paired t", "exact McNemar"]


def test_arms_without_randomness_pair_with_every_seed(experiment):
    _, cells = experiment
    made = cells()
    made = {k: t for k, t in made.items() if k[0] != "base"} | {("base", None): made["base", 0]}
    row = run(made).headline
    assert row["seeds"] == 3 and row["base_sd"] is None and row["seed_sd"] > 0
    both = {("base", None): made["base", None], ("enhanced", None): made["enhanced", 0],
            ("permuted", None): made["permuted", 0]}  # fmt: skip
    row = compare(both, **FAST).headline
    assert row["seeds"] == 1 and row["seed_sd"] == 0.0


def test_empty_slices_are_null_everywhere(experiment):
    data, cells = experiment
    result = run(cells(), slices=standard_slices(data))
    cold = [r for r in result.rows if r["slice"] == "cold_users"]
    assert {r["enhanced"] for r in cold} == {None} and {r["users"] for r in cold} == {0}
    assert {r["claim"] for r in cold} == {"not shown"}
    table = result.table()
    assert table.num_rows == len(result.rows) and table["low"].null_count >= 3
    assert "NaN" not in result.to_json() and json.loads(result.to_json())["primary"] == "ndcg@10"


def test_tables_about_different_things_are_refused(experiment, random_log, fixed):
    data, cells = experiment
    made = cells(seeds=(0,))
    other = random_log(300, 60, seed=1)
    foreign = rank_table(fixed(np.zeros((301, 61))), other, TEST)
    with pytest.raises(ValueError, match="different data"):
        compare({**made, ("late", 0): foreign})
    valid = rank_table(fixed(np.zeros((301, 61))), data, VALID)
    with pytest.raises(ValueError, match="different split"):
        compare({**made, ("late", 0): valid})
    bare = foreign.replace_schema_metadata(None)
    with pytest.raises(ValueError, match="different targets or candidates"):
        compare({**made, ("late", 0): bare})
    with pytest.raises(ValueError, match="different targets"):
        compare({**made, ("late", 0): made["base", 0].slice(1)})
    with pytest.raises(ValueError, match="no table for the arm 'enhanced'"):
        compare({("base", 0): made["base", 0]})
    with pytest.raises(ValueError, match="no column 'n_candidates'"):
        compare({**made, ("late", 0): made["base", 0].drop_columns(["n_candidates"])})


def test_sampled_ranks_are_refused(experiment):
    _, cells = experiment
    made = cells(seeds=(0,))
    stamp = {**made["base", 0].schema.metadata, b"sampled": b"100u"}
    made["base", 0] = made["base", 0].replace_schema_metadata(stamp)
    with pytest.raises(ValueError, match="sampled negatives"):
        run(made)


def test_row_order_of_the_tables_does_not_matter(experiment):
    _, cells = experiment
    made = cells()
    rng = np.random.default_rng(0)
    shuffled = {k: t.take(pa.array(rng.permutation(t.num_rows))) for k, t in made.items()}
    assert run(shuffled).rows == run(made).rows


def test_leaderboards_correct_over_methods(experiment):
    _, cells = experiment
    many = [run(cells(enhanced=e)) for e in (1.1, 1.2)]
    p = [c.headline["p"] for c in many]
    corrected = correct_primaries(many)
    assert min(corrected) == pytest.approx(min(1, 2 * min(p)))


@pytest.fixture
def clicked(make_log, clicks):
    rng = np.random.default_rng(0)
    rows = []
    for u in range(1, 61):
        taste = rng.random()
        for j in range(20):
            split = TRAIN if j < 8 else TEST
            rows.append((u, int(rng.integers(1, 15)), split, int(rng.random() < taste)))
    data = make_log(rows, 60, 15, task="ctr")

    def cell(skill: float, seed: int) -> pa.Table:
        noise = np.random.default_rng([seed, 3]).standard_normal(len(data.user))
        shared = np.random.default_rng(1).standard_normal(len(data.user))
        logit = skill * (data.label - 0.5) + shared + 0.1 * noise
        return ctr_table(clicks(1 / (1 + np.exp(-logit))), data, TEST)

    return data, cell


def test_clicks_are_compared_on_auc_with_intervals_over_users(clicked):
    data, cell = clicked
    cells = {("popularity", None): cell(0.2, 50)}
    for s in range(3):
        cells["base", s], cells["enhanced", s] = cell(1.0, s), cell(2.0, s + 10)
        cells["gaussian", s] = cell(1.0, s + 20)
    result = compare(cells, references=["popularity"], slices=standard_slices(data), resamples=3000)
    row = result.headline
    expected = [ctr.metrics(cells["enhanced", s])["auc"] for s in range(3)]
    assert row["metric"] == "auc" and row["enhanced"] == pytest.approx(np.mean(expected))
    assert row["low"] < row["difference"] < row["high"] and row["test"] == "bootstrap"
    assert row["relaimpr"] == pytest.approx(ctr.relaimpr(row["enhanced"], row["base"]))
    assert row["p"] == pytest.approx(2 / 3001)
    assert result.verdict.status == "claimed"
    rows = {r["metric"]: r for r in result.rows if r["slice"] == "all"}
    for metric in ("gauc", "logloss", "ne"):
        assert rows[metric]["low"] < rows[metric]["difference"] < rows[metric]["high"]
    assert rows["logloss"]["difference"] < 0 and rows["logloss"]["claim"] == "claimed"
    assert rows["ece"]["low"] is None and rows["ece"]["p"] is None
    assert rows["ece"]["claim"] == "not shown"


def test_draws_of_ratios_centre_on_the_metric(clicked):
    _, cell = clicked
    from llmers_pipelines.evaluate.cells import align, card

    table = cell(1.5, 0)
    every = np.ones(table.num_rows, bool)
    c = card(align({("a", 0): table}), every, list(ctr.METRICS), resamples=4000, seed=0)
    for metric in ("auc", "gauc", "logloss", "ne"):
        draws = c.draws["a"][metric]
        value = c.value("a", metric)
        assert abs(draws.mean() - value) < 0.25 * draws.std(), metric
        assert 0 < draws.std() < 0.1
