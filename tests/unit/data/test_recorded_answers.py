"""Reading recorded answers: every file form, and the place and mend of each fault."""

from __future__ import annotations

import json
import sqlite3

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.checkup import check_dataset
from llmers_pipelines.data.recorded import RecordedFile, load_recorded, read_recording
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.sources import file_hash

TEXT = 'Of "The Tide Clock", they say: quiet,\nslow and "true".'
ROWS = [
    {"item_id": "007", "version": "v1", "text": "no"},
    {"item_id": "007", "version": "v2", "text": TEXT},
    {"item_id": "8", "version": "v2", "text": "other"},
]


def line(custom_id, text=TEXT, **more):
    body = {"choices": [{"message": {"role": "assistant", "content": text}}], **more}
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": body}}


def write(path, lines):
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def table(path):
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        case ".jsonl":
            write(path, ROWS)
        case ".sqlite":
            with sqlite3.connect(path) as base:
                base.execute("create table answers (item_id text, version text, text text)")
                base.executemany("insert into answers values (:item_id, :version, :text)", ROWS)
        case ".csv":
            quoted = TEXT.replace('"', '""')
            text = f'item_id,version,text\n007,v1,no\n007,v2,"{quoted}"\n8,v2,other\n'
            path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "sqlite"])
def test_tables(tmp_path, kind):
    path = table(tmp_path / f"answers.{kind}")
    where = {"table": "answers"} if kind == "sqlite" else {}
    found = read_recording(RecordedFile(path, filter={"version": "v2"}, **where))
    assert found.texts() == {"007": TEXT, "8": "other"}
    assert found.sha256 == file_hash(path)
    with pytest.raises(DataError, match=r"'007' has more than one answer; add a filter"):
        read_recording(RecordedFile(path, **where))
    with pytest.raises(DataError, match=r"no column 'texts'.*did you mean 'text'"):
        read_recording(RecordedFile(path, text_columns=("texts",), **where))


def test_number_ids_and_several_texts(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"user_id": [7, 8], "a": ["x", None], "b": ["y", None]}), path)
    file = RecordedFile(path, id_column="user_id", text_columns=("a", "b"))
    found = read_recording(file)
    assert found.texts() == {"7": "x\ny"} and found.entries["8"].text is None
    pq.write_table(pa.table({"user_id": [7, None], "a": ["x", "y"]}), path)
    with pytest.raises(DataError, match="a row has no user_id"):
        read_recording(RecordedFile(path, id_column="user_id", text_columns=("a",)))


def test_batch_file_with_and_without_header(tmp_path):
    lines = [line("item_knowledge:7"), line("item_summary:7", "other"), line("9", "no task named")]
    plain = write(tmp_path / "plain.jsonl", lines)
    headed = write(tmp_path / "headed.jsonl", [{"header": {"model": "author"}}, *lines])
    assert read_recording(RecordedFile(headed, task="item_summary")).model == "author"
    given = RecordedFile(headed, task="item_summary", model="declared")
    assert read_recording(given).model == "declared"
    assert read_recording(RecordedFile(plain, task="item_summary")).model == ""
    for path in (plain, headed):
        found = read_recording(RecordedFile(path, task="item_knowledge"))
        assert found.texts() == {"7": TEXT, "9": "no task named"}


def test_batch_lines_that_failed_or_came_twice(tmp_path):
    failed = {"custom_id": "t:1", "response": {"status_code": 500, "body": {}}, "error": None}
    path = write(tmp_path / "b.jsonl", [
        line("t:1", "first"), line("t:1", "second"), failed,
        {"custom_id": "t:2", "response": None, "error": {"message": "expired"}},
    ])  # fmt: skip
    found = read_recording(RecordedFile(path)).entries
    assert found["1"].text == "second"  # asked again: the later answer, but never a failure
    assert found["2"].text is None and "expired" in found["2"].error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"custom_id": "t:1"}\n{"x": 1}\n', "line 2: no custom_id"),
        ('{"custom_id": "t:1"}\n{broken\n', "line 2: not valid JSON"),
        ("[1]\n", "line 1: expected a JSON object"),
        (json.dumps(line("other:1")) + "\n", "no answer for task 'mine'; it has other"),
        ("", "is empty"),
    ],
)
def test_faults_of_a_batch_name_the_line(tmp_path, content, words):
    path = tmp_path / "b.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_recording(RecordedFile(path, task="mine", format="openai_batch"))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_recording(RecordedFile(tmp_path / "none.csv"))
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match="set `format`"):
        read_recording(RecordedFile(tmp_path / "a.pdf"))
    (tmp_path / "a.csv").write_text("item_id,text\n1,x,and more\n2,y\n")
    with pytest.raises(DataError, match="record 1: more values than columns"):
        read_recording(RecordedFile(tmp_path / "a.csv"))


def test_a_description_names_variants_and_the_check_reports_them(make, tmp_path):
    pq.write_table(
        pa.table({
            "user_id": ["u1", "u2", "u1"], "version": ["v1", "v1", "v2"],
            "likes": ["x", None, "y"], "why": ["because", None, "r"],
        }),
        tmp_path / "p.parquet",
    )  # fmt: skip
    base = {"path": "p.parquet", "text": ["likes", "why"], "data_cutoff": "none"}
    d = make(recorded={"user_preference": {
        v: base | {"filter": {"version": v}} for v in ("v1", "v2")
    }})  # fmt: skip
    assert load_recorded(d, "user_preference").texts() == {"u1": "x\nbecause"}
    assert load_recorded(d, "user_preference", "v2").texts() == {"u1": "y\nr"}
    assert load_recorded(d, "item_summary") is None
    with pytest.raises(DataError, match=r"no recorded user_preference 'v3'.*variants: v1, v2"):
        load_recorded(d, "user_preference", "v3")
    assert check_dataset(d)["recorded"] == {
        "user_preference.v1": {"answers": 1, "empty": 1},
        "user_preference.v2": {"answers": 1, "empty": 0},
    }
    (tmp_path / "p.parquet").unlink()
    report = check_dataset(d)
    assert not report["ok"] and "p.parquet does not exist" in report["errors"][0]
