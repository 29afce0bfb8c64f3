"""The shop answered by a real server: a run, a free second run, budgets, batch files, no key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loopback import BROKEN, Loopback, Say, completion, slow_down
from shop import BOOKS, Shop, summary

from llmers_pipelines.orchestrate.context import StepError
from llmers_pipelines.orchestrate.home import open_instance
from llmers_pipelines.store.responses import ResponseStore

SUMMARY = "item_summaries/item_summary"
KEY = "sk-shop-0123456789abcdef0123"
CHOICE = """
[llm]
engine = "openai"
model = "shop/model"
endpoint = "{url}"
api_key_env = "SHOP_KEY"
concurrency = 4
max_tokens = 200
[prices."shop/model"]
input = 1.0
output = 2.0
batch = 0.5
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Shop:
    return Shop.open(tmp_path / "home")


class Asked:
    """The shop with its key in the environment of each command."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch, url: str, more: str = ""):
        monkeypatch.setenv("SHOP_KEY", KEY)
        self.shop = shop
        shop.choose(CHOICE.format(url=url) + more)

    def run(self, *words: str, code: int = 0) -> dict[str, Any]:
        report = self.shop.ask("run", SUMMARY, *words, code=code)
        return next(r for r in report["assets"] if r["key"] == SUMMARY)


def test_a_run_a_free_second_run_and_what_it_cost(
    fresh: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loopback(slow_down("0.01"), BROKEN, answer=summary) as server:
        asked = Asked(fresh, monkeypatch, server.url)
        first = asked.run()
        assert first["status"] == "materialized" and first["rows"] == BOOKS
        assert (first["llm_calls"], first["attempts"], first["throttled"]) == (
            BOOKS, BOOKS + 1, 1)  # fmt: skip
        used = first["tokens_in"] + 2 * first["tokens_out"]
        assert first["money"] == pytest.approx(used / 1e6) and used > 0
        assert len(server.asked) == BOOKS + 2
        server.asked.clear()
        forced = asked.run("--force")
        assert (forced["llm_calls"], forced["cache_hits"], server.asked) == (0, BOOKS, [])
    assert fresh.ask("store", "verify")["faults"] == []
    moved = (fresh.home / "llmers.toml").read_text().replace(server.url, "http://127.0.0.1:9/v1")
    (fresh.home / "llmers.toml").write_text(moved)
    assert fresh.work(SUMMARY)[SUMMARY] == "reused", "the endpoint is no part of the identity"


def test_a_budget_ends_the_run_and_a_later_one_goes_on(
    fresh: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loopback(answer=summary) as server:
        asked = Asked(fresh, monkeypatch, server.url)
        stopped = asked.run("--budget-calls", "9", code=1)
        assert stopped["status"] == "budget reached" and len(server.asked) == 9
        assert (stopped["llm_calls"], stopped["missing"]) == (9, BOOKS - 9)
        assert stopped["tokens_in"] > 0 and stopped["money"] > 0
        assert "9 answers are stored" in stopped["error"]
        assert f"{BOOKS - 9} of {BOOKS} rows are missing (b" in stopped["error"]
        with pytest.raises(StepError, match=r"budget reached: 0 of 1e-07 USD; the next call"):
            fresh.work(SUMMARY, budget_money=0.0000001)
        assert len(server.asked) == 9, "not even one call fits"
        instance = open_instance(fresh.settings())
        (ended,) = [r for r in instance.get_runs() if r.tags.get("llmers/ended")]
        assert ended.tags["llmers/ended"] == "budget reached"
        assert ended.tags["llmers/missing"] == f"{BOOKS - 9} rows of {SUMMARY}"
        instance.dispose()
        rest = asked.run()
        assert (rest["llm_calls"], rest["cache_hits"]) == (BOOKS - 9, 9)
        assert len(server.asked) == BOOKS
        fresh.choose("[budget]\ncalls_per_day = 24\n")
        rows = fresh.read("items")
        rows[7]["description"] = "A story of space without end."
        fresh.write("items", rows)
        held = asked.run(code=1)
        assert "24 of 24 calls of this day" in held["error"] and held["missing"] == 1


def test_a_dead_endpoint_fails_once_and_a_missing_price_is_named(
    fresh: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say | None:
        return (
            Say(status=401, error={"message": f"bad key {KEY}"}) if len(server.asked) > 3 else None
        )

    with Loopback(rule=rule, answer=summary) as server:
        asked = Asked(fresh, monkeypatch, server.url)
        row = asked.run(code=1)
        assert row["status"] == "failed" and "refuses the key" in row["error"]
        assert row["llm_calls"] == 3 and len(server.asked) <= 3 + 4, "no retry of the step"
        toml = (fresh.home / "llmers.toml").read_text().replace('prices."shop/model"', "prices.m")
        (fresh.home / "llmers.toml").write_text(toml)
        with pytest.raises(StepError, match=r'\[prices\."shop/model"\] with input ='):
            fresh.work(SUMMARY, budget_money=1.0)


def test_the_key_is_nowhere(
    fresh: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in files, output or errors, also where the endpoint says it back in every way."""
    echo = f"your key is {KEY}, Bearer {KEY}"
    script = [
        Say(status=500, error={"message": echo}), Say(raw=echo.encode()), Say(summary_of(echo)),
        Say("{}", refusal=echo), Say("x", model=echo), Say(status=400, error=echo),
        Say(status=429, headers={"Retry-After": "0.01"}, error=echo),
        Say(status=400, error={"message": echo, "param": KEY}),
    ]  # fmt: skip
    with Loopback(*script, answer=summary) as server:
        asked = Asked(fresh, monkeypatch, server.url)
        first = fresh.invoke("run", SUMMARY)
        server.rule = lambda *_: Say(status=403, error={"message": echo})
        rows = fresh.read("items")
        rows[1]["description"] = "Another story."
        fresh.write("items", rows)
        second = asked.run(code=1)
        assert all(h["authorization"] == f"Bearer {KEY}" for _, h, _ in server.asked)
    said = capfd.readouterr()
    for text in (first.output, str(first.exception), str(second), said.out, said.err):
        assert KEY not in text
    assert "[key]" in second["error"]
    files = [f for f in fresh.home.rglob("*") if f.is_file()]
    assert len(files) > 20 and not [f for f in files if KEY.encode() in f.read_bytes()]
    store = ResponseStore(fresh.settings().data / "responses")  # its files are compressed
    stored = str([table.to_pylist() for _, table in store.segments.read_all()])
    assert "[key]" in stored and KEY not in stored
    texts = fresh.ask("sql", "select raw, reason from item_summaries.item_summary")
    assert "[key]" in str(texts) and KEY not in str(texts)


def summary_of(text: str) -> str:
    return json.dumps({"summary": text, "themes": ["a", "b"], "mood": "calm", "audience": "all"})


def test_batch_files_through_the_command_line(
    fresh: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Asked(fresh, monkeypatch, "")
    out, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    early = fresh.invoke("batch", "export", SUMMARY, "--out", str(out))
    assert early.exit_code == 1 and "catalog/items" in early.stderr and not out.exists()
    fresh.ask("run", "catalog/items")
    done = fresh.ask("batch", "export", SUMMARY, "--out", str(out))
    assert done["requests"] == BOOKS == done["by_asset"][SUMMARY] and done["files"] == [str(out)]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    waiting = fresh.ask("run", SUMMARY, code=1)
    assert (
        "llmers batch export" in next(r for r in waiting["assets"] if r["key"] == SUMMARY)["error"]
    )
    bodies = [completion(li["body"], summary(li["body"])) for li in lines]
    replies = [
        {"custom_id": li["custom_id"], "response": {"status_code": 200, "body": body}}
        for li, body in zip(lines, bodies, strict=True)
    ]
    answers.write_text("".join(json.dumps(r) + "\n" for r in replies) + "oops\n")
    report = fresh.ask("batch", "import", str(answers), "--dataset", "shop", code=1)
    (file,) = report["files"]
    assert (file["stored"], file["quarantined"], report["unanswered"]) == (BOOKS, 1, 0)
    bad = json.loads(Path(file["quarantine"]).read_text())
    assert (bad["file"], bad["line"], bad["text"]) == (str(answers), BOOKS + 1, "oops")
    assert file["money"] == pytest.approx((file["tokens_in"] + 2 * file["tokens_out"]) / 2e6)
    row = next(r for r in fresh.ask("run", SUMMARY)["assets"] if r["key"] == SUMMARY)
    assert (row["status"], row["llm_calls"], row["cache_hits"]) == ("materialized", 0, BOOKS)
    nothing = fresh.invoke("batch", "export", SUMMARY, "--out", str(tmp_path / "more.jsonl"))
    assert nothing.exit_code == 0 and "nothing is missing" in nothing.stdout
