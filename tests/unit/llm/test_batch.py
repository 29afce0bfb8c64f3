"""Batch files: what is written, what is taken back, and what is refused with its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loopback import completion

from llmers_pipelines.llm.batch_export import Exported, Pending, export_batch
from llmers_pipelines.llm.batch_import import Imported, import_batch
from llmers_pipelines.llm.chat_form import Form
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.llm.ledger import Ledger, Use
from llmers_pipelines.llm.meter import utc_day
from llmers_pipelines.llm.openai import OpenAIEngine, OpenAISettings, describe
from llmers_pipelines.llm.pending import pending
from llmers_pipelines.llm.protocol import EngineError, Sampling
from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.prices import Price
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.store.responses import ResponseStore

TASK, MODEL = ItemKnowledge(), "some/model"
GOOD = "{} follows two sisters who keep an old lighthouse."


@dataclass
class Desk:
    """One data folder, with the engine that has a model and no endpoint."""

    folder: Path
    books: list[dict[str, Any]]

    @property
    def store(self) -> ResponseStore:
        return ResponseStore(self.folder / "responses")

    def pending(self, info: Any = None) -> list[Any]:
        return pending(TASK, self.books, info or describe(OpenAISettings(MODEL)), self.store,
                       sampling=Sampling(max_tokens=90))  # fmt: skip

    def export(self, name: str = "requests.jsonl", info: Any = None, **more: Any) -> Exported:
        info = info or describe(OpenAISettings(MODEL))
        about = {"task": TASK.produces, "prompt_revision": TASK.prompt_revision}
        part = Pending("item_summaries/x", "shop", self.pending(info), about)
        settings = {"model": MODEL, "form": Form()} | more
        return export_batch([part], self.folder / name, data=self.folder, info=info, **settings)

    def lines(self, *files: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    def take(self, rows: list[Any], name: str = "answers.jsonl", **more: Any) -> Imported:
        file = self.folder / name
        file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        ledger = Ledger(self.folder / "spending.sqlite")
        price = {MODEL: Price(input=2.0, output=8.0, batch=0.5)}
        return import_batch(file, data=self.folder, ledger=ledger, **{"prices": price} | more)

    def run(self) -> Any:
        engine = OpenAIEngine(OpenAISettings(MODEL))
        return run_task(TASK, self.books, engine, self.store, sampling=Sampling(max_tokens=90),
                        progress=False)  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, books: list[dict[str, Any]]) -> Desk:
    return Desk(tmp_path, books)


def answer(line: dict[str, Any], text: str = "", **more: Any) -> dict[str, Any]:
    """Return one line as a batch interface writes it."""
    said = str(line["body"]["messages"])
    names = ("The Tide Clock", "Salt Road", "Gull Letters", "Ledger of Dust", "Twin")
    text = text or GOOD.format(next((n for n in names if n in said), "Nothing"))
    body = completion(line["body"], text, **more)
    return {"id": "batch_req_1", "custom_id": line["custom_id"], "error": None,
            "response": {"status_code": 200, "request_id": "r", "body": body}}  # fmt: skip


def test_there_and_back_without_an_endpoint(desk: Desk) -> None:
    done = desk.export()
    lines = desk.lines(*done.files)
    assert done.requests == len(lines) == 5, "six rows, of which two ask the same"
    assert {(li["method"], li["url"]) for li in lines} == {("POST", "/v1/chat/completions")}
    assert [li["custom_id"] for li in lines] == [a.key for a in desk.pending()]
    assert lines[0]["body"]["model"] == MODEL and lines[0]["body"]["max_tokens"] == 90
    back = desk.take([answer(li) for li in lines])
    assert (back.stored, back.faults, desk.pending()) == (5, [], [])
    result = desk.run()
    assert set(result.rows["status"].to_pylist()) == {"ok"} and not result.stopped
    assert (result.counts["llm_calls"], result.counts["cache_hits"]) == (0, 5)
    assert desk.store.verify() == []
    (row,) = desk.store.records([lines[0]["custom_id"]])
    assert (row["engine"], row["model"], row["task"]) == ("openai", MODEL, TASK.produces)
    assert row["identity"] == f"model:{MODEL}" and row["row_id"] == "b0"


def test_tokens_and_money_at_the_price_of_a_batch_and_once(desk: Desk) -> None:
    lines = desk.lines(*desk.export().files)
    usage = {"prompt_tokens": 100, "completion_tokens": 50}
    rows = [answer(li, usage=usage) for li in lines]
    rows.append(rows[0])
    first = desk.take(rows)
    cost = 5 * (100 * 2.0 + 50 * 8.0) / 1e6 * 0.5
    assert (first.stored, first.known, first.tokens_in, first.tokens_out) == (5, 1, 500, 250)
    assert first.money == pytest.approx(cost)
    ledger = Ledger(desk.folder / "spending.sqlite")
    assert ledger.total(day=utc_day()) == Use(5, 750, round(cost * 1e9))
    again = desk.take(rows)
    assert (again.stored, again.known, again.money) == (0, 6, 0)
    assert ledger.total(day=utc_day()) == Use(5, 750, round(cost * 1e9))
    assert desk.store.stats()["rows"] == 5


def test_what_failed_stays_missing_and_is_exported_again(desk: Desk) -> None:
    lines = desk.lines(*desk.export().files)
    expired = {"custom_id": lines[0]["custom_id"], "response": None,
               "error": {"code": "batch_expired", "message": "not done in time"}}  # fmt: skip
    refused = {"custom_id": lines[1]["custom_id"], "error": None, "response": {
        "status_code": 400, "body": {"error": {"message": "too long", "code": "bad"}}}}  # fmt: skip
    told = {"message": "bad row", "type": "BadRequestError", "param": None, "code": 400}
    vllm = {"id": "vllm-1", "custom_id": lines[2]["custom_id"], "error": {"error": told},
            "response": {"status_code": 400, "request_id": "x", "body": None}}  # fmt: skip
    back = desk.take([expired, refused, vllm, *map(answer, lines[3:])])
    assert back.stored == 2 and back.faults == []
    assert sorted(back.failed) == [
        "HTTP 200 batch_expired not done in time", "HTTP 400 BadRequestError bad row",
        "HTTP 400 bad too long",
    ]  # fmt: skip
    again = desk.export("again.jsonl")
    assert [li["custom_id"] for li in desk.lines(*again.files)] == [
        li["custom_id"] for li in lines[:3]
    ]
    stopped = desk.run()
    assert "llm.endpoint is not set" in stopped.stopped and stopped.missing == ("b0", "b1", "b2")


def test_lines_that_cannot_be_used_are_named(desk: Desk) -> None:
    lines = desk.lines(*desk.export().files)
    foreign = answer(lines[0]) | {"custom_id": "0" * 64}
    other = answer(lines[1], model="other-model")
    headless = {"custom_id": lines[2]["custom_id"], "response": {"status_code": 200, "body": {}}}
    cut = json.dumps(answer(lines[3]))[:70]
    back = desk.take([foreign, other, headless, {"custom_id": "item:1"}, "[1]", cut])
    found = {f.line: f.reason for f in back.faults}
    assert back.stored == 0 and sorted(found) == [1, 2, 3, 4, 5, 6]
    assert "was not exported from here" in found[1] and "no choices" in found[3]
    assert "answered by 'other-model'" in found[2] and "--served-as other-model" in found[2]
    assert "no custom_id" in found[4] and "no custom_id" in found[5] and "not JSON" in found[6]
    assert {f.file for f in back.faults} == {str(desk.folder / "answers.jsonl")}
    assert len(desk.pending()) == 5
    assert desk.take([other], aliases=("other-model",)).stored == 1


def test_a_refused_answer_is_exported_once_more_with_the_reason(desk: Desk) -> None:
    lines = desk.lines(*desk.export().files)
    desk.take([answer(lines[0], "no"), answer(lines[1], "", refusal="I will not."),
               *map(answer, lines[2:])])  # fmt: skip
    (again,) = desk.lines(*desk.export("again.jsonl").files)
    assert again["body"]["messages"][-2] == {"role": "assistant", "content": "no"}
    desk.take([answer(again, GOOD.format("The Tide Clock"))])
    assert desk.pending() == []
    result = desk.run()
    assert result.rows["status"].to_pylist()[:2] == ["repaired", "quarantined"]
    assert result.rows["raw"].to_pylist()[1] == "I will not." and not result.counts["llm_calls"]


def test_answers_of_a_cluster_that_serves_the_same_weights(desk: Desk) -> None:
    """Requests of another engine's identity: its runs find the answers."""
    engine = FakeEngine(model="local-weights")
    done = desk.export(info=engine.info, model="served-name")
    lines = desk.lines(*done.files)
    assert lines[0]["body"]["model"] == "served-name"
    assert desk.take([answer(li) for li in lines]).unpriced == ("served-name",)
    result = run_task(TASK, desk.books, engine, desk.store, sampling=Sampling(max_tokens=90),
                      progress=False)  # fmt: skip
    assert engine.asked == [] and result.counts["cache_hits"] == 5


def test_files_are_split_at_the_providers_limits(desk: Desk) -> None:
    done = desk.export(most_requests=2)
    assert [f.name for f in done.files] == [f"requests-000{n}.jsonl" for n in (1, 2, 3)]
    assert [len(desk.lines(f)) for f in done.files] == [2, 2, 1]
    with pytest.raises(EngineError, match=r"requests-0001\.jsonl is there already"):
        desk.export()
    small = max(len(line) for f in done.files for line in f.read_bytes().splitlines()) + 1
    sized = desk.export("sized.jsonl", most_bytes=small)
    assert len(sized.files) >= 3 and all(f.stat().st_size <= small for f in sized.files)
    with pytest.raises(EngineError, match=r"a batch file holds 10; raise batch\.megabytes"):
        desk.export("tiny.jsonl", most_bytes=10)
    assert not [f for f in desk.folder.iterdir() if f.suffix == ".tmp"]


def test_an_answer_without_usage_counts_with_its_bound(desk: Desk) -> None:
    lines = desk.lines(*desk.export().files)
    back = desk.take([answer(lines[0], usage=False)])
    assert back.uncounted == 1 and back.tokens_out == 90 and back.tokens_in > 100
    with pytest.raises(EngineError, match="no such file"):
        import_batch(desk.folder / "none", data=desk.folder, ledger=None, prices={})
