"""Every protocol against parts worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.catalog import load_catalog
from llmers_pipelines.data.log import _order, stable_order
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.splits import build_training_data
from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, TrainingData

LETTER = {TRAIN: "T", VALID: "v", TEST: "t", HISTORY: "h"}
T0 = 1_500_000_000


def build(make, rows, split, *, task="sequential", columns="user_id,item_id,timestamp", **toml):
    lines = [",".join(map(str, r)) for r in rows]
    d = make(log="\n".join([columns, *lines]) + "\n", splits={task: split}, **toml)
    return build_training_data(load_catalog(d), d, task)


def shown(data):
    """Return user -> "item:part item:part ..." in stored order."""
    out: dict[str, list[str]] = {}
    for u, i, s in zip(data.user, data.item, data.split, strict=True):
        text = f"{data.items.ids[i - 1]}:{LETTER[int(s)]}"
        out.setdefault(data.users.ids[u - 1], []).append(text)
    return {u: " ".join(parts) for u, parts in out.items()}


def log(**users):
    """u1="abc" -> rows of user u1 with items a, b, c at rising moments."""
    return [(u, i, T0 + n) for u, items in users.items() for n, i in enumerate(items)]


LOO = {"protocol": "leave_one_out"}


def test_leave_one_out(make):
    data = build(make, log(u1="abcd", u2="ba", u3="cab"), LOO)
    assert shown(data) == {
        "u1": "a:T b:T c:v d:t", "u2": "b:T a:T", "u3": "c:T a:v b:t",
    }  # fmt: skip
    assert data.info["users_too_short"] == 1
    assert data.info["counts"]["rows"] == {"train": 5, "valid": 2, "test": 2, "history": 0}
    assert data.info["coverage"] == {
        "test_rows_with_known_item": 0.5, "test_rows_with_known_user": 1.0,
        "users_tested_after_training": 1.0,
    }  # fmt: skip


def test_equal_moments_keep_the_order_of_the_file(make):
    rows = [("u", "c", T0), ("u", "a", T0), ("w", "a", T0), ("u", "d", T0), ("u", "b", T0 - 1),
            ("w", "b", T0), ("w", "c", T0)]  # fmt: skip
    assert shown(build(make, rows, LOO)) == {"u": "b:T c:T a:v d:t", "w": "a:T b:v c:t"}


def test_ties_among_many_rows_stay_stable(make):
    rng = np.random.default_rng(0)
    items = "".join(f"i{n},x\n" for n in range(300))
    order = rng.permutation(300)
    rows = [("u", f"i{n}", T0 + k // 100) for k, n in enumerate(order)]
    data = build(make, rows, LOO, items="item_id,title\n" + items)
    assert [data.items.ids[i - 1] for i in data.item] == [f"i{n}" for n in order]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("first", "a:T b:T c:v d:t"),
        ("last", "b:T c:T a:v d:t"),
        ("keep", "a:T b:T c:T a:v d:t"),
    ],
)
def test_duplicates(make, policy, expected):
    data = build(make, log(u="abcad"), LOO | {"duplicates": policy})
    assert shown(data) == {"u": expected}
    assert data.info["drops"] == ({} if policy == "keep" else {"duplicate": 1})


def test_positions_order_and_universe(make):
    rows = log(u2="dcb", u1="bcd")
    data = build(make, rows, LOO)
    assert data.items.ids == ("a", "b", "c", "d")  # catalog order, "a" without rows included
    assert data.users.ids == ("u2", "u1")  # first seen
    small = build(make, rows, LOO | {"universe": "interactions"})
    assert small.items.ids == ("b", "c", "d") and shown(small) == shown(data)
    assert small.item.min() == 1 and small.n_items == 3


def test_a_table_in_chunks_gives_the_log_of_one_piece(make):
    d = make(log="user_id,item_id,timestamp\n" + "\n".join(
        ",".join(map(str, r)) for r in log(u2="dcba", u1="bcda", u9="abcd")
    ) + "\n", splits={"sequential": LOO})  # fmt: skip
    tables = load_catalog(d)
    whole = {"items": tables.items, "interactions": tables.interactions}
    rows = whole["interactions"]
    # users that appear late, and a chunk without rows
    pieces = pa.concat_tables([rows.slice(0, 3), rows.slice(0, 0), rows.slice(3, 6), rows.slice(9)])
    chunked = whole | {"interactions": pieces}
    one, many = (build_training_data(t, d, "sequential") for t in (whole, chunked))
    assert pieces["user_id"].num_chunks > 1
    assert one.users.ids == ("u2", "u1", "u9") and one.content_hash() == many.content_hash()


def test_users_follow_their_table_and_those_without_rows_are_left_out(make, tmp_path):
    (tmp_path / "users.csv").write_text("user_id,age\nu9,1\nu1,2\nu2,3\n")
    data = build(make, log(u2="abc", u1="bcd"), LOO, users={"path": "users.csv"})
    assert data.users.ids == ("u1", "u2")


def test_k_core_repeats_until_stable(make):
    # d falls first (one row), then u3 (one row left), then c (two rows left become one)
    rows = log(u1="ab", u2="abc", u3="cd", u4="ab")
    split = {"protocol": "random", "shares": [0.5, 0, 0.5]}
    data = build(make, rows, split | {"k_core": 2}, task="collaborative")
    assert sorted(shown(data)) == ["u1", "u2", "u4"]
    assert set(data.item.tolist()) == {1, 2} and len(data.user) == 6
    assert data.info["drops"] == {"k_core": 3} and data.info["k_core_rounds"] == 4
    with pytest.raises(DataError, match="k_core = 9 leaves nothing of 9"):
        build(make, rows, split | {"k_core": 9}, task="collaborative")


def test_global_time_by_shares_keeps_moments_together(make):
    rows = [("u1", "a", T0), ("u1", "b", T0 + 1), ("u2", "a", T0 + 2), ("u2", "c", T0 + 3),
            ("u3", "b", T0 + 4), ("u1", "c", T0 + 5), ("u2", "d", T0 + 5), ("u3", "d", T0 + 6),
            ("u4", "a", T0 + 7), ("u4", "b", T0 + 8)]  # fmt: skip
    split = {"protocol": "time", "shares": [0.6, 0.2, 0.2]}
    data = build(make, rows, split)
    # sorted moments 0 1 2 3 4 5 5 6 7 8: t_v is the 7th (5), t_c the 9th (7)
    assert data.info["cutoffs"] == {"valid_from": T0 + 5, "test_from": T0 + 7}
    assert shown(data) == {
        "u1": "a:T b:T c:v", "u2": "a:T c:T d:v", "u3": "b:T d:v", "u4": "a:t b:t",
    }  # fmt: skip
    assert data.info["coverage"]["test_rows_with_known_user"] == 0.0
    assert data.info["coverage"]["test_rows_with_known_item"] == 1.0


def test_global_time_by_moments(make):
    split = {"protocol": "time", "valid_from": str(T0 + 1), "test_from": "2017-07-14T02:40:02"}
    assert shown(build(make, log(u="abc"), split)) == {"u": "a:T b:v c:t"}
    with pytest.raises(DataError, match="must lie before"):
        build(make, log(u="abc"), split | {"valid_from": str(T0 + 9)})
    with pytest.raises(DataError, match="'soon' is no moment"):
        build(make, log(u="abc"), split | {"test_from": "soon"})
    with pytest.raises(DataError, match="needs a timestamp"):
        build(make, [("u", "a"), ("u", "b")], {"protocol": "time"}, columns="user_id,item_id")


GIVEN = "user_id,item_id,timestamp,fold"


def test_given_split(make):
    parts = [["train", "dev", "test"], ["test", "train", ""]]
    rows = [(f"u{u + 1}", "abc"[k], T0 + k, parts[u][k]) for u in range(2) for k in range(3)]
    split = {"protocol": "given", "column": "fold"}
    data = build(make, rows, split, columns=GIVEN)
    assert shown(data) == {"u1": "a:T b:v c:t", "u2": "a:t b:T"}
    assert data.info["drops"] == {"no_part": 1}
    assert data.info["coverage"]["users_tested_after_training"] == 0.5
    mapped = split | {"values": {"train": "train", "dev": "drop", "test": "test"}}
    assert "b" not in shown(build(make, rows, mapped | {"valid_share": 0}, columns=GIVEN))["u1"]
    with pytest.raises(DataError, match=r"holds \['dev'\], which stand for no part"):
        build(make, rows, split | {"values": {"train": "train", "test": "test"}}, columns=GIVEN)
    with pytest.raises(DataError, match="reads column 'folds', which the interactions lack"):
        build(make, rows, {"protocol": "given", "column": "folds"}, columns=GIVEN)


def fold_rows(n=2000):
    return [
        (f"u{k % 50}", f"i{k % 97}", T0 + k, "train" if k < n * 0.8 else "test") for k in range(n)
    ]


ITEMS97 = "item_id,title\n" + "".join(f"i{k},x\n" for k in range(97))


def test_given_split_without_validation_takes_a_seeded_share(make):
    split = {"protocol": "given", "column": "fold", "duplicates": "keep"}
    rows = fold_rows()
    data = build(make, rows, split, columns=GIVEN, items=ITEMS97)
    counts = data.info["counts"]["rows"]
    assert counts["test"] == 400 and counts["train"] + counts["valid"] == 1600
    assert 120 <= counts["valid"] <= 200  # 160 expected, sd 12
    again = build(make, rows[::-1], split, columns=GIVEN, items=ITEMS97)
    part_of = dict(zip(data.time.tolist(), data.split.tolist(), strict=True))  # moments are unique
    for time, part in zip(again.time.tolist(), again.split.tolist(), strict=True):
        assert part_of[time] == part  # the draw belongs to the row, not to its place
    other = build(make, rows, split | {"seed": 1}, columns=GIVEN, items=ITEMS97)
    assert (other.split != data.split).any()


def test_given_split_may_validate_on_the_last_rows(make):
    rows = [("u1", i, T0 + n, f) for n, (i, f) in enumerate(
        [("a", "train"), ("b", "train"), ("c", "test"), ("d", "train")])]  # fmt: skip
    rows += [("u2", "a", T0, "train"), ("u2", "b", T0 + 1, "test")]
    split = {"protocol": "given", "column": "fold", "valid_by": "last", "valid_share": 0.4}
    data = build(make, rows, split, columns=GIVEN)
    assert shown(data) == {"u1": "a:T b:T c:t d:v", "u2": "a:T b:t"}


def test_random_shares_per_user(make):
    rows = [(f"u{u}", f"i{k}", T0 + k) for u in range(30) for k in range(10)] + [("w", "i1", T0)]
    split = {"protocol": "random", "shares": [0.6, 0.2, 0.2]}
    data = build(make, rows, split, task="collaborative", items=ITEMS97)
    for user in range(1, 31):
        parts = data.split[data.user == user]
        assert [(parts == p).sum() for p in (TRAIN, VALID, TEST)] == [6, 2, 2]
    assert data.split[data.user == 31].tolist() == [TRAIN]  # a single row always trains
    places = np.flatnonzero(data.split[data.user == 1] == TEST)
    others = np.flatnonzero(data.split[data.user == 2] == TEST)
    assert places.tolist() != others.tolist()
    by_row = build(make, rows, split | {"by": "row"}, task="collaborative", items=ITEMS97)
    assert 35 <= by_row.info["counts"]["rows"]["test"] <= 85  # 60 expected, sd 7


def test_cold_items_never_train(make):
    pairs = [(u, k) for u in range(60) for k in range(20)]
    rows = [(f"u{u}", f"i{(u * 7 + k) % 97}", T0 + u * 20 + k) for u, k in pairs]
    split = {"protocol": "cold_item", "cold_share": 0.2}
    data = build(make, rows, split, task="collaborative", items=ITEMS97)
    cold = data.info["cold_items"]
    assert len(cold) == round(0.2 * 97) and data.train_counts[cold].sum() == 0
    parts = data.split[np.isin(data.item, cold)]
    assert set(parts.tolist()) == {VALID, TEST}
    assert 0.4 < (parts == TEST).mean() < 0.6
    warm = data.split[~np.isin(data.item, cold)]
    assert 0.75 < (warm == TRAIN).mean() < 0.85


def test_cold_items_by_first_appearance(make):
    data = build(make, log(u1="abcd", u2="abc", u3="ba"),
                 {"protocol": "cold_item", "cold_share": 0.25, "cold_by": "time",
                  "shares": [1, 0, 0]}, task="collaborative")  # fmt: skip
    assert data.info["cold_items"] == [4]  # d appears last
    assert (data.split[data.item == 4] != TRAIN).all()


RATED = "user_id,item_id,rating,timestamp"
CTR = {"protocol": "time", "valid_from": str(T0 + 6), "test_from": str(T0 + 7),
       "label": "rating >= 4"}  # fmt: skip


def test_ctr_labels_ratings_and_history_cut(make):
    ratings = [5, 3, 4, 1, 2, 5, 4, 4]
    rows = [("u1", "abcd"[k % 4], r, T0 + k) for k, r in enumerate(ratings)]
    rows += [("u2", "a", "", T0), ("u2", "b", 4, T0 + 1), ("u3", "c", 1, T0 + 9)]
    data = build(make, rows, CTR | {"history": 2}, task="ctr", columns=RATED)
    # u1 has 6 training rows: min(ceil(6 / 2), 2) = 2 are history; u2 has 1: ceil(1 / 2) = 1
    assert shown(data) == {
        "u1": "a:h b:h c:T d:T a:T b:T c:v d:t", "u2": "b:h", "u3": "c:t",
    }  # fmt: skip
    assert data.label.tolist() == [1, 0, 1, 0, 0, 1, 1, 1, 1, 0] and data.label.dtype == np.float32
    assert data.rating.tolist() == [*ratings, 4, 1] and data.rating.dtype == np.float32
    assert data.info["drops"] == {"no_label": 1} and data.info["history_rows"] == 3
    assert data.info["positive_share"] == {
        "train": 0.5, "valid": 1.0, "test": 0.5, "history": 0.666667,
    }  # fmt: skip
    odd = build(make, rows[:5] + rows[6:8], CTR | {"history": 9}, task="ctr", columns=RATED)
    assert shown(odd)["u1"] == "a:h b:h c:h d:T a:T c:v d:t"  # ceil(5 / 2) = 3


def test_ctr_fields(make, tmp_path):
    items = (
        "item_id,title,genres,pages,same\na,A,Drama|War,100,x\nb,B,Comedy,200,x\n"
        "c,C,,,x\nd,D,War,400,x\n"
    )
    (tmp_path / "users.csv").write_text("user_id,sex\nu2,F\nu1,M\n")
    fields = {
        "genres": {"kind": "category", "separator": "|"},
        "pages": {"kind": "number", "buckets": 2},
        "same": "category",
        "title": "text",
    }
    rows = [("u1", "a", 5, T0), ("u1", "b", 2, T0 + 1), ("u1", "a", 5, T0 + 2),
            ("u2", "b", 5, T0 + 3), ("u3", "d", 4, T0 + 6), ("u2", "c", 3, T0 + 9)]  # fmt: skip
    data = build(make, rows, CTR, task="ctr", columns=RATED, items=items,
                 items_toml={"fields": fields},
                 users={"path": "users.csv", "fields": {"sex": "category"}})  # fmt: skip
    genres = data.item_fields["genres"]
    assert genres.vocabulary == ("Comedy", "Drama", "War")
    assert genres.codes.tolist() == [0, 2, 1, 0, 3] and genres.codes.dtype == np.int32
    # training rows hold pages 100 200 100 200: the median 150 parts them; d (400) lies above
    assert data.item_fields["pages"].codes.tolist() == [0, 1, 2, 0, 2]
    assert data.item_fields["pages"].vocabulary == ("[-inf, 150)", "[150, inf)")
    assert data.users.ids == ("u2", "u1", "u3")
    assert data.user_fields["sex"].codes.tolist() == [0, 1, 2, 0]
    assert set(data.item_fields) == {"genres", "pages"}
    assert data.info["item_fields"]["first_of_several"] == ["genres"]
    assert data.info["item_fields"]["constant_fields_left_out"] == ["same"]


def test_positive_and_event_filters(make):
    rows = [("u", "a", 5, T0, "buy"), ("u", "b", 1, T0 + 1, "buy"), ("u", "c", 5, T0 + 2, "view"),
            ("u", "d", 4, T0 + 3, "buy"), ("u", "b", 5, T0 + 4, "buy")]  # fmt: skip
    columns = "user_id,item_id,rating,timestamp,event"
    data = build(make, rows, LOO | {"positive": "rating >= 4"}, columns=columns)
    assert shown(data) == {"u": "a:T c:T d:v b:t"} and data.label is None
    data = build(make, rows, LOO | {"events": "buy"}, columns=columns)
    assert shown(data) == {"u": "a:T b:v d:t"}  # the first of the two rows of b
    assert data.info["drops"] == {"other_event": 1, "duplicate": 1}
    with pytest.raises(DataError, match="no column 'event'"):
        build(make, log(u="abc"), LOO | {"events": "buy"})


def test_log_without_clock_keeps_stored_order(make):
    rows = [("u", i) for i in "cab"]
    data = build(make, rows, LOO, columns="user_id,item_id")
    assert shown(data) == {"u": "c:T a:v b:t"}
    assert data.info["clock"] == "none" and data.time.tolist() == [0, 1, 2]


def test_nothing_to_test_or_to_train(make):
    with pytest.raises(DataError, match=r"has no test rows.*lower min_length"):
        build(make, log(u="ab"), LOO)
    with pytest.raises(DataError, match="no interaction is left"):
        build(make, [("u", "a", 1, T0)], LOO | {"positive": "rating >= 4"}, columns=RATED)


def test_every_row_has_one_part_and_data_survives_storage(make, tmp_path):
    rows = [(f"u{k % 13}", f"i{k * 7 % 97}", k % 5 + 1, T0 + k * 31 % 997) for k in range(600)]
    split = {"protocol": "time", "label": "rating >= 4", "history": 5}
    data = build(make, rows, split, task="ctr", columns=RATED, items=ITEMS97)
    assert sum(data.info["counts"]["rows"].values()) == len(data.user) == 600
    assert (np.diff(data.user) >= 0).all()
    same = np.diff(data.user) == 0
    assert (np.diff(data.time)[same] >= 0).all()
    data.save(tmp_path / "log")
    back = TrainingData.load(tmp_path / "log")
    assert back.content_hash() == data.content_hash() and back.info == data.info


def test_plain_tables_are_enough(make):
    d = make(splits={"sequential": LOO})
    catalog = load_catalog(d)
    tables = {"items": catalog.items, "interactions": catalog.interactions}
    whole = build_training_data(catalog, d, "sequential")
    assert build_training_data(tables, d, "sequential").content_hash() == whole.content_hash()
    broken = tables | {"interactions": pa.table({"user_id": ["u"]})}
    with pytest.raises(DataError, match="column 'item_id' is missing"):
        build_training_data(broken, d, "sequential")


@pytest.mark.parametrize("top", [1, 50, 2**40, 2**62])
def test_rows_are_ordered_as_by_a_stable_sort(top):
    key = np.random.default_rng(0).integers(0, top, 3000)
    order, ordered = stable_order(key)
    assert np.array_equal(order, np.argsort(key, kind="stable"))
    assert np.array_equal(ordered, key[order])


def test_a_stable_order_leaves_its_keys_unless_they_may_go():
    key = np.random.default_rng(0).integers(0, 50, 200_000)  # more rows than numbers made at once
    kept, expected = key.copy(), np.argsort(key, kind="stable")
    for reuse in (False, True):
        order, ordered = stable_order(key, reuse=reuse)
        assert (order == expected).all() and (ordered == kept[expected]).all()
        assert reuse or (key == kept).all()


def test_order_takes_times_of_any_size():
    user = np.array([2, 1, 2, 1, 1])
    for scale in (1, 2**62):
        time = np.array([1, -1, -1, 1, -1]) * scale
        order, users = _order(user, time)
        assert order.tolist() == [1, 4, 3, 2, 0] and users.tolist() == [1, 1, 1, 2, 2]
    assert len(stable_order(np.zeros(0, np.int64))[0]) == 0
