"""Rankings from files: every form, and the place and reason of each row that cannot be used."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data import rankings
from llmers_pipelines.data.leakage import LeakageError
from llmers_pipelines.data.ranking_spec import RankingSpec
from llmers_pipelines.data.rankings import ranking_spec, read_rankings
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.sources import RawTable
from llmers_pipelines.teach.recorded_ranking import RecordedRanking
from llmers_pipelines.teach.teacher import positions_of
from llmers_pipelines.testing.planted import planted_rings

DATA = planted_rings(n_users=6, n_items=12, seed=1).data
USER, POSITION = positions_of(DATA)
LAST = np.zeros(DATA.n_users + 1, np.int64)
np.maximum.at(LAST, USER, POSITION)
ROWS = [
    {"user_id": "u1", "rank": 2, "item_id": "i3", "sure": 0.25},
    {"user_id": "u1", "rank": 1, "item_id": "i5", "sure": 0.5},
    {"user_id": "u2", "rank": 1, "item_id": "i7", "sure": 1.0},
]
EXPECTED = [("u1", LAST[1], 1, "i5"), ("u1", LAST[1], 2, "i3"), ("u2", LAST[2], 1, "i7")]


def write(path, rows):
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        case ".csv":
            lines = [",".join(rows[0])] + [",".join(map(str, r.values())) for r in rows]
            path.write_text("\n".join(lines) + "\n")
    return path


def read(path, rows, **settings):
    write(path, rows)
    kind = path.suffix[1:]
    spec = RankingSpec("bigrec", path.name, kind, **settings)
    return read_rankings(spec, path.parent, DATA, LAST)


def told(found):
    names = ("user_id", "position", "rank", "item_id")
    return [tuple(r[n] for n in names) for r in found.rows.to_pylist()]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_one_row_per_item(tmp_path, kind):
    found = read(tmp_path / f"r.{kind}", ROWS, confidence="sure")
    assert told(found) == EXPECTED
    expected = [math.log(2), math.log(4), 0]
    np.testing.assert_allclose(found.rows["distance"].to_numpy(), expected, rtol=1e-6)
    assert found.refused.num_rows == 0 and found.records == 3


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_one_row_per_ranking(tmp_path, kind):
    rows = [{"user_id": "u1", "best": ["i5", "i3"], "far": [0.5, 1.5]},
            {"user_id": "u2", "best": ["i7"], "far": [0.25]}]  # fmt: skip
    if kind == "csv":
        rows = [{k: "|".join(map(str, v)) if isinstance(v, list) else v for k, v in r.items()}
                for r in rows]  # fmt: skip
    found = read(tmp_path / f"r.{kind}", rows, items="best", distance="far")
    assert told(found) == EXPECTED
    np.testing.assert_allclose(found.rows["distance"].to_numpy(), [0.5, 1.5, 0.25])


def test_positions_keep_rankings_apart_and_newest_chooses(tmp_path):
    rows = [{"user_id": "u1", "at": p, "rank": 1, "item_id": f"i{p}"} for p in (1, 2, int(LAST[1]))]
    spec = RankingSpec("x", "r.parquet", "parquet", position="at")
    write(tmp_path / "r.parquet", rows)
    found = read_rankings(spec, tmp_path, DATA, LAST)
    assert [r[1] for r in told(found)] == [1, 2, LAST[1]]
    newest = read_rankings(spec, tmp_path, DATA, LAST, newest=1)
    assert [r[1] for r in told(newest)] == [LAST[1]]


@pytest.mark.parametrize(("change", "column", "value", "reason"), [
    ({"user_id": "nobody"}, "user_id", "nobody", "no user of the log"),
    ({"item_id": "i99"}, "item_id", "i99", "no item of the catalog"),
    ({"rank": 0}, "rank", "0", "not a whole number from 1"),
    ({"rank": 1.5}, "rank", "1.5", "not a whole number from 1"),
    ({"sure": 1.5}, "sure", "1.5", "not above 0 and at most 1"),
    ({"sure": None}, "sure", "", "not above 0 and at most 1"),
    ({"at": 99}, "at", "99", "would have seen held-out ones"),
    ({"rank": 1}, "rank", "1", "a second time for this user"),
    ({"item_id": "i5"}, "item_id", "i5", "a second time for this user"),
])  # fmt: skip
def test_a_bad_row_is_a_value_with_its_place(tmp_path, change, column, value, reason):
    rows = [{**r, "at": None, "rank": float(r["rank"])} for r in (ROWS[1], ROWS[2], ROWS[0])]
    rows[2] = {**rows[2], **change}
    found = read(tmp_path / "r.jsonl", rows, confidence="sure", position="at")
    assert told(found) == [EXPECTED[0], EXPECTED[2]]
    bad = found.refused.to_pylist()
    assert len(bad) == 1
    assert (bad[0]["row"], bad[0]["column"]) == (3, column)
    assert bad[0]["value"].removesuffix(".0") == value
    assert reason in bad[0]["reason"]


def test_a_file_without_a_usable_row_names_the_first_faults(tmp_path):
    rows = [{"user_id": "x", "rank": 1, "item_id": "i1"}]
    with pytest.raises(DataError, match=r"r\.csv: holds no usable ranking: row 2, column 'user_id'"
                       r"|row 1, column 'user_id', value 'x': no user"):  # fmt: skip
        read(tmp_path / "r.csv", rows)
    with pytest.raises(DataError, match=r"no column 'place'; found user_id, rank, item_id; name"):
        read(tmp_path / "r.csv", rows, rank="place")
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        spec = RankingSpec("x", "gone.csv", "csv")
        read_rankings(spec, tmp_path, DATA, LAST)


def test_a_list_that_does_not_fit_is_refused_as_a_whole(tmp_path):
    rows = [{"user_id": "u1", "best": "i5|i3", "far": "0.5"},
            {"user_id": "u2", "best": "i7", "far": "0.25"}]  # fmt: skip
    found = read(tmp_path / "r.csv", rows, items="best", distance="far")
    assert told(found) == EXPECTED[2:]
    assert "1 values for 2 items" in found.refused["reason"][0].as_py()


def test_which_of_two_rows_stays_hangs_on_what_was_kept_before(tmp_path):
    given = [(1, "i3"), (1, "i5"), (2, "i5"), (3, "i3"), (2, "i7"), (3, "i7")]
    rows = [{"user_id": "u1", "rank": r, "item_id": i} for r, i in given]
    rows += [{"user_id": "u2", "rank": 3, "item_id": "i3"}]
    found = read(tmp_path / "r.parquet", rows)
    # (1, i5) has the rank of (1, i3) and is not kept, so i5 is free for rank 2
    assert [r[2:] for r in told(found)] == [(1, "i3"), (2, "i5"), (3, "i7"), (1, "i3")]
    bad = [(r["row"], r["column"], r["value"]) for r in found.refused.to_pylist()]
    assert bad == [(2, "rank", "1"), (4, "item_id", "i3"), (5, "rank", "2")]


def test_faults_stand_in_the_order_of_the_file(tmp_path):
    rows = [
        {"user_id": "u1", "at": "", "best": "i5| i3 |i99", "far": "0.5| 1.5|2"},
        {"user_id": "u2", "at": "x", "best": "i7", "far": "1"},
        {"user_id": "u2", "at": "1", "best": " ", "far": "1"},
        {"user_id": None, "at": "1", "best": "i7|i7", "far": "1|2"},
        {"user_id": "u2", "at": "1", "best": "i7|i7||i5", "far": "1|2|1|-3"},
        {"user_id": "u2", "at": "1", "best": None, "far": "1"},
    ]
    found = read(tmp_path / "r.parquet", rows, items="best", distance="far", position="at")
    bad = [(r["row"], r["column"], r["value"].strip()) for r in found.refused.to_pylist()]
    expected = [(1, "best", "i99"), (2, "at", "x"), (3, "best", ""), (4, "user_id", ""),
                (4, "user_id", ""), (5, "best", "i7"), (5, "best", ""), (5, "far", "-3"),
                (6, "best", "")]  # fmt: skip
    assert bad == expected
    kept = [("u1", LAST[1], 1, "i5"), ("u1", LAST[1], 2, "i3"), ("u2", 1, 1, "i7")]
    assert told(found) == kept
    np.testing.assert_allclose(found.rows["distance"].to_numpy(), [0.5, 1.5, 1])


@pytest.mark.parametrize("name", ["best", "rank"])
def test_a_second_list_of_a_user_and_position_is_refused_as_a_whole(tmp_path, name):
    newest = int(LAST[1])
    rows = [
        {"user_id": "u1", "at": None, name: ["i99"]},  # nothing of it is kept: the next one counts
        {"user_id": "u1", "at": None, name: ["i5", "i3"]},
        {"user_id": "u1", "at": newest, name: ["i7", "i2", "i1"]},  # the same position, named
        {"user_id": "u1", "at": 1, name: ["i7"]},
    ]
    found = read(tmp_path / "r.parquet", rows, items=name, position="at")
    assert told(found) == [("u1", 1, 1, "i7"), ("u1", newest, 1, "i5"), ("u1", newest, 2, "i3")]
    assert [(r["row"], r["column"], r["value"]) for r in found.refused.to_pylist()] == [
        (1, name, "i99"), (3, name, "['i7', 'i2', 'i1']")]  # fmt: skip
    assert "a second time for this user" in found.refused["reason"][1].as_py()


def test_numbers_are_read_from_every_type_that_holds_them(tmp_path, monkeypatch):
    ranks = [2, 1, 1]
    users, items = (pa.array([r[c] for r in ROWS]) for c in ("user_id", "item_id"))
    text = pa.array(map(str, ranks))
    forms = [pa.array(ranks), pa.array(ranks, pa.float32()), text, text.dictionary_encode(),
             text.cast(pa.binary()), pa.array(ranks).cast(pa.decimal128(20))]  # fmt: skip
    at = pa.array(LAST[[1, 1, 2]]).cast(pa.string()).dictionary_encode()
    for rank in forms:
        columns = {"user_id": users.dictionary_encode(), "rank": rank, "item_id": items, "at": at}
        table = pa.table(columns)
        raw = RawTable(pa.concat_tables([table[:1], table[1:]]), np.arange(1, 4), "r")
        monkeypatch.setattr(rankings, "read_source", lambda *_, raw=raw: raw)
        spec = RankingSpec("x", "r", "parquet", position="at")
        found = read_rankings(spec, tmp_path, DATA, LAST)
        assert told(found) == EXPECTED and not found.refused.num_rows, rank.type


def test_what_cannot_be_stored_or_compared_is_refused(tmp_path):
    rows = [{**ROWS[0], "far": 1e300}, {**ROWS[1], "far": 1.0}]
    found = read(tmp_path / "r.parquet", rows, distance="far")
    assert found.rows["distance"].to_pylist() == [1.0]
    assert found.refused["value"].to_pylist() == ["1e+300"]
    rows = [{"user_id": "u1", "rank": 1, "item_id": ["i3"]}]
    with pytest.raises(DataError, match=r"column 'item_id' holds list<.*>, not ids; .* set items"):
        read(tmp_path / "r.parquet", rows)


def test_the_description_declares_rankings(make):
    split = {"sequential": {"protocol": "leave_one_out"}}
    given = {"path": "r.parquet", "items": "best", "data_cutoff": "sequential", "model": "m"}
    description = make(splits=split, rankings={"bigrec": given})
    spec = ranking_spec(description)
    assert (spec.name, spec.format, spec.items, spec.user) == (
        "bigrec",
        "parquet",
        "best",
        "user_id",
    )
    with pytest.raises(DataError, match=r"declares no rankings 'bigrek'; did you mean 'bigrec'"):
        ranking_spec(description, "bigrek")
    with pytest.raises(DataError, match=r"declares no rankings; there are: none; add \[rankings"):
        ranking_spec(make())
    for wrong, why in (
        ({"distance": "d", "confidence": "c"}, "is set beside distance"),
        ({"data_cutoff": "sequentiel"}, "data_cutoff is 'sequentiel'"),
        ({"colour": "red"}, "colour is not a known setting"),
    ):
        with pytest.raises(DataError, match=why):
            make(splits=split, rankings={"bigrec": {**given, **wrong}})


def test_what_the_teacher_saw_must_fit_the_split(tmp_path):
    write(tmp_path / "r.csv", ROWS)

    def teach(cutoff, accept=False):
        spec = RankingSpec("bigrec", "r.csv", "csv", data_cutoff=cutoff, model="BIGRec 7B")
        return RecordedRanking(k=1).teach(spec, tmp_path, DATA, accept_contaminated=accept)

    DATA.info["split"] = "sequential"
    taught = teach("sequential")
    assert taught.label == "BIGRec 7B (recorded)" and taught.flags == ()
    assert told(taught) == [EXPECTED[0], EXPECTED[2]]  # k = 1
    for cutoff, why in (("unknown", "it is not recorded"), ("all", "test rows included"),
                        ("ctr", "training rows of 'ctr'")):  # fmt: skip
        with pytest.raises(LeakageError, match=why):
            teach(cutoff)
        assert teach(cutoff, accept=True).flags == ("contaminated",)
