from __future__ import annotations

from pathlib import Path

import pytest

from llmers_pipelines.data.description import load_description, parse_description
from llmers_pipelines.data.schema import DataError

FILE = Path("shop.toml")


def raw(**more):
    base = {"name": "shop", "items": {"path": "i.csv"}, "interactions": {"path": "l.parquet"}}
    return base | more


def test_full_description_is_parsed():
    d = parse_description(
        raw(
            items={
                "path": "i.csv", "title": "Name", "columns": {"item_id": "ASIN"},
                "fields": {"genres": {"kind": "category", "separator": "|"}, "plot": "text"},
            },
            interactions={"path": "l.db", "table": "log", "rating": [1, 5]},
            users={"path": "u.jsonl"},
            kg={"path": "kg.parquet"},
            extras={"tags": {"path": "t.csv", "data_cutoff": "ctr"}},
            splits={
                "ctr": {"protocol": "given", "column": "fold", "label": "rating >= 4"},
                "ctr_time": {"protocol": "time", "label": "rating >= 4", "history": 3},
                "sequential": {"protocol": "leave_one_out"},
            },
            recorded={
                "item_knowledge": {"path": "k.parquet", "data_cutoff": "none"},
                "user_preference": {
                    "v2": {"path": "p.parquet", "filter": {"version": "v2"}, "data_cutoff": "fold"},
                    "v3": {"path": "p.parquet"},
                },
            },
            default_task="ctr",
        ),
        FILE,
    )  # fmt: skip
    assert d.items.columns == {"item_id": "ASIN", "title": "Name"}
    assert d.items.fields["genres"].separator == "|" and d.items.fields["plot"].kind == "text"
    assert [s.format for s in d.sources.values()] == ["csv", "sqlite", "jsonl", "parquet", "csv"]
    assert d.interactions.rating == (1.0, 5.0)
    assert d.tasks == ("ctr", "ctr_time", "sequential")
    assert d.split("ctr_time").task == "ctr" and d.split("ctr_time").history == 3
    assert d.split("ctr").duplicates == "keep" and d.split("sequential").duplicates == "first"
    assert d.recorded_for("user_preference").variant == "v2"
    assert d.recorded_for("user_preference", "v3").data_cutoff == "unknown"
    assert d.recorded_for("user_preference").entity == "user"
    assert d.recorded_for("item_summary") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"itmes": {}}, ["shop.toml", "itmes", "did you mean 'items'"]),
        ({"items": {"path": "i.csv", "colums": {}}}, ["items.colums", "did you mean 'columns'"]),
        ({"items": {"pth": "i.csv"}}, ["items.path", "is missing", "did you mean 'pth'"]),
        ({"items": {"path": "i.xlsx"}}, ["items.format", "'i.xlsx'"]),
        ({"items": {"path": "i.db"}}, ["items.table", "is missing"]),
        ({"items": {"path": "i.csv", "fields": {"g": "categry"}}},
         ["items.fields.g.kind", "did you mean 'category'"]),
        ({"interactions": {"path": "l.csv", "rating": [5, 1]}}, ["interactions.rating"]),
        ({"interactions": {"path": "l.csv", "time": "milisecond"}},
         ["did you mean 'milliseconds'"]),
        ({"splits": {"ctr": {"protocol": "leave_one_out"}}}, ["splits.ctr.label"]),
        ({"splits": {"sequential": {"protocol": "leave-one-out"}}},
         ["did you mean 'leave_one_out'"]),
        ({"splits": {"sequential": {"protocol": "leave_one_out", "shares": [1, 0, 0]}}},
         ["shares", "no meaning for protocol 'leave_one_out'"]),
        ({"splits": {"sequential": {"protocol": "time", "shares": [0.9, 0.2, 0.1]}}}, ["sum 1"]),
        ({"splits": {"collaborative": {"protocol": "time", "k_core": 5}}}, ["k_core", "future"]),
        ({"splits": {"mine": {"protocol": "time"}}}, ["splits.mine.task"]),
        ({"default_task": "ctr"}, ["default_task", "'ctr'"]),
        ({"recorded": {"item_knowledge": {"path": "k.csv", "data_cutoff": "u1"}}},
         ["recorded.item_knowledge.data_cutoff", "'none'"]),
        ({"name": "My Shop"}, ["name", "lower case"]),
        ({"items": 3}, ["[items]", "table"]),
    ],
)  # fmt: skip
def test_faults_name_the_place_and_the_mend(change, words):
    with pytest.raises(DataError) as fault:
        parse_description(raw(**change), FILE)
    for word in words:
        assert word in str(fault.value)


def test_broken_or_missing_file(tmp_path):
    with pytest.raises(DataError, match="no data-set description"):
        load_description(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_text("name = ")
    with pytest.raises(DataError, match="not valid toml"):
        load_description(tmp_path / "x.toml")


def test_root_below_the_data_root(tmp_path):
    d = parse_description(raw(root="$data/shop", obtain="the shop's own export"), FILE)
    assert d.folder(tmp_path) == tmp_path / "shop"
    with pytest.raises(DataError, match=r"LLMERS_DATA_ROOT.*holds shop.*own export"):
        d.folder(None)
    here = parse_description(raw(root="sub"), tmp_path / "shop.toml")
    assert here.folder(None) == tmp_path / "sub"


def test_digests_follow_the_settings_that_matter():
    plain = parse_description(raw(splits={"sequential": {"protocol": "leave_one_out"}}), FILE)
    told = parse_description(
        raw(about="told", splits={"sequential": {"protocol": "leave_one_out"}}), Path("other.toml")
    )
    longer = parse_description(
        raw(splits={"sequential": {"protocol": "leave_one_out", "min_length": 4}}), FILE
    )
    mapped = parse_description(raw(items={"path": "i.csv", "title": "t"}), FILE)
    assert plain.table_digest() == told.table_digest() != mapped.table_digest()
    assert plain.split_digest("sequential") == told.split_digest("sequential")
    assert plain.split_digest("sequential") != longer.split_digest("sequential")


def test_unknown_split_lists_the_declared_ones():
    d = parse_description(raw(splits={"sequential": {"protocol": "leave_one_out"}}), FILE)
    with pytest.raises(DataError, match=r"no split 'ctr'; it has sequential; add \[splits.ctr\]"):
        d.split("ctr")
