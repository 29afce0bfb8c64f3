from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.evaluate.predict import rank_table
from llmers_pipelines.evaluate.ranking import user_values
from llmers_pipelines.evaluate.slices import (
    describe,
    standard_slices,
    tail_threshold,
    user_counts,
)
from llmers_pipelines.testing.contract import contract_data


def by_name(data, **options):
    return {s.name: s for s in standard_slices(data, **options)}


@pytest.mark.parametrize(
    ("counts", "threshold"),
    [
        ([1, 2, 3, 4, 5], 4),  # 4 of 5 are the bottom 80 %
        ([1, 2, 3, 4, 4], 4),  # the tie goes to the tail, no head is left
        ([3, 3, 3], 3),
        ([0, 0, 0, 0, 9], 0),
        (list(range(10)), 7),
    ],
)
def test_tail_is_the_bottom_four_fifths_with_ties(counts, threshold):
    assert tail_threshold(np.array(counts)) == threshold


def skewed(make_log):
    """Ten items; item 1 is in training 20 times, item 10 never; one target per user."""
    rows = []
    for u in range(1, 21):
        rows.append((u, 1, TRAIN))
        rows += [(u, 2 + (u + j) % 8, TRAIN) for j in range(1 + u % 3)]
        rows.append((u, 10 if u % 5 == 0 else 2 + (u + 4) % 8, TEST))
    rows += [(21, 3, TEST)]  # a cold user
    return make_log(rows, 21, 10)


def test_slices_count_training_interactions_alone(make_log):
    data = make_log([(1, 1, TRAIN), (1, 2, VALID), (1, 2, TEST), (2, 1, TRAIN)], 2, 2)
    slices = by_name(data)
    assert slices["cold_items"].items.tolist() == [False, False, True]
    assert user_counts(data).tolist() == [0, 1, 1]


def test_head_and_tail_part_the_catalog(make_log):
    data = skewed(make_log)
    slices = by_name(data)
    for kind, n in (("items", 10), ("users", 21)):
        head, tail = (getattr(slices[f"{p}_{kind}"], kind) for p in ("head", "tail"))
        assert (head ^ tail)[1:].all() and len(head) == n + 1
        assert not head[0] and not tail[0]
    assert slices["cold_items"].items[10] and slices["tail_items"].items[10]
    assert slices["cold_users"].users.tolist().index(True) == 21


def test_group_means_recombine_to_the_overall_mean(make_log, fixed):
    data = skewed(make_log)
    scores = np.random.default_rng(0).standard_normal((22, 11))
    table = rank_table(fixed(scores), data, TEST)
    slices = by_name(data, buckets=True)
    overall = user_values(table)
    facts = {f["slice"]: f for f in describe(list(slices.values()), table)}
    parts = [
        ("head_items", "tail_items"),
        ("head_users", "tail_users"),
        tuple(n for n in slices if n.startswith("items_")),
        tuple(n for n in slices if n.startswith("users_")),
    ]
    for names in parts:
        groups = [user_values(table.filter(slices[n].rows(table))) for n in names]
        assert sum(len(g.users) for g in groups) == len(overall.users)
        assert sum(facts[n]["share"] for n in names) == pytest.approx(1)
        assert sum(facts[n]["targets"] for n in names) == table.num_rows
        for metric, mean in overall.means().items():
            total = sum(g.values[metric].sum() for g in groups)
            assert total / len(overall.users) == pytest.approx(mean), metric


def test_recall_of_many_targets_recombines_by_the_users_share_of_targets(random_log, fixed):
    data = random_log(80, 40, targets=4)
    scores = np.random.default_rng(0).standard_normal((81, 41))
    table = rank_table(fixed(scores), data, TEST)
    overall, slices, total = user_values(table, ["recall@10"]), by_name(data), 0.0
    for name in ("head_items", "tail_items"):
        group = user_values(table.filter(slices[name].rows(table)), ["recall@10"])
        total += (group.values["recall@10"] * group.targets / 4).sum()
    assert total / 80 == pytest.approx(overall.means()["recall@10"])


def test_facts_tell_thresholds_and_sizes(make_log, fixed):
    data = skewed(make_log)
    table = rank_table(fixed(np.zeros((22, 11))), data, TEST)
    facts = {f["slice"]: f for f in describe(standard_slices(data), table)}
    at = tail_threshold(data.train_counts[1:])
    assert facts["head_items"]["rule"] == f"items with more than {at} training interactions"
    assert facts["tail_items"]["rule"] == f"items with at most {at} training interactions"
    assert facts["all"]["targets"] == table.num_rows == facts["all"]["users"]
    assert facts["cold_items"]["members"] == 1
    assert facts["cold_items"]["targets"] == 4
    assert facts["cold_users"]["users"] == 1


def test_an_empty_slice_gives_none(random_log, fixed):
    data = random_log(20, 200, length=1)
    table = rank_table(fixed(np.zeros((21, 201))), data, TEST)
    slices = by_name(data)
    empty = table.filter(slices["cold_users"].rows(table))
    assert set(user_values(empty).means().values()) == {None}
    assert describe([slices["cold_users"]], table)[0]["share"] == 0.0
    assert describe([slices["all"]], table.slice(0, 0))[0]["share"] is None


def test_a_log_with_scenarios_has_a_slice_for_each():
    data = contract_data("multi_scenario")
    found = {s.name: s for s in standard_slices(data)}
    assert "scenario_app" not in {s.name for s in standard_slices(contract_data("ctr"))}
    table = pa.table({"user": data.user[:6], "item": data.item[:6], "row": [5, 4, 3, 2, 1, 0]})
    for name, code in (("scenario_app", 1), ("scenario_web", 2)):
        expected = data.scenario.codes[:6][::-1] == code
        assert np.array_equal(found[name].rows(table), expected)


def test_a_split_by_time_has_warm_rows_and_first_rows(make_log, fixed):
    rows = [(1, 1, TRAIN), (1, 2, TEST), (1, 3, TEST), (2, 2, TRAIN), (2, 1, TEST), (3, 1, TEST)]
    data = make_log(rows, 3, 3)
    assert "warm_warm" not in by_name(data)
    data = dataclasses.replace(data, info={"protocol": "time"})
    table = rank_table(fixed(np.zeros((4, 4))), data, TEST)
    slices = by_name(data)
    held = list(zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True))
    assert held == [(1, 2), (1, 3), (2, 1), (3, 1)]
    # item 3 and user 3 are cold
    assert slices["warm_warm"].rows(table).tolist() == [True, False, True, False]
    assert slices["first_rows"].rows(table).tolist() == [True, False, True, True]
