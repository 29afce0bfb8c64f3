from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.recorded import load_recorded
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.sources import file_hash


def answer(custom_id, text, **more):
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return json.dumps({"custom_id": custom_id, "response": {"body": body}} | more)


def test_table_with_variants(make, tmp_path):
    pq.write_table(
        pa.table({
            "user_id": [1, 2, 1, None, 1],
            "version": ["v1", "v1", "v2", "v1", "v1"],
            "likes": ["x", None, "y", "z", "again"],
            "why": ["because", "of", None, "q", "r"],
        }),
        tmp_path / "p.parquet",
    )  # fmt: skip
    base = {"path": "p.parquet", "text": ["likes", "why"], "data_cutoff": "none"}
    d = make(recorded={"user_preference": {
        v: base | {"filter": {"version": v}} for v in ("v1", "v2")
    }})  # fmt: skip
    found = load_recorded(d, "user_preference")
    assert found.spec.key == "user_preference.v1"
    assert found.texts() == {"1": "x\nbecause", "2": "of"}
    assert found.ignored == {"no_id": 1, "repeated_id": 1}
    assert found.sha256 == file_hash(tmp_path / "p.parquet")
    assert load_recorded(d, "user_preference", "v2").texts() == {"1": "y"}
    assert load_recorded(d, "item_summary") is None
    with pytest.raises(DataError, match=r"no recorded user_preference 'v3'.*variants: v1, v2"):
        load_recorded(d, "user_preference", "v3")


def test_batch_output(make, tmp_path):
    lines = [
        json.dumps({"about": "a header"}),
        answer("item_knowledge:007", "first try"),
        answer("item_summary:007", "another task"),
        json.dumps({"custom_id": "item_knowledge:8", "response": None, "error": {"code": "x"}}),
        answer("item_knowledge:007", "second\ntry"),
        json.dumps({"custom_id": "item_knowledge:007", "response": None, "error": {"code": "x"}}),
        answer("9", "no task named"),
    ]
    (tmp_path / "k.jsonl").write_text("\n".join(lines) + "\n")
    spec = {"path": "k.jsonl", "format": "openai_batch", "data_cutoff": "none"}
    d = make(recorded={"item_knowledge": spec, "user_preference": spec})
    found = load_recorded(d, "item_knowledge")
    assert found.texts() == {"007": "second\ntry", "9": "no task named"}
    assert len(found.table) == 3 and found.ignored == {"repeated_id": 2}
    assert load_recorded(d, "user_preference").texts() == {"9": "no task named"}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([answer("item_knowledge:1", "x"), "{broken"], "record 2: not a JSON object"),
        ([answer("item_knowledge:1", "x"), "{}"], "record 2: no custom_id"),
        ([answer("item_summary:1", "x")], "no line answers the task 'item_knowledge'"),
    ],
)
def test_broken_batches(make, tmp_path, lines, words):
    (tmp_path / "k.jsonl").write_text("\n".join(lines) + "\n")
    spec = {"path": "k.jsonl", "format": "openai_batch", "data_cutoff": "none"}
    with pytest.raises(DataError) as fault:
        load_recorded(make(recorded={"item_knowledge": spec}), "item_knowledge")
    assert words in str(fault.value)


def test_missing_file_and_column(make, tmp_path):
    d = make(recorded={"item_knowledge": {"path": "k.csv", "data_cutoff": "none"}})
    with pytest.raises(DataError, match=r"k\.csv does not exist"):
        load_recorded(d, "item_knowledge")
    (tmp_path / "k.csv").write_text("item_id,texts\na,x\n")
    with pytest.raises(DataError, match=r"names column 'text'.*did you mean 'texts'"):
        load_recorded(d, "item_knowledge")
