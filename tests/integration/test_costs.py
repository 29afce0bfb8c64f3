"""Plan before paying: estimates of a run against what the run then took, with real engines."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback
from shop import BOOKS, Shop, kind, same_environment, title
from tiny_lm import make_tiny_lm

from llmers_pipelines.cli import planning
from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine

KNOWLEDGE, SUMMARY = "item_summaries/item_knowledge", "item_summaries/item_summary"
MANY, PILOT = 160, 80
ENDPOINT = """
[llm]
engine = "openai"
model = "shop/model"
endpoint = "{url}"
api_key_env = "SHOP_KEY"
concurrency = 4
max_tokens = 200
[prices."shop/model"]
input = 1.0
output = 8.0
"""


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose sampled answers end at random lengths."""
    return make_tiny_lm(tmp_path_factory.mktemp("talker"), stops=2.0)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop of its own with ``MANY`` books and nothing materialized."""
    shop = Shop.open(tmp_path)
    shop.write("items", [
        {"item_id": f"b{i:02}", "title": title(i), "kind": kind(i),
         "description": f"A story of {kind(i)}, number {i}. " + "It goes on. " * (i % 7)}
        for i in range(1, MANY + 1)
    ])  # fmt: skip
    return shop


def use(shop: Shop, model: Path) -> None:
    shop.choose(
        f'[llm]\nengine = "hf"\nmodel = "{model}"\nmax_tokens = 32\ntemperature = 1.0\n'
        f'[prices."{model}"]\ninput = 2.0\noutput = 10.0\ngpu_hour = 3.0\ncurrency = "EUR"'
    )


def row_of(document: dict[str, Any], key: str = KNOWLEDGE) -> dict[str, Any]:
    return next(r for r in document["assets"] if r["key"] == key)


def test_a_piloted_plan_is_within_a_fifth_of_the_run(shop: Shop, talker: Path) -> None:
    use(shop, talker)
    asked = ("--pilot", "--pilot-rows", str(PILOT))
    open_plan = row_of(shop.ask("plan", KNOWLEDGE))
    assert open_plan["llm_calls"] is None and open_plan["calls"]["source"] == "unknown"
    assert "catalog/items" in open_plan["notes"][0]
    shop.ask("run", "catalog/items")
    bound = row_of(shop.ask("plan", KNOWLEDGE))
    assert (bound["rows"], bound["askable"], bound["cached"], bound["new"]) == (MANY, MANY, 0, MANY)
    assert bound["tokens_out"]["source"] == "bound" and bound["tokens_out"]["value"] == 32 * MANY
    refused = shop.invoke("plan", KNOWLEDGE, *asked)
    assert refused.exit_code == 1 and "--yes" in refused.stderr
    assert shop.ask("store", "stats")["answers"]["rows"] == 0, "nothing was paid unasked"

    document = shop.ask("plan", KNOWLEDGE, *asked, "--yes")
    (pilot,) = document["pilots"]
    plan = row_of(document)
    assert plan["cached"] == PILOT and plan["llm_calls"] == MANY - PILOT
    assert plan["tokens_out"]["source"] == "pilot" and plan["tokens_in"]["source"] == "rendered"
    assert plan["repairs"]["value"] > 0, "noise is refused, and asked again"
    assert shop.ask("plan", KNOWLEDGE, *asked, "--yes")["pilots"] == [], "it is kept"

    report = shop.ask("run", KNOWLEDGE)
    ran = row_of(report)
    assert ran["cache_hits"] == pilot["llm_calls"], "the run re-uses every answer of the pilot"
    found = row_of(report["estimate"])
    assert found["finished"] and found["tokens_in"]["actual"] == ran["tokens_in"]
    for name in ("calls", "tokens_in", "tokens_out", "money"):
        assert abs(found[name]["error_percent"]) < 20, (name, found[name])
        assert found[name]["estimate"] == plan[name]["value"]
    for name in ("calls", "tokens_out"):
        assert plan[name]["low"] <= found[name]["actual"] <= plan[name]["high"], name
    spent = (2 * ran["tokens_in"] + 10 * ran["tokens_out"]) / 1e6
    assert found["money"]["actual"] == pytest.approx(spent) and found["currency"] == "EUR"
    assert shop.ask("plan", "--check")["assets"] == report["estimate"]["assets"]
    assert "tokens_out" in shop.invoke("plan", "--check").stdout
    with same_environment():
        kept = shop.manifest(KNOWLEDGE).info["estimate"]
    assert kept["tokens_out"] == found["tokens_out"]


def knowledge(body: dict[str, Any]) -> str:
    """Write of the book at a length of its own; nothing of every seventh, until asked again."""
    book = re.findall(r"The \w+ Book \d+", str(body["messages"]))[0]
    draw = random.Random(book)
    if len(body["messages"]) == 2 and draw.randrange(7) == 0:
        return "No."
    words = ["".join(draw.choices("aeioubcdfglmnprst", k=7)) for _ in range(draw.randint(10, 90))]
    return f"{book} tells of {' '.join(words)}."


def test_a_piloted_plan_of_an_endpoint_is_within_a_fifth_of_what_was_booked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "sk-shop-0123456789abcdef0123")
    with Loopback(answer=knowledge) as server:
        shop.choose(ENDPOINT.format(url=server.url))
        shop.ask("run", "catalog/items")
        asked = ("--pilot", "--pilot-rows", str(PILOT), "--yes")
        plan = row_of(shop.ask("plan", KNOWLEDGE, *asked))
        assert 0 < plan["repairs"]["value"] < (MANY - PILOT) / 3
        assert "characters per token, from" in plan["tokens_in"]["detail"], "no tokenizer is here"
        server.asked.clear()
        report = shop.ask("run", KNOWLEDGE)
    found = row_of(report["estimate"])
    assert found["calls"]["actual"] == len(server.asked) > MANY - PILOT
    assert found["money"]["actual"] == pytest.approx(row_of(report)["money"]), "as it was booked"
    for name in ("calls", "tokens_in", "tokens_out", "money"):
        assert abs(found[name]["error_percent"]) < 20, (name, found[name])
    assert found["gpu_hours"] == {"estimate": 0.0, "actual": 0.0, "error_percent": 0.0}


def test_a_second_catalog_is_estimated_from_earlier_answers(shop: Shop, talker: Path) -> None:
    use(shop, talker)
    rows = shop.read("items")
    shop.write("items", rows[:50])
    shop.ask("run", KNOWLEDGE)
    shop.write("items", rows[:100])
    stale = row_of(shop.ask("plan", KNOWLEDGE))
    assert stale["state"] == "after catalog/items" and stale["llm_calls"] == 0
    assert "50 rows of catalog/items" in stale["notes"][0] and "stale" in stale["notes"][0]
    shop.ask("run", "catalog/items")
    plan = row_of(shop.ask("plan", KNOWLEDGE))
    assert (plan["cached"], plan["llm_calls"]) == (50, 50)
    assert plan["tokens_out"]["source"] == "earlier answers"
    assert plan["seconds"]["source"] == "earlier runs" and plan["gpu_hours"]["source"] == "none"
    found = row_of(shop.ask("run", KNOWLEDGE)["estimate"])
    for name in ("calls", "tokens_in", "tokens_out", "money"):
        assert abs(found[name]["error_percent"]) < 20, (name, found[name])


def test_engines_that_answer_by_row_cost_nothing(shop: Shop) -> None:
    template = f"{SUMMARY}__template"
    for key, engine in ((SUMMARY, "recorded"), (template, "template")):
        shop.ask("run", "catalog/items")
        plan = shop.ask("plan", key)
        row = row_of(plan, key)
        assert (row["engine"], row["llm_calls"], row["new"]) == (engine, 0, 0)
        assert plan["totals"]["calls"]["value"] == 0 and plan["totals"]["no_price"] == {}
        found = row_of(shop.ask("run", key)["estimate"], key)
        for name in ("calls", "tokens_in", "tokens_out", "money"):
            assert found[name] == {"estimate": 0.0, "actual": 0, "error_percent": 0.0}, name


def fake(monkeypatch: pytest.MonkeyPatch, model: str) -> FakeEngine:
    engine = FakeEngine(model=model)
    monkeypatch.setattr(factory, "make_engine", lambda settings, **_: engine)
    monkeypatch.setattr(factory, "engine_info", lambda settings, **_: engine.info)
    return engine


def test_another_model_or_revision_is_told_before_it_is_paid(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write("items", shop.read("items")[:BOOKS])
    shop.choose('[llm]\nengine = "hf"\nmodel = "a-model"')
    fake(monkeypatch, "first")
    shop.ask("run", KNOWLEDGE)
    fake(monkeypatch, "second")
    document = shop.ask("plan", KNOWLEDGE)
    (fork,) = row_of(document)["forks"]
    assert f"{BOOKS} rows were already answered by first" in fork and "pays again" in fork
    assert document["totals"]["forks"] == [f"{KNOWLEDGE}: {fork}"]
    assert "by another model, first" in row_of(document)["tokens_out"]["detail"]
    assert '[prices."second"]' in document["totals"]["no_price"]["second"]

    from llmers_pipelines.prompts.item_knowledge import ItemKnowledge

    fake(monkeypatch, "first")
    monkeypatch.setattr(ItemKnowledge, "system", ItemKnowledge.system + "\nBe brief.")
    monkeypatch.setattr(ItemKnowledge, "revision", 99)
    (told,) = row_of(shop.ask("plan", KNOWLEDGE))["forks"]
    assert told.startswith(f"{BOOKS} answers of revision item_knowledge-r")
    assert "not re-used" in told and "r99" in told


def test_a_pilot_keeps_to_the_budget_and_asks_before_it_pays(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write("items", shop.read("items")[:BOOKS])
    shop.choose('[llm]\nengine = "hf"\nmodel = "a-model"\n[budget]\ncalls = 5')
    engine = fake(monkeypatch, "a-model")
    shop.ask("run", "catalog/items")
    monkeypatch.setattr(planning, "_asks", lambda: True)
    said_no = shop.invoke("plan", KNOWLEDGE, "--pilot", "--pilot-rows", "10")
    assert said_no.exit_code == 1 and engine.asked == []
    assert "10 rows, <=20 calls" in said_no.stderr and "(repairs included)" in said_no.stderr
    document = shop.ask("plan", KNOWLEDGE, "--pilot", "--pilot-rows", "10", "--yes")
    assert len(engine.asked) == 5 and "budget reached" in document["pilots"][0]["stopped"]
    plan = row_of(document)
    assert plan["cached"] == 5 and plan["tokens_out"]["source"] == "pilot"
    rest = shop.ask("plan", KNOWLEDGE, "--pilot", "--pilot-rows", "10", "--yes")
    assert row_of(rest)["cached"] == len(engine.asked) == 10
    assert shop.ask("plan", KNOWLEDGE, "--pilot", "--pilot-rows", "10", "--yes")["pilots"] == []


def test_a_plan_for_people_fits_a_terminal(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "a-model-with-a-rather-long-name/and-a-revision")
    shop.choose('[llm]\nengine = "hf"\nmodel = "a-model"')
    shop.ask("run", "catalog/splits__ctr")
    told = shop.invoke("plan", "all").stdout
    assert max(map(len, told.splitlines())) <= 100
    assert "Total: " in told and "<=" in told and "no price for" in told and "Sources" in told
    for word in ("cached", "repairs", "tokens in", "GPU-hours", "at most"):
        assert word in told


def test_a_run_that_failed_before_it_asked_tells_no_figures_of_an_earlier_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmers_pipelines.llm.protocol import EngineError

    shop.write("items", shop.read("items")[:BOOKS])
    shop.choose('[llm]\nengine = "hf"\nmodel = "a-model"')
    fake(monkeypatch, "a-model")
    shop.ask("run", "catalog/items")
    shop.ask("plan", KNOWLEDGE)
    assert row_of(shop.ask("run", KNOWLEDGE)["estimate"])["calls"]["actual"] >= BOOKS

    def refuse(settings: Any, **_: Any) -> None:
        raise EngineError("the endpoint is gone")

    monkeypatch.setattr(factory, "make_engine", refuse)
    failed = shop.ask("run", KNOWLEDGE, "--force", code=1)
    assert row_of(failed)["status"] == "failed" and failed["estimate"] is None


def test_a_damaged_ledger_ends_a_run_at_once_with_the_file_and_the_mend(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write("items", shop.read("items")[:BOOKS])
    shop.choose('[llm]\nengine = "hf"\nmodel = "a-model"')
    engine = fake(monkeypatch, "a-model")
    ledger = shop.home / "data" / "llmers" / "spending.sqlite"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger.write_bytes(b"garbage" * 300)
    failed = shop.ask("run", KNOWLEDGE, code=1)
    row = row_of(failed)
    assert "spending.sqlite: not a whole SQLite file" in row["error"] and engine.asked == []
    assert "store verify --quarantine" in row["error"]
    assert failed["seconds"] < 30, "the two retries of a step alone would wait as long"
    shop.ask("store", "verify", "--quarantine", code=1)
    assert shop.ask("run", KNOWLEDGE)["success"]
