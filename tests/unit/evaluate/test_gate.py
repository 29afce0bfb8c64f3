from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.evaluate.gate import decide
from llmers_pipelines.evaluate.predict import ctr_table, rank_table

FAST = {"resamples": 500}


@pytest.fixture
def table(random_log, fixed):
    data = random_log(300, 50)

    def make(skill: float, seed: int = 0, split: int = VALID, log=data):
        scores = np.random.default_rng(seed).standard_normal((301, 51))
        scores[np.arange(1, 301), log.item[log.split == split]] += skill
        return rank_table(fixed(scores), log, split)

    return make


def test_a_better_model_is_promoted(table):
    decision = decide(table(2.0), table(1.0), table(0.5), **FAST)
    assert decision.promote
    assert decision.intervals["champion"].low > 0 and decision.intervals["reference"].low > 0
    assert any("is better than the champion" in r for r in decision.reasons)


def test_the_first_champion_is_better_than_the_reference_or_the_reference_itself(table):
    assert decide(table(1.0), None, table(0.5), **FAST).promote
    same = table(0.5)
    first = decide(same, None, same, is_reference=True, **FAST)
    assert first.promote and "it is the reference baseline itself" in first.reasons
    assert not decide(same, None, same, **FAST).promote  # any other model has a gain to show
    weak = decide(table(0.2, 1), None, table(1.0), **FAST)
    assert not weak.promote and "not shown to be better than the reference" in weak.reasons[1]


def test_a_higher_mean_without_an_interval_is_not_enough_against_the_reference(table):
    reference = table(0.5, 7)
    for seed in range(50):
        close = table(0.5, seed)
        gain = decide(close, None, reference, **FAST).intervals["reference"]
        if gain.difference > 0 and not gain.better:
            break
    assert gain.difference > 0
    assert not decide(close, None, reference, **FAST).promote
    assert not decide(close, table(-2.0), reference, **FAST).promote  # whatever the champion is


def test_a_refresh_of_the_champions_method_is_only_refused_where_it_is_shown_worse(table):
    before, reference = table(1.0, 1), table(1.0, 2)
    alike = table(1.0, 3)
    assert not decide(alike, before, reference, **FAST).promote
    kept = decide(alike, before, reference, is_refresh=True, **FAST)
    assert kept.promote and all("not shown to be worse" in r for r in kept.reasons)
    for champion, fixed in ((table(3.0), reference), (before, table(3.0))):
        fallen = decide(alike, champion, fixed, is_refresh=True, **FAST)
        assert not fallen.promote and any("(a refresh) is worse" in r for r in fallen.reasons)


def test_no_shown_gain_is_no_promotion(table):
    equal = decide(table(1.0, 1), table(1.0, 2), table(0.5), **FAST)
    assert not equal.promote and any("not shown to be better" in r for r in equal.reasons)
    worse = decide(table(0.5), table(1.5), table(0.2), **FAST)
    assert not worse.promote and worse.intervals["champion"].high < 0


def test_better_than_a_weak_champion_but_below_the_reference_is_refused(table):
    decision = decide(table(1.0), table(0.0), table(2.0), **FAST)
    assert decision.intervals["champion"].better and not decision.promote


@pytest.mark.parametrize("mark", ["contaminated", "labels_seen", "memorised"])
def test_marked_results_are_refused_with_the_reason(table, mark):
    decision = decide(table(2.0), None, table(0.5), marks=[mark, "exploratory"])
    assert not decision.promote and len(decision.reasons) == 1
    assert decision.reasons[0].startswith(f"marked {mark}:")


def test_other_marks_do_not_matter(table):
    assert decide(table(2.0), None, table(0.5), marks=["exploratory"], **FAST).promote


def test_test_tables_never_decide(table):
    decision = decide(table(2.0, split=TEST), None, table(0.5, split=TEST))
    assert not decision.promote and len(decision.reasons) == 2
    assert "split test, expected valid" in decision.reasons[0]
    bare = table(2.0).replace_schema_metadata(None)
    assert "split unknown" in decide(bare, None, table(0.5)).reasons[0]


def test_a_missing_reference_or_other_data_refuse(table, random_log):
    assert "no table of the fixed reference" in decide(table(2.0), None, None).reasons[0]
    foreign = table(0.5, log=random_log(300, 50, seed=3))
    decision = decide(table(2.0), foreign, table(0.5))
    assert not decision.promote and "different data" in decision.reasons[0]


def test_clicks_are_decided_on_auc(make_log, clicks):
    rng = np.random.default_rng(0)
    rows = [(u, 1 + j, (TRAIN, VALID)[j % 2], int(rng.random() < 0.4))
            for u in range(1, 51) for j in range(12)]  # fmt: skip
    data = make_log(rows, 50, 12, task="ctr")
    noise = rng.standard_normal(len(rows))

    def model(skill):
        return ctr_table(clicks(1 / (1 + np.exp(-skill * data.label - noise))), data, VALID)

    decision = decide(model(2.0), model(1.0), model(0.5), **FAST)
    assert decision.promote and decision.intervals["champion"].metric == "auc"
    assert not decide(model(1.0), model(2.0), model(0.5), **FAST).promote
    lower = decide(model(2.0), model(0.2), model(0.2), metric="logloss", **FAST)
    assert lower.intervals["champion"].lower_is_better
