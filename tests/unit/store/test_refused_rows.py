"""One row that no column can hold costs no other row of its flush."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.store.refused import FILE
from llmers_pipelines.store.responses import ResponseStore, Writer


def put(writer: Writer, n: int, **more: Any) -> str:
    values: dict[str, Any] = {"text": f"answer {n}", "finish_reason": "stop", "identity": "m",
                              "request": f"question {n}", "row_id": str(n)} | more  # fmt: skip
    return writer.put(**values)


@pytest.mark.parametrize("bad", [{"model": "\ud800"}, {"row_id": "\udfff"}], ids=["model", "row"])
def test_the_rest_of_a_flush_is_stored(
    tmp_path: Path, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store = ResponseStore(tmp_path)
    with store.writer() as writer:
        keys = [put(writer, n, **(bad if n == 3 else {})) for n in range(8)]
    found = store.lookup(keys)
    assert sorted(found) == sorted(k for n, k in enumerate(keys) if n != 3)
    assert store.verify() == []
    (line,) = (tmp_path / FILE).read_text().splitlines()
    kept = json.loads(line)
    assert kept["row"]["key"] == keys[3] and kept["row"]["text"] == "answer 3"
    assert kept["column"] in bad and keys[3] in caplog.text


@pytest.mark.parametrize(
    ("told", "stored"), [(3_000_000_000, 2**31 - 1), (-4, 0), (10**30, 2**31 - 1)]
)
def test_a_count_beyond_the_column_becomes_the_nearest(
    tmp_path: Path, told: int, stored: int
) -> None:
    store = ResponseStore(tmp_path)
    with store.writer() as writer:
        key = put(writer, 1, tokens_in=told, tokens_out=told)
    answer = store.lookup([key])[key]
    assert (answer.tokens_in, answer.tokens_out) == (stored, stored) and store.verify() == []


def test_a_number_beside_an_answer_is_stored_as_text(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    with store.writer() as writer:
        key = put(writer, 1, row_id=7)
    assert store.records([key])[0]["row_id"] == "7" and store.verify() == []
