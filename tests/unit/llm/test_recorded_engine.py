"""Answers recorded elsewhere hold for one version of a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.recorded import Entry, RecordedFile, Recording, read_recording
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.llm.imports import ImportManifest
from llmers_pipelines.llm.keys import description_sha
from llmers_pipelines.llm.protocol import EngineError, GenRequest, GenResult
from llmers_pipelines.llm.recorded import RecordedEngine
from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.prompts.user_preference import UserPreference
from llmers_pipelines.store.responses import ResponseStore

ROW = {"item_id": "7", "title": "The Tide Clock", "year": 1931}
TEXT = 'Of "The Tide Clock", they say: quiet,\nslow and "true".'


def batch_line(custom_id: str, text: str | None = TEXT, **more: Any) -> dict[str, Any]:
    body = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 9},
        **more,
    }
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def answer(engine: RecordedEngine, row: dict[str, Any], id_column: str = "item_id") -> GenResult:
    (result,) = engine.generate([GenRequest(str(row[id_column]), (), row=row)])
    return result


def told(texts: dict[str, str], sha256: str, *, name: str) -> Recording:
    return Recording({i: Entry(text) for i, text in texts.items()}, sha256, name)


def engine(file: RecordedFile, folder: Path) -> RecordedEngine:
    return RecordedEngine(read_recording(file), ImportManifest(folder / "imports"))


def test_what_the_line_tells_of_the_answer_is_kept(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "b.jsonl", [batch_line("t:7"), batch_line("t:8", None)])
    made = engine(RecordedFile(path, task="t"), tmp_path)
    assert answer(made, ROW) == GenResult("7", TEXT, "stop", 30, 9)
    assert "no recorded answer" in answer(made, {"item_id": "8"}).error


def test_identity_is_the_files_hash(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "b.jsonl", [batch_line("t:7")])
    first = engine(RecordedFile(path, model="gpt-x", data_cutoff="u1_split"), tmp_path).info
    assert first.label == f"gpt-x@{first.weights_sha256[:12]} (recorded)"
    assert first.data_cutoff == "u1_split" and not first.capabilities
    write_lines(path, [batch_line("t:7", "changed")])
    assert engine(RecordedFile(path), tmp_path).info.identity != first.identity


def test_a_changed_row_has_no_recorded_answer(tmp_path: Path) -> None:
    recording = told({"7": TEXT}, "a" * 64, name="texts")
    folder = tmp_path / "imports"
    first = RecordedEngine(recording, ImportManifest(folder))
    assert answer(first, ROW).text == TEXT
    later = RecordedEngine(recording, ImportManifest(folder))  # another process, another day
    assert answer(later, ROW).text == TEXT
    assert "has changed since" in answer(later, ROW | {"year": 1932}).error
    assert answer(later, ROW).text == TEXT  # changed back


def test_a_row_is_remembered_at_its_first_sight_even_in_a_run_that_is_given_up(
    tmp_path: Path,
) -> None:
    recording = told({"7": TEXT, "8": TEXT}, "a" * 64, name="texts")
    made = RecordedEngine(recording, ImportManifest(tmp_path))
    stream = made.generate([GenRequest("7", (), row=ROW), GenRequest("8", (), row={})])
    next(stream)
    stream.close()
    assert ImportManifest(tmp_path).same("7", "another hash") is False
    assert ImportManifest(tmp_path).same("8", "any hash") is True


def test_a_batch_line_may_name_the_version_it_was_written_for(tmp_path: Path) -> None:
    columns = (("title", "title"), ("year", "year"))
    sha = description_sha(ROW, columns)
    line = batch_line("t:7", metadata={"item": {"description_sha": sha}})
    path = write_lines(tmp_path / "b.jsonl", [line])
    made = engine(RecordedFile(path, source_columns=columns), tmp_path)
    assert answer(made, ROW).text == TEXT
    assert answer(made, ROW | {"stock": 3}).text == TEXT  # no source column
    changed = answer(made, ROW | {"title": "The Tide Clock II"})
    assert changed.error.startswith("no recorded answer") and sha in changed.error


def test_a_run_keeps_raw_answers_and_asks_nothing_twice(tmp_path: Path) -> None:
    rows = [ROW, {"item_id": "8", "title": "Salt Road"}, {"item_id": "9", "title": "Gull Letters"}]
    texts = {"7": TEXT, "9": "Sorry, but I am unable to describe this book."}
    recording = told(texts, "a" * 64, name="texts")
    store = ResponseStore(tmp_path / "store")
    for _ in range(2):
        made = RecordedEngine(recording, ImportManifest(tmp_path / "imports"))
        result = run_task(ItemKnowledge(), rows, made, store, progress=False)
        assert result.rows["status"].to_pylist() == ["ok", "no_answer", "quarantined"]
        wanted = {"recorded": 2, "llm_calls": 0, "cache_hits": 0, "no_answer": 1, "quarantined": 1}
        assert {name: result.counts[name] for name in wanted} == wanted
        assert store.stats()["rows"] == 2
    assert result.rows["raw"].to_pylist() == [TEXT, None, texts["9"]]


def test_equal_prompts_of_different_rows_keep_their_own_answers(tmp_path: Path) -> None:
    rows = [{"item_id": i, "title": "Twin"} for i in "12"]
    texts = {"1": "Twin follows two quiet brothers.", "2": "Twin describes a cargo ship."}
    made = RecordedEngine(
        told(texts, "a" * 64, name="t"), ImportManifest(tmp_path / "i")
    )
    result = run_task(ItemKnowledge(), rows, made, ResponseStore(tmp_path / "s"), progress=False)
    assert result.rows["text"].to_pylist() == list(texts.values())


def test_it_ranks_and_embeds_nothing(tmp_path: Path) -> None:
    made = RecordedEngine(told({}, "a", name="t"), ImportManifest(tmp_path))
    with pytest.raises(EngineError, match="recorded engine cannot embed"):
        made.embed(["a"])
    with pytest.raises(EngineError, match="recorded engine cannot rank"):
        made.choose([])


def _items(root: Path, name: str) -> list[dict[str, Any]]:
    table = pq.read_table(root / name / "items.parquet")
    ids = table["item_id"].cast(pa.string())
    return table.set_column(table.column_names.index("item_id"), "item_id", ids).to_pylist()


@pytest.mark.data
def test_ml100k_item_profiles(data_root: Path, tmp_path: Path) -> None:
    items = _items(data_root, "ml100k")
    made = engine(RecordedFile(data_root / "ml100k" / "llm_item_profiles.parquet"), tmp_path)
    store = ResponseStore(tmp_path / "store")
    context = {"domain": "movies"}
    result = run_task(ItemKnowledge(), items, made, store, progress=False, context=context)
    counts = result.counts
    assert (counts["rows"], counts["recorded"], counts["no_answer"]) == (1682, 1591, 91)
    assert counts["quarantined"] == 0 and counts["llm_calls"] == 0
    # Answers handed to the wrong owners are refused: the grounding rule sees the difference.
    ids = list(made.recording.entries)
    texts = [made.recording.entries[i].text for i in ids]
    shifted = dict(zip(ids, texts[1:] + texts[:1], strict=True))
    wrong = RecordedEngine(
        told(shifted, "b" * 64, name="wrong"), ImportManifest(tmp_path / "wrong")
    )
    refused = run_task(ItemKnowledge(), items, wrong, store, progress=False, context=context)
    assert refused.counts["quarantined"] > 0.9 * counts["recorded"]


@pytest.mark.data
def test_ml1m_item_descriptions(data_root: Path, tmp_path: Path) -> None:
    items = _items(data_root, "ml1m")
    made = engine(RecordedFile(data_root / "ml1m" / "llm_item_descriptions.parquet"), tmp_path)
    result = run_task(
        ItemKnowledge(), items, made, ResponseStore(tmp_path / "store"), progress=False
    )
    assert result.counts["recorded"] == 3883
    assert result.rows["status"].to_pylist().count("ok") == 3882  # one recorded text is empty
    bad = [r for r in result.rows.to_pylist() if r["status"] == "quarantined"]
    assert [r["reason"] for r in bad] == ["the answer is empty"]


@pytest.mark.data
def test_ml1m_user_profiles_need_the_filter_and_loops_are_refused(
    data_root: Path, tmp_path: Path
) -> None:
    path = data_root / "ml1m" / "llm_user_profiles_llama3.parquet"
    with pytest.raises(DataError, match="more than one answer; add a filter"):
        read_recording(RecordedFile(path, id_column="user_id"))
    file = RecordedFile(path, id_column="user_id", filter={"status": "kept"})
    users = [{"user_id": i, "history": [{"title": "A film"}]}
             for i in list(read_recording(file).entries)[:1500]]  # fmt: skip
    result = run_task(UserPreference(), users, engine(file, tmp_path),
                      ResponseStore(tmp_path / "store"), progress=False)  # fmt: skip
    reasons = [r["reason"] or "" for r in result.rows.to_pylist()]
    assert sum("repeats itself" in r for r in reasons) >= 20
    assert sum(not r or r.startswith("titles are quoted") for r in reasons) > 1400
