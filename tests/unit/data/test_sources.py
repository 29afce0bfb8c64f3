from __future__ import annotations

import gzip
import sqlite3
import uuid

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.description import Source
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.sources import content_hash, plain_columns, read_source


def read(tmp_path, name, data, **options):
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    kind = options.pop("format", name.rsplit(".")[-1])
    return read_source(Source("items", name, kind, **options), tmp_path, ["id"])


def test_csv_keeps_zeros_long_numbers_and_line_breaks(tmp_path):
    raw = read(tmp_path, "x.csv", 'id,t\n007,"a\nb"\n12345678901234567890,"say ""hi"", ok"\n1.0,\n')
    assert raw.table.to_pylist() == [
        {"id": "007", "t": "a\nb"},
        {"id": "12345678901234567890", "t": 'say "hi", ok'},
        {"id": "1.0", "t": None},
    ]
    assert raw.rows.tolist() == [1, 2, 3] and raw.rejects == ()


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (b"id;t\r\n1;\xe4\r\n", {"encoding": "latin-1"}),
        ("id,t\n1,ä\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("\ufeffid\tt\n1\tä\n".encode(), {}),
        ("1::ä\n".encode(), {"delimiter": "::", "names": ("id", "t")}),
        (b'id,t\r\n1,"\xc3\xa4"\r\n', {}),
    ],
)
def test_csv_dialects(tmp_path, data, options):
    assert read(tmp_path, "x.csv", data, **options).table.to_pylist() == [{"id": "1", "t": "ä"}]


def test_csv_of_a_spreadsheet_mixes_line_endings(tmp_path):
    raw = read(tmp_path, "x.csv", b'id,t\r\n1,"a\nb"\r\n2,c\r\n')
    assert [r["t"] for r in raw.table.to_pylist()] == ["a\nb", "c"]


def test_wrong_encoding_names_byte_line_and_mend(tmp_path):
    with pytest.raises(DataError) as fault:
        read(tmp_path, "x.csv", b"id,t\n1,ok\n2,caf\xe9\n3,ok\n")
    for word in ("x.csv", "0xe9", "position 15", "line 3", 'encoding = "latin-1"'):
        assert word in str(fault.value)


def test_wrong_encoding_beyond_the_first_block(tmp_path):
    lines = b"id,t\n" + b"1,abcdefghij\n" * 400_000
    with pytest.raises(DataError, match=rf"position {len(lines) + 2} \(line 400002\)"):
        read(tmp_path, "x.csv", lines + b"2,\xff\n")


def test_malformed_records_are_reported_by_number(tmp_path):
    raw = read(tmp_path, "x.csv", 'id,t\n1,a\n2\n3,"b\nc"\n4,d,e\n5,f\n"6,g\n')
    assert raw.table["id"].to_pylist() == ["1", "3", "5"] and raw.rows.tolist() == [1, 3, 5]
    found = [(r.row, r.reason) for r in raw.rejects]
    assert found == [
        (2, "fewer values than columns"), (4, "more values than columns"),
        (6, "a quotation mark is not closed"),
    ]  # fmt: skip


def test_malformed_record_numbers_in_a_large_file(tmp_path):
    rows = [f"{i},text {i}" for i in range(1, 100_001)]
    for bad in (7, 50_000, 99_999):
        rows[bad - 1] = f"{bad},too,many"
    raw = read(tmp_path, "x.csv", "id,t\n" + "\n".join(rows) + "\n")
    assert [r.row for r in raw.rejects] == [7, 50_000, 99_999]
    assert raw.rows.tolist() == [int(i) for i in raw.table["id"].to_pylist()]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty (0 bytes)"),
        (b"\nid,t\n", "empty line"),
        (b"id,id\n1,2\n", "'id' occurs twice"),
        (b"id,\n1,2\n", "column 2 of the header has no name"),
        (b"id\n1\n", "no delimiter found"),
        ("id,t\n".encode("utf-16"), 'encoding = "utf-16"'),
        (b"PK\x03\x04rest", "compressed"),
    ],
)
def test_unusable_csv_files(tmp_path, data, words):
    with pytest.raises(DataError) as fault:
        read(tmp_path, "x.csv", data)
    assert words in str(fault.value)


def test_missing_file_lists_the_folder(tmp_path):
    (tmp_path / "item.csv").write_text("x")
    with pytest.raises(DataError, match=r"items\.csv does not exist; its folder holds item\.csv"):
        read_source(Source("items", "items.csv", "csv"), tmp_path)
    with pytest.raises(DataError, match="nor does its folder"):
        read_source(Source("items", "sub/items.csv", "csv"), tmp_path)


def test_jsonl_keeps_text_as_text(tmp_path):
    some = str(uuid.uuid4())
    data = (
        '{"id": "007", "day": "2020-01-01", "tags": ["a", "b"]}\n'
        f'{{"id": 12345678901234567890123, "u": "{some}", "n": 1.5}}\n'
        "{broken\n"
        '{"id": null}\n'
    )
    raw = read(tmp_path, "x.jsonl", data)
    assert raw.table["id"].to_pylist() == ["007", "12345678901234567890123", None]
    assert raw.table["day"].to_pylist()[0] == "2020-01-01"
    assert raw.table["u"].to_pylist()[1] == some
    assert raw.rows.tolist() == [1, 2, 4] and [r.row for r in raw.rejects] == [3]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1,2]", "an array, not an object"), ('"x"', "a string, not an object"),
        ("-5", "a number, not an object"), ("1.5", "a number, not an object"),
        ("5", "a number, not an object"), ("null", "null, not an object"),
        ('{"id": 1, broken', "not valid JSON"), ('{"id": 1} {"id": 2}', "not valid JSON"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_object_is_one_bad_row(tmp_path, line, why):
    raw = read(tmp_path, "x.jsonl", '{"id": "1"}\n\n' + line + '\r\n{"id": "2", "n": 3}\n')
    assert raw.table.to_pylist() == [{"id": "1", "n": None}, {"id": "2", "n": 3}]
    assert raw.rows.tolist() == [1, 3]
    (found,) = raw.rejects
    assert (found.row, found.value, found.reason) == (2, line, f"the line is {why}")
    assert found.mend == "write one JSON object per line"


def test_jsonl_encodings(tmp_path):
    latin = '{"id": "1"}\n{"id": "é"}\n'.encode("latin-1")
    with pytest.raises(DataError) as fault:
        read(tmp_path, "x.jsonl", latin)
    for word in ("x.jsonl", "0xe9", "line 2", 'encoding = "latin-1"'):
        assert word in str(fault.value)
    raw = read(tmp_path, "x.jsonl", latin, encoding="latin-1")
    assert raw.table["id"].to_pylist() == ["1", "é"]
    marked = read(tmp_path, "x.jsonl", '\ufeff{"id": "é"}\n'.encode())
    assert marked.table["id"].to_pylist() == ["é"] and not marked.rejects
    assert read(tmp_path, "y.jsonl.gz", gzip.compress(b'{"id": "1"}\n'), format="jsonl").rows == [1]
    with pytest.raises(DataError, match=r"y\.jsonl\.gz: byte 0xe9 .*line 2"):
        read(tmp_path, "y.jsonl.gz", gzip.compress(latin), format="jsonl")
    with pytest.raises(DataError, match=r"no line holds a JSON object; the first line is '\['"):
        read(tmp_path, "z.jsonl", '[\n"a"]\n')


def test_a_database_cell_that_is_not_utf8_is_one_bad_row(tmp_path):
    db = sqlite3.connect(tmp_path / "s.sqlite")
    db.execute("CREATE TABLE items (id TEXT, title TEXT, mixed)")
    for n, title in enumerate((b"one", b"Caf\xe9", "drei ü".encode()), 1):
        blob = (b"\xff\x00", None, "x")[n - 1]
        db.execute("INSERT INTO items VALUES (?, CAST(? AS TEXT), ?)", (f"00{n}", title, blob))
    db.commit()
    db.close()
    raw = read_source(Source("items", "s.sqlite", "sqlite", table="items"), tmp_path)
    assert raw.table.to_pylist() == [
        {"id": "001", "title": "one", "mixed": "ff00"},
        {"id": "003", "title": "drei ü", "mixed": "x"},
    ]  # fmt: skip
    (bad,) = raw.rejects
    assert raw.rows.tolist() == [1, 3]
    assert (bad.row, bad.column, bad.value) == (2, "title", "Caf\\xe9")


def test_parquet_pattern_and_broken_parquet(tmp_path):
    for n in (1, 2):
        pq.write_table(pa.table({"id": [n]}), tmp_path / f"part-{n}.parquet")
    raw = read_source(Source("items", "part-*.parquet", "parquet"), tmp_path)
    assert raw.table["id"].to_pylist() == [1, 2]
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read(tmp_path, "x.parquet", b"no parquet at all")


def test_databases(tmp_path):
    with duckdb.connect(str(tmp_path / "d.duckdb")) as db:
        db.execute("CREATE TABLE items AS SELECT '007' AS id, 2 AS n")
    raw = read_source(Source("items", "d.duckdb", "duckdb", table="items"), tmp_path)
    assert raw.table.to_pylist() == [{"id": "007", "n": 2}]
    db = sqlite3.connect(tmp_path / "s.sqlite")
    db.execute("CREATE TABLE items (id TEXT, n INTEGER, mixed)")
    db.executemany("INSERT INTO items VALUES (?, ?, ?)", [("007", 2, 1), ("8", None, "x")])
    db.commit()
    db.close()
    raw = read_source(Source("items", "s.sqlite", "sqlite", table="items"), tmp_path)
    assert raw.table.to_pylist() == [
        {"id": "007", "n": 2, "mixed": "1"}, {"id": "8", "n": None, "mixed": "x"},
    ]  # fmt: skip
    for name, kind in (("d.duckdb", "duckdb"), ("s.sqlite", "sqlite")):
        with pytest.raises(DataError, match="no table 'item'; it has items"):
            read_source(Source("items", name, kind, table="item"), tmp_path)


def test_lists_become_joined_text():
    table = pa.table({"g": [["a", "b"], None], "s": [{"k": 1}, None]})
    plain = plain_columns(table, {}, "x")
    assert plain["g"].to_pylist() == ["a|b", None]
    assert plain["s"].to_pylist() == ["{'k': 1}", None]
    with pytest.raises(DataError, match="holds lists; describe it with a separator"):
        plain_columns(table, {"g": ""}, "x")


def test_content_hash_sees_content_not_place(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("1")
    known = {}
    first = content_hash([a], known)
    assert first == content_hash([b]) and set(known) == {str(a)}
    known[str(a)] = (*known[str(a)][:2], "remembered")
    assert content_hash([a], known) != first  # unchanged file: not read again
    a.write_text("22")
    assert content_hash([a], known) == content_hash([a]) != first
