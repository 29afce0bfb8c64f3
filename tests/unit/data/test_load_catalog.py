from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.catalog import load_catalog, require_files, source_version
from llmers_pipelines.data.quarantine import fault_lines
from llmers_pipelines.data.schema import DataError, arrow_schema

HEAD = "user_id,item_id,rating,timestamp\n"


def reasons(catalog):
    columns = ("table", "row", "column", "value", "reason", "action")
    return [tuple(f[c] for c in columns) for f in catalog.quarantine.to_pylist()]


def test_clean_data_set(make):
    catalog = load_catalog(make())
    assert catalog.items.column_names == ["item_id", "title"] and len(catalog.items) == 4
    assert catalog.interactions.column_names == ["user_id", "item_id", "timestamp", "rating", "row"]
    assert catalog.interactions.schema.field("timestamp").type == pa.int64()
    assert catalog.users.to_pylist() == [{"user_id": "u1"}, {"user_id": "u2"}]
    assert catalog.quarantine.schema == arrow_schema("quarantine") and not len(catalog.quarantine)
    assert catalog.info["clock"] == "seconds"
    assert catalog.info["records_read"] == {"items": 4, "interactions": 6}


@pytest.mark.parametrize(
    ("row", "toml", "expected"),
    [
        (",a,5,1500000000", {}, ("user_id", None, "null_id")),
        ("u1,,5,1500000000", {}, ("item_id", None, "null_id")),
        ("u1,zzz,5,1500000000", {}, ("item_id", "zzz", "unknown_item")),
        ("u1,a,5,yesterday", {}, ("timestamp", "yesterday", "unparsable_time")),
        ("u1,a,5,", {}, ("timestamp", None, "missing_time")),
        ("u1,a,5,1500000000000", {}, ("timestamp", "1500000000000", "unparsable_time")),
        ("u1,a,5,nan", {}, ("timestamp", "nan", "unparsable_time")),
        ("u1,a,5,inf", {}, ("timestamp", "inf", "unparsable_time")),
        ("u1,a,5,1e300", {}, ("timestamp", "1e300", "unparsable_time")),
        ("u1,a,five,1500000000", {}, ("rating", "five", "unparsable_rating")),
        ("u1,a,inf,1500000000", {}, ("rating", "inf", "unparsable_rating")),
        ("u1,a,6,1500000000", {"rating": [1, 5]}, ("rating", "6", "rating_out_of_range")),
        ("u1,a,5", {}, ("", "u1,a,5", "malformed_row")),
        ("u" * 600 + ",a,5,1500000000", {}, ("user_id", "u" * 200, "oversized_id")),
    ],
)
def test_a_bad_row_goes_to_quarantine_and_the_others_stay(make, row, toml, expected):
    good = "u1,a,5,1500000001\nu2,b,,1500000002\n"
    catalog = load_catalog(make(log=HEAD + good + row + "\n", log_toml=toml))
    column, value, reason = expected
    assert reasons(catalog) == [("interactions", 3, column, value, reason, "dropped")]
    assert catalog.info["quarantined"] == {f"interactions.{reason}": 1}
    assert catalog.interactions["row"].to_pylist() == [1, 2]
    assert catalog.interactions["rating"].to_pylist() == [5.0, None]
    (line,) = fault_lines(catalog.quarantine)
    for word in ("log.csv, row 3", column, str(value), reason):
        assert word in line
    assert len(line.split("; ", 1)[1]) > 10  # the mend


def test_a_broken_line_of_json_is_shown_with_its_own_mend(make, tmp_path):
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "title": "A"}\n[7]\n')
    log = "user_id,item_id,timestamp\nu,a,1500000000\n"
    catalog = load_catalog(make(None, log, items_toml={"path": "items.jsonl"}))
    (line,) = fault_lines(catalog.quarantine)
    for word in ("items.jsonl, row 2: '[7]'", "not an object", "write one JSON object per line"):
        assert word in line
    assert "delimiters" not in line and catalog.info["records_read"]["items"] == 2


def test_first_fault_of_a_row_is_its_reason(make):
    log = HEAD + "u1,a,5,1500000000\n,zzz,six,never\n"
    assert len(load_catalog(make(log=log)).quarantine) == 1


def test_items_duplicate_and_empty_ids(make):
    items = "item_id,title\na,Alpha\n,None\na,Again\nb,Beta\nc,G\nd,D\n"
    catalog = load_catalog(make(items=items))
    assert catalog.items["item_id"].to_pylist() == ["a", "b", "c", "d"]
    assert catalog.items["title"].to_pylist()[0] == "Alpha"
    assert [r[1:5] for r in reasons(catalog)] == [
        (2, "item_id", None, "null_id"), (3, "item_id", "a", "duplicate_id"),
    ]  # fmt: skip


def test_faults_name_the_column_of_the_file(make):
    items = "ASIN,name\na,Alpha\nb,B\n"
    log = "who,what\nu1,a\nu1,x\n"
    toml = {"columns": {"user_id": "who", "item_id": "what"}}
    catalog = load_catalog(
        make(items, log, items_toml={"columns": {"item_id": "ASIN"}, "title": "name"},
             log_toml=toml)
    )  # fmt: skip
    assert catalog.items.column_names == ["item_id", "title"]
    assert reasons(catalog)[0][2:5] == ("what", "x", "unknown_item")
    assert catalog.info["clock"] == "none"


def test_unknown_items_may_be_kept(make):
    log = HEAD + "u1,a,5,1500000000\nu1,new,5,1500000001\n"
    catalog = load_catalog(make(log=log, log_toml={"unknown_items": "keep"}))
    assert catalog.items["item_id"].to_pylist() == ["a", "b", "c", "d", "new"]
    assert catalog.items["title"].to_pylist()[-1] is None and not len(catalog.quarantine)


def test_oversized_text_and_bad_numbers_are_cleared_not_dropped(make):
    items = f"item_id,title,pages\na,{'x' * 50},12\nb,B,many\nc,C,\nd,D,3.5\n"
    toml = {"max_chars": 40, "fields": {"pages": "number"}}
    catalog = load_catalog(make(items=items, items_toml=toml))
    assert catalog.items["title"].to_pylist() == [None, "B", "C", "D"]
    assert catalog.items["pages"].to_pylist() == [12.0, None, None, 3.5]
    assert sorted(r[4:] for r in reasons(catalog)) == [
        ("oversized_text", "cleared"), ("unparsable_number", "cleared"),
    ]  # fmt: skip


def test_fields_are_made_uniform(make):
    items = (
        "item_id,title,genres,when,brand\n"
        'a,Alien (1979),"Horror, Sci-Fi",1979-05-25,0\n'
        "b,1984,Drama,10-Oct-1984,7\n"
        "c,Up (x) (2009),,2009,8\nd,Delta,,,\n"
    )
    fields = {
        "genres": {"kind": "category", "separator": ","},
        "year": {"kind": "category", "column": "title", "extract": "title_year"},
        "released": {"kind": "number", "column": "when", "extract": "year"},
        "brand": {"kind": "category", "missing": "0"},
    }
    table = load_catalog(make(items=items, items_toml={"fields": fields})).items
    assert table["genres"].to_pylist() == ["Horror|Sci-Fi", "Drama", None, None]
    assert table["year"].to_pylist() == ["1979", None, "2009", None]
    assert table["released"].to_pylist() == [1979.0, 1984.0, 2009.0, None]
    assert table["brand"].to_pylist() == [None, "7", "8", None]
    assert table["when"].to_pylist()[0] == "1979-05-25"  # all columns stay


def test_users_table_is_completed_from_the_log(make, tmp_path):
    (tmp_path / "users.csv").write_text("user_id,age\nu2,30\nu9,40\nu2,31\n")
    catalog = load_catalog(make(users={"path": "users.csv"}))
    assert catalog.users.to_pylist() == [
        {"user_id": "u2", "age": "30"}, {"user_id": "u9", "age": "40"},
        {"user_id": "u1", "age": None},
    ]  # fmt: skip
    assert catalog.info["users_without_attributes"] == 1
    (told,) = catalog.info["warnings"]
    for word in ("users.csv lacks 1 of the 2 users", "log.csv, row 1", "'user_id': 'u1'", "add"):
        assert word in told
    assert load_catalog(make()).info["warnings"] == []
    assert catalog.info["quarantined"] == {"users.duplicate_id": 1}


def test_leading_zeros_survive_and_types_may_differ(make, tmp_path):
    log = "user_id,item_id\n01,007\n02,010\n"
    catalog = load_catalog(make(items="item_id,title\n007,Bond\n010,Ten\n7,Seven\n", log=log))
    assert catalog.interactions["item_id"].to_pylist() == ["007", "010"]
    assert catalog.interactions["user_id"].to_pylist() == ["01", "02"]
    pq.write_table(pa.table({"item_id": [1.0, 2.0], "title": ["x", "y"]}), tmp_path / "i.parquet")
    toml = {"path": "i.parquet"}
    catalog = load_catalog(make(None, "user_id,item_id\nu,1\nu,2\n", items_toml=toml))
    assert len(catalog.interactions) == 2


def test_a_parquet_file_may_hold_its_text_as_bytes(make, tmp_path):
    values = {"item_id": [b"001", b"002"], "title": ["Ä".encode(), None]}
    pq.write_table(pa.table(values), tmp_path / "items.parquet")
    log = "user_id,item_id,timestamp\nu,001,1500000000\nu,002,1500000001\n"
    catalog = load_catalog(make(None, log, items_toml={"path": "items.parquet"}))
    assert catalog.items.to_pylist() == [
        {"item_id": "001", "title": "Ä"}, {"item_id": "002", "title": None},
    ]  # fmt: skip
    assert len(catalog.interactions) == 2 and not len(catalog.quarantine)


def test_ids_written_in_two_ways_are_explained(make):
    items = "item_id,title\n1,x\n2,y\n"
    with pytest.raises(DataError) as fault:
        load_catalog(make(items, "user_id,item_id\nu,1.0\nu,2.0\n"))
    for word in ("no valid interactions left", "2 unknown_item", "row 1", "'1.0'",
                 'set ids = "integer"'):  # fmt: skip
        assert word in str(fault.value)
    mended = make(items, "user_id,item_id\nu,1.0\nu,2.0\n", log_toml={"ids": "integer"})
    assert load_catalog(mended).interactions["item_id"].to_pylist() == ["1", "2"]


def test_order_instead_of_time(make):
    log = "user_id,item_id,timestamp\nu,a,2\nu,b,1\n"
    catalog = load_catalog(make(log=log))
    assert catalog.info["clock"] == "order"
    assert catalog.interactions["position"].to_pylist() == [2, 1]


def test_moments_finer_than_a_second_decide_the_order(make):
    log = HEAD + "u,a,5,1500000000900\nu,b,5,1500000000100\n"
    table = load_catalog(make(log=log)).interactions
    assert table["item_id"].to_pylist() == ["b", "a"] and table["row"].to_pylist() == [2, 1]
    assert table["timestamp"].to_pylist() == [1_500_000_000] * 2


@pytest.mark.parametrize(
    ("items", "log", "toml", "words"),
    [
        ("item_id,title\n", None, {}, "items.csv has column names but no readable rows"),
        (None, "user_id,item_id\n", {}, "log.csv has column names but no readable rows"),
        ("sku,title\na,x\n", None, {}, "items.csv has no column for item_id; map one under"),
        (None, None, {"items_toml": {"columns": {"item_id": "ASIN"}}},
         "has no column 'ASIN', which the description maps to item_id"),
        (None, None, {"items_toml": {"title": "titel"}}, "did you mean 'title'?"),
        (None, None, {"items_toml": {"fields": {"genre": "category"}}},
         "field 'genre' reads column 'genre', which is not there"),
        (None, "user_id,item_id\nu,zz\n", {}, "no valid interactions left (1 unknown_item)"),
        ("item_id,title\n,x\n", None, {}, "no valid rows left (1 null_id)"),
    ],
)  # fmt: skip
def test_whole_table_faults(make, items, log, toml, words):
    given = {k: v for k, v in (("items", items), ("log", log)) if v is not None}
    with pytest.raises(DataError) as fault:
        load_catalog(make(**given, **toml))
    assert words in str(fault.value)


def test_missing_data_set_says_what_and_how(make, tmp_path):
    d = make(root="$data/shop", obtain="ask the shop")
    with pytest.raises(DataError, match="LLMERS_DATA_ROOT to the folder that holds 'shop'"):
        load_catalog(d, tmp_path / "nowhere")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "items.csv").write_text("item_id,title\na,x\n")
    with pytest.raises(DataError, match=r"lacks log.csv; .*ask the shop"):
        require_files(d, tmp_path)
    with pytest.raises(DataError, match=r"lacks extra\.bin"):
        load_catalog(make(requires="extra.bin"))


def test_extras_have_text_ids(make, tmp_path):
    pq.write_table(pa.table({"head_id": [1], "tail_id": [2.0]}), tmp_path / "kg.parquet")
    catalog = load_catalog(make(kg={"path": "kg.parquet"}))
    assert catalog.extras["kg"].to_pylist() == [{"head_id": "1", "tail_id": "2"}]


def write_extras(folder):
    (folder / "reviews.csv").write_text(
        "user_id,item_id,text\nu1,a,good\nghost,a,x\nu1,zzz,y\n,a,z\nu2,b," + "w" * 60 + "\n"
    )
    (folder / "kg.csv").write_text("head_id,relation,tail_id\nm1,by,m2\n,by,m2\nm1, ,m2\nm1\n")
    (folder / "link.csv").write_text("item_id,entity_id\na,m1\nb,m9\nc,\n")
    (folder / "shown.csv").write_text(f"impression_id,user_id\n{'i' * 600},u1\n1,u1\n")
    return {
        "reviews": {"path": "reviews.csv", "max_chars": 50}, "kg": {"path": "kg.csv"},
        "kg_link": {"path": "link.csv"}, "impressions": {"path": "shown.csv"},
    }  # fmt: skip


def test_bad_rows_of_extras_go_to_quarantine(make, tmp_path):
    catalog = load_catalog(make(**write_extras(tmp_path)))
    assert sorted(reasons(catalog)) == [
        ("impressions", 1, "impression_id", "i" * 200, "oversized_id", "dropped"),
        ("kg", 2, "head_id", None, "null_id", "dropped"),
        ("kg", 3, "relation", " ", "no_relation", "dropped"),
        ("kg", 4, "", "m1", "malformed_row", "dropped"),
        ("kg_link", 3, "entity_id", None, "null_id", "dropped"),
        ("reviews", 4, "user_id", None, "null_id", "dropped"),
        ("reviews", 5, "text", "w" * 60, "oversized_text", "cleared"),
    ]
    left = {name: len(table) for name, table in catalog.extras.items()}
    assert left == {"reviews": 4, "kg": 1, "kg_link": 2, "impressions": 1}
    assert catalog.info["records_read"]["kg"] == 4
    assert catalog.extras["reviews"]["text"].to_pylist()[-1] is None


def test_unknown_references_of_extras_are_told_and_stay(make, tmp_path):
    user, item, entity = load_catalog(make(**write_extras(tmp_path))).info["warnings"]
    for told, words in (
        (user, ("reviews.csv: 1 of 5 rows", "row 2, column 'user_id': 'ghost'", "remove")),
        (item, ("reviews.csv: 1 of 5 rows", "row 3, column 'item_id': 'zzz'", "remove")),
        (entity, ("link.csv: 1 of 3 rows", "row 2, column 'entity_id': 'm9'", "head_id")),
    ):
        assert all(word in told for word in words), told


def test_source_version_follows_content_and_mapping(make, tmp_path):
    d = make()
    first = source_version(d)
    assert first == load_catalog(d).source_version == source_version(make(about="new words"))
    with (tmp_path / "log.csv").open("a") as log:
        log.write("u3,a,5,1500000000\n")
    assert source_version(d) != first
    assert source_version(make(items_toml={"max_chars": 9})) != first
