"""The public data sets: counts as published, given splits, recorded answers and their cutoffs."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from llmers_pipelines.data.catalog import load_catalog
from llmers_pipelines.data.checkup import check_dataset, show_dataset
from llmers_pipelines.data.leakage import LeakageError, recorded_flags
from llmers_pipelines.data.recorded import load_recorded
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.data.split_spec import SplitSpec
from llmers_pipelines.data.splits import build_training_data
from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID

pytestmark = pytest.mark.data

# users, items in the log, items in the catalog, interactions, density in percent, clock
COUNTS = {
    "ml100k": (943, 1_682, 1_682, 100_000, 6.305, "seconds"),
    "ml1m": (6_040, 2_983, 3_883, 932_293, 5.174, "seconds"),
    "ml_latest_small": (671, 9_066, 9_125, 100_004, 1.644, "seconds"),
    "amazon_office": (4_905, 2_420, 2_420, 53_258, 0.449, "seconds"),
    "amazon_beauty": (22_363, 12_101, 12_101, 198_502, 0.073, "order"),
    "goodreads": (23_089, 15_441, 16_833, 180_240, 0.051, "order"),
    "imdb_aspects": (791, 1_155, 1_155, 14_613, 1.599, "none"),
}
ENDS = {
    "ml100k": ("1997-09-20", "1998-04-22"),
    "ml1m": ("2000-04-25", "2003-02-28"),
    "ml_latest_small": ("1995-01-09", "2016-10-16"),
    "amazon_office": ("2000-09-29", "2014-07-23"),
    "grocery": ("2017-01-01", "2018-01-01"),
}
RECORDED = {
    ("ml100k", "item_knowledge", ""): 1_591,
    ("ml100k", "user_preference", "v1_demographic_summary"): 943,
    ("ml100k", "user_preference", "v2_summary"): 943,
    ("ml100k", "user_preference", "v3_structured_markdown"): 942,
    ("ml1m", "item_knowledge", ""): 3_883,
    ("ml1m", "user_preference", "summary"): 6_040,
    ("ml1m", "user_preference", "llama3"): 6_040,
    ("ml_latest_small", "item_knowledge", ""): 3_057,
    ("amazon_beauty", "user_preference", ""): 207,
    ("goodreads", "item_knowledge", ""): 16_833,
    ("goodreads", "user_preference", ""): 23_089,
    ("imdb_aspects", "item_knowledge", ""): 1_155,
    ("imdb_aspects", "user_preference", ""): 791,
}


@pytest.fixture(scope="module")
def opened(data_root):
    """Return (description, catalog) of a data set, each read once."""
    cache = {}

    def get(name):
        if name not in cache:
            description = find_dataset(name)
            cache[name] = description, load_catalog(description, data_root)
        return cache[name]

    return get


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_published_table(name, data_root):
    users, in_log, items, rows, density, clock = COUNTS[name]
    facts = show_dataset(find_dataset(name), data_root)
    assert (facts["users"], facts["items_in_interactions"]) == (users, in_log)
    assert (facts["items"], facts["interactions"]) == (items, rows)
    assert round(100 * facts["density"], 3) == density
    assert facts["time"]["clock"] == clock and not facts["quarantined"]


@pytest.mark.parametrize("name", ENDS)
def test_time_ranges(name, data_root):
    time = show_dataset(find_dataset(name), data_root)["time"]
    assert (time["first"][:10], time["last"][:10]) == ENDS[name]


def test_grocery_quarantines_purchases_of_unlisted_products(opened):
    description, catalog = opened("grocery")
    assert catalog.info["quarantined"] == {"interactions.unknown_item": 222}
    assert catalog.info["records_read"] == {"items": 20_897, "interactions": 75_000, "users": 801}
    assert len(catalog.interactions) == 74_778
    data = build_training_data(catalog, description, "collaborative")
    assert data.info["drops"]["duplicate"] > 5_000  # repeat purchases
    train, test = data.time[data.split == TRAIN], data.time[data.split == TEST]
    assert train.max() < data.info["cutoffs"]["valid_from"]
    assert test.min() >= data.info["cutoffs"]["test_from"]


@pytest.mark.parametrize("name", [*COUNTS, "grocery"])
def test_every_declared_split_and_recording_works(name, data_root):
    report = check_dataset(find_dataset(name), data_root)
    assert report["ok"], report["errors"]
    for rows in report["splits"].values():
        assert min(rows["train"], rows["valid"], rows["test"]) > 0


def test_office_split_is_leave_one_out_and_time_consistent(opened):
    description, catalog = opened("amazon_office")
    given = build_training_data(catalog, description, "sequential")
    assert given.info["coverage"]["users_tested_after_training"] == 1.0
    assert given.info["valid_from_train"] == 0.0
    own = SplitSpec("sequential", "leave_one_out", "sequential")
    object.__setattr__(description, "splits", {**description.splits, "own": own})
    ours = build_training_data(catalog, description, "own")
    assert np.array_equal(given.user, ours.user) and np.array_equal(given.item, ours.item)
    assert np.array_equal(given.split, ours.split)


def test_ml1m_split_is_in_time_order_per_user(opened):
    description, catalog = opened("ml1m")
    info = build_training_data(catalog, description, "collaborative").info
    assert info["counts"]["rows"] == {
        "train": 556_989, "valid": 190_063, "test": 185_241, "history": 0,
    }  # fmt: skip
    assert info["coverage"]["users_tested_after_training"] == 1.0


def test_ml100k_given_fold(opened):
    description, catalog = opened("ml100k")
    data = build_training_data(catalog, description, "ctr")
    assert (data.split == TEST).sum() == 20_000
    assert 7_500 < (data.split == VALID).sum() < 8_500  # 10% of the 80,000 training rows
    assert data.user[data.split == TEST].max() < data.n_users  # test rows: low user ids only
    assert data.label.mean() == pytest.approx((data.rating >= 4).mean())
    assert set(data.item_fields) == {"year", "genres", "original_language", "runtime_min"}
    assert set(data.user_fields) == {"age", "gender", "occupation"}
    assert data.item_fields["genres"].vocabulary[0] == "Action"


def test_ml100k_time_split_cuts_histories(opened):
    description, catalog = opened("ml100k")
    data = build_training_data(catalog, description, "ctr_time")
    shares = np.bincount(data.split, minlength=4)[[VALID, TEST]] / len(data.split)
    assert shares == pytest.approx([0.1, 0.1], abs=0.001)
    train, history = data.split == TRAIN, data.split == HISTORY
    both = np.bincount(data.user[train | history], minlength=data.n_users + 1)
    cut = np.bincount(data.user[history], minlength=data.n_users + 1)
    assert np.array_equal(cut, np.minimum((both + 1) // 2, 30))
    last = np.zeros(data.n_users + 1, np.int64)
    np.maximum.at(last, data.user[history], data.time[history])
    assert (data.time[train] >= last[data.user[train]]).all()


@pytest.mark.parametrize("key", RECORDED, ids="-".join)
def test_recorded_answers_belong_to_the_catalog(key, opened, data_root):
    name, task, variant = key
    description, catalog = opened(name)
    found = load_recorded(description, task, variant, data_root)
    assert len(found.entries) == RECORDED[key]
    entity = description.recorded_for(task, variant).entity
    known = (catalog.items if entity == "item" else catalog.users)[f"{entity}_id"]
    assert set(found.entries) <= set(known.to_pylist())
    assert len(found.texts()) >= 0.99 * len(found.entries)


def test_recorded_profiles_fit_their_own_fold_only(opened):
    description, catalog = opened("ml100k")
    fold = build_training_data(catalog, description, "ctr")
    later = build_training_data(catalog, description, "ctr_time")
    for variant in ("v2_summary", "v3_structured_markdown"):
        profiles = description.recorded_for("user_preference", variant)
        assert recorded_flags(profiles, fold) == ("labels_seen", "valid_seen")
        with pytest.raises(LeakageError, match="u1_split"):
            recorded_flags(profiles, later)
    assert recorded_flags(description.extras["llm_rerank"], fold)[0] == "labels_seen"
    assert recorded_flags(description.recorded_for("item_knowledge"), later) == ()
    description, catalog = opened("ml1m")
    summaries = description.recorded_for("user_preference")
    data = build_training_data(catalog, description, "collaborative")
    with pytest.raises(LeakageError, match="not recorded"):
        recorded_flags(summaries, data)
    assert "contaminated" in recorded_flags(summaries, data, accept_contaminated=True)


def test_leading_zeros_of_imdb_ids_survive(opened):
    _, catalog = opened("imdb_aspects")
    assert pc.any(pc.starts_with(catalog.items["item_id"], "0")).as_py()
