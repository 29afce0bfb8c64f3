"""Money, time and comparisons of plans, by hand; nothing here asks a model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmers_pipelines.config import Settings
from llmers_pipelines.llm.figures import NOTHING, UNKNOWN, Figure
from llmers_pipelines.llm.history import Spending
from llmers_pipelines.llm.protocol import EngineInfo, Sampling
from llmers_pipelines.llm.survey import Missing, Paid, Survey
from llmers_pipelines.orchestrate import forecast as forecasts
from llmers_pipelines.orchestrate import measured as log
from llmers_pipelines.orchestrate.context import StepContext
from llmers_pipelines.orchestrate.effort import effort
from llmers_pipelines.orchestrate.estimate import _forks_within, plain, totals
from llmers_pipelines.orchestrate.forecast import Forecast
from llmers_pipelines.orchestrate.measured import Measured, keep, measured, speed
from llmers_pipelines.orchestrate.plans import compared, store_plan
from llmers_pipelines.plan import Generate, Table, Train
from llmers_pipelines.prices import Price
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.store.manifests import Manifest

NODE = Generate(ItemKnowledge(), over=Table("items"))
LINE = Measured(
    "2026-01-01T00:00:05.000000+00:00", "shop", NODE.name, "r", "hf", "m@1", "weights:w",
    NODE.task.prompt_revision, log.machine(), "cpu", 8, 0, 800, 200, 4.0,
)  # fmt: skip


def settings(home: Path, **more: Any) -> Settings:
    return Settings(home=home, engine="hf", model="m", **more)


def write(where: Settings, *lines: Measured) -> None:
    path = log.plans_folder(where) / "measured.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(dataclasses.asdict(x)) + "\n" for x in lines))


def of(where: Settings, paid: tuple[Paid, ...], missing: int, *, pending: float = 0,
       remote: bool = False) -> Forecast:  # fmt: skip
    """Return a forecast whose prompts have 100 tokens each; nothing is read from disk."""
    out = Forecast(NODE, StepContext(where, "shop"))
    weights = {} if remote else {"weights_sha256": "w"}
    info = EngineInfo("hf", "m", capabilities=frozenset({"prompts"}), **weights)
    rows = [{"item_id": str(i), "title": f"Book {i}"} for i in range(missing)]
    out.__dict__ |= {
        "question": SimpleNamespace(engine=SimpleNamespace(info=info), rows=rows, context=None,
                                    sampling=Sampling(max_tokens=50), store=None),
        "survey": Survey(missing, missing, missing=tuple(
            Missing(str(i), f"k{i}", 400 + i) for i in range(missing)), paid=paid, pending=pending),
        "groups": [], "_counter": (lambda messages: 100.0, "counted", 0),
    }  # fmt: skip
    return out


# Every second answer is refused; its repair reads 130 tokens and writes 30.
HALF = tuple(Paid(100, 20, 130, 30, True) if i % 2 else Paid(100, 10) for i in range(40))


def test_a_bill_by_hand(tmp_path: Path) -> None:
    prices = {"m": Price(input=2.0, output=10.0, currency="EUR")}
    bill = of(settings(tmp_path, prices=prices), HALF, 60).bill()
    assert (bill.repairs.value, bill.calls.value) == (30, 90)
    assert bill.tokens_in.value == 60 * 100 + 30 * 130 and bill.tokens_in.source == "rendered"
    assert bill.tokens_out.value == 60 * (10 + 50) / 2
    assert bill.tokens_out.source == "earlier answers"
    assert bill.tokens_out.low < 1800 < bill.tokens_out.high
    assert bill.money.value == pytest.approx((2 * 9900 + 10 * 1800) / 1e6)
    assert bill.currency == "EUR" and bill.money.low < bill.money.value < bill.money.high
    assert bill.seconds == UNKNOWN == bill.gpu_hours


def test_repairs_that_are_due_come_on_top(tmp_path: Path) -> None:
    bill = of(settings(tmp_path), HALF, 60, pending=4).bill()
    assert (bill.repairs.value, bill.calls.value) == (34, 94)
    assert bill.tokens_in.value == 9900 + 4 * 130 and bill.tokens_out.value == 1800 + 4 * 30
    assert bill.money.value is None and bill.money.source == "no price"
    assert bill.money.detail.startswith('[prices."m"]')


def test_without_answers_the_bound_is_told_as_one(tmp_path: Path) -> None:
    prices = {"m": Price(output=10.0)}
    bill = of(settings(tmp_path, prices=prices), (), 60).bill()
    assert bill.tokens_out.value == 60 * 50 and bill.tokens_out.source == "bound"
    assert bill.money.source == "bound" and bill.money.value == pytest.approx(0.03)
    # each prompt twice, the refused answer, why it was refused; the answer, then twice its room
    assert bill.tokens_in.high == 60 * (100 + 100 + 50 + 330) and bill.calls.high == 120
    assert bill.tokens_out.high == 3 * 3000 and bill.repairs.value is None
    assert "at worst adds 60 calls" in bill.notes[0]


def test_a_pilots_answers_come_before_others(tmp_path: Path) -> None:
    piloted = tuple(Paid(100, 40, key=f"p{i}") for i in range(25))
    forecast = of(settings(tmp_path), HALF + piloted, 10)
    forecast.pilot = frozenset(p.key for p in piloted)
    assert forecast.spending[0] == Spending(piloted) and forecast.spending[1] == "pilot"
    assert forecast.bill().tokens_out.value == 400


def test_many_prompts_are_counted_on_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "SAMPLE", 100)
    forecast = of(settings(tmp_path), HALF, 1000)
    asked: list[Any] = []
    forecast.__dict__["_counter"] = (
        lambda messages: asked.append(messages) or len(str(messages)) / 4, "counted", 0
    )  # fmt: skip
    read = forecast.bill().tokens_in
    true = sum(len(str(forecast._messages(m))) / 4 for m in forecast.missing) + 500 * 130
    assert len(asked) == 100 and read.source == "sampled" and "100 of 1,000" in read.detail
    assert read.se > 0 and abs(read.value - true) < 4 * read.se


def test_prompts_beyond_the_context_cost_nothing(tmp_path: Path) -> None:
    forecast = of(settings(tmp_path), (Paid(100, 10),) * 30, 60)
    sizes = iter([100.0] * 45 + [300.0] * 15)
    forecast.__dict__["_counter"] = (lambda messages: next(sizes), "counted", 320)
    bill = forecast.bill()  # 300 + 50 tokens of room exceed 320
    assert (bill.calls.value, bill.tokens_in.value) == (45, 4500)
    assert bill.tokens_out.value == 450 and "15 prompts are longer" in bill.notes[0]


def test_time_is_that_of_earlier_runs_here_or_of_the_price_table(tmp_path: Path) -> None:
    where = settings(tmp_path, prices={"m": Price(gpu_hour=36.0, tokens_per_second=10)})
    paid = (Paid(100, 10),) * 30
    table = of(where, paid, 10).bill()  # 1,100 tokens
    assert table.seconds.value == 110 and table.seconds.source == "price table"
    assert table.gpu_hours.value == pytest.approx(110 / 3600)
    assert table.money.value == pytest.approx(1.1)
    write(where, LINE, dataclasses.replace(LINE, machine="elsewhere", seconds=1.0),
          dataclasses.replace(LINE, identity="weights:other", seconds=1.0),
          dataclasses.replace(LINE, llm_calls=0, seconds=9.0))  # fmt: skip
    slow = of(where, paid, 10).bill()
    assert slow.seconds.value == pytest.approx(1100 / 250) and "250 tokens/s" in slow.seconds.detail
    assert slow.gpu_hours.value == 0 and "no GPU: cpu" in slow.gpu_hours.detail
    write(where, LINE, dataclasses.replace(LINE, device="cuda:0", seconds=2.0))
    fast = of(where, paid, 10).bill()
    assert fast.seconds.value == pytest.approx(2.2)
    assert fast.gpu_hours.value == pytest.approx(2.2 / 3600)
    away = of(settings(tmp_path / "new"), paid, 10, remote=True).bill()
    assert away.seconds == UNKNOWN and away.gpu_hours.detail == "the model runs elsewhere"


def test_the_speed_of_the_same_prompt_is_taken_first(tmp_path: Path) -> None:
    other = dataclasses.replace(LINE, prompt_revision="x-r1-0", seconds=100.0)
    asked = {"engine": "hf", "identity": "weights:w"}
    found = speed([other, LINE], **asked, prompt_revision=NODE.task.prompt_revision)
    assert found is not None and found.tokens_per_second == 250
    found = speed([other, LINE], **asked, prompt_revision="new-r1-0")
    assert found is not None and found.tokens_per_second == pytest.approx(2000 / 104)
    assert speed([LINE], engine="vllm", identity="weights:w", prompt_revision="") is None


def test_what_a_run_took_is_kept_line_by_line(tmp_path: Path) -> None:
    where = settings(tmp_path)
    ctx = StepContext(where, "shop", run_id="r7")
    engine = SimpleNamespace(info=EngineInfo("fake", "m"))
    counts = {"llm_calls": 3, "cache_hits": 1, "tokens_in": 30, "tokens_out": 9, "seconds": 1.5}
    for stopped in ("budget reached", ""):
        keep(NODE.name, NODE.task.prompt_revision, engine, counts, ctx, stopped=bool(stopped))
    path = log.plans_folder(where) / "measured.jsonl"
    path.write_text(path.read_text() + '{"half a li')
    first, second = measured(where)
    assert (first.done, second.done) == (False, True) and first.at < second.at
    assert (first.run_id, first.tokens_in, first.device, first.seconds) == ("r7", 30, "", 1.5)


def test_a_plan_is_compared_with_all_that_was_paid_for_it(tmp_path: Path) -> None:
    where = settings(tmp_path, prices={"m": Price(input=1.0, output=5.0, gpu_hour=3600.0)})
    ctx = StepContext(where, "shop")
    figures = {"calls": Figure(22.0, "rendered"), "tokens_in": Figure(1500.0, "rendered"),
               "tokens_out": Figure(500.0, "pilot"), "money": Figure(0.008, "price table"),
               "seconds": UNKNOWN, "gpu_hours": Figure(0.0003, "price table")}  # fmt: skip
    row = {"key": NODE.name, "verb": "generate", "state": "missing", "currency": "USD",
           "price_name": "m", **figures}  # fmt: skip
    assert compared(ctx) is None
    plan = store_plan(where, "shop", ["x"], [row], {})
    assert compared(ctx) is None, "nothing ran since"
    later = [log.now() for _ in range(5)]
    write(
        where, LINE,  # before the plan
        dataclasses.replace(LINE, at=later[0], pilot=True),
        dataclasses.replace(LINE, at=later[1], done=False),  # a budget stopped it
        dataclasses.replace(LINE, at=later[2], llm_calls=12, device="cuda:0", seconds=1.0),
        dataclasses.replace(LINE, at=later[3], llm_calls=99),  # a later run is another story
        dataclasses.replace(LINE, at=later[4], dataset="elsewhere"),
    )  # fmt: skip
    found = compared(ctx)
    assert found is not None and found["plan"] == plan["plan"]
    (asset,) = found["assets"]
    assert asset["finished"] and asset["sources"]["tokens_out"] == "pilot"
    assert asset["calls"] == {"estimate": 22.0, "actual": 20, "error_percent": 10.0}
    assert asset["tokens_in"] == {"estimate": 1500.0, "actual": 1600, "error_percent": -6.25}
    assert asset["tokens_out"]["error_percent"] == 25.0
    assert asset["money"]["actual"] == pytest.approx(1600 / 1e6 + 5 * 400 / 1e6 + 1.0)
    assert asset["seconds"] == {"estimate": None, "actual": 5.0, "error_percent": None}
    assert asset["gpu_hours"]["actual"] == pytest.approx(1 / 3600), "the run on the CPU has none"
    assert asset["gpu_hours"]["error_percent"] == pytest.approx(8.0)
    assert found["totals"]["calls"]["error_percent"] == 10.0
    assert compared(ctx, ["something/else"]) is None
    assert compared(ctx, [NODE.name]) is None, "the newest run was not planned"
    write(where, *measured(where)[:4])
    assert compared(ctx, [NODE.name]) == found
    assert compared(ctx, [NODE.name], run="r") == found
    assert compared(ctx, [NODE.name], run="failed before it asked") is None


def test_a_steps_seconds_are_compared_with_the_run_that_followed(tmp_path: Path) -> None:
    ctx = StepContext(settings(tmp_path), "shop")
    row = {"key": "catalog/items", "verb": "table", "state": "missing", "currency": "",
           "seconds": Figure(4.0, "earlier runs")}  # fmt: skip
    store_plan(ctx.settings, "shop", ["x"], [row], {})
    assert compared(ctx) is None
    ctx.manifests.write(manifest("catalog/items", "a", 1, 5.0, created="2999-01-01T00:00:00"))
    found = compared(ctx, ["catalog/items"])
    assert found is not None and found["assets"][0]["seconds"]["error_percent"] == -20.0
    ctx.manifests.write(manifest("catalog/items", "b", 1, 8.0, created="2999-01-02T00:00:00"))
    assert compared(ctx, ["catalog/items"]) is None and compared(ctx) == found


def manifest(name: str, version: str, rows: int, seconds: float, **more: Any) -> Manifest:
    return Manifest(name, "shop", "c", version, "d", "f", rows=rows, seconds=seconds, **more)


def test_other_steps_take_what_they_took_scaled_by_rows(tmp_path: Path) -> None:
    ctx = StepContext(settings(tmp_path), "shop")
    node = Train(None, Table("splits", "ctr"), label="bprmf")
    assert effort(node, ctx) == (UNKNOWN, "")
    store, splits = ctx.manifests, node.log.name
    store.write(manifest(splits, "old", 1000, 1.0))
    inputs = {splits: "old flagged"}
    store.write(manifest(node.name, "one", 1, 30.0, inputs=inputs, info={"device": "cuda"}))
    store.write(manifest(node.name, "two", 1, 0.2, inputs=inputs, counts={"cpu_seconds": 20.0}))
    assert effort(node, ctx)[0].value == 30
    store.write(manifest(splits, "new", 1500, 1.0))
    seconds, device = effort(node, ctx)
    assert (seconds.value, device) == (45, "cuda")
    assert "of 1,000 rows; 1,500 now" in seconds.detail


def test_one_question_of_two_models_in_one_plan_is_a_fork() -> None:
    first = {"key": "a", "question": "q", "identity": "1", "model": "m1", "askable": 7, "forks": []}
    rows = {
        "a": first,
        "b": {**first, "key": "b", "identity": "2", "model": "m2", "forks": []},
        "c": {**first, "key": "c", "question": "other", "identity": "3", "forks": []},
        "d": {**first, "key": "d", "forks": []},
        "template": {**first, "key": "t", "question": "", "identity": "4", "forks": []},
    }
    _forks_within(rows)
    assert rows["b"]["forks"] == ["fork: a asks m1 the same of the same 7 rows; both are paid"]
    assert [k for k, r in rows.items() if r["forks"]] == ["b"]


def test_totals_are_by_currency_and_name_what_is_unknown() -> None:
    one, open_row = Figure(1.0, "rendered", 1.0, 1.0), dict.fromkeys(
        ("calls", "repairs", "tokens_in", "tokens_out", "money", "seconds", "gpu_hours"), UNKNOWN)
    row = {"key": "a", "state": "missing", "currency": "USD", "price_name": "m", "forks": ["f"],
           **dict.fromkeys(open_row, one)}  # fmt: skip
    euro = {**row, "key": "b", "currency": "EUR", "forks": []}
    bare = {**euro, "key": "c", "currency": "", "price_name": "n", "money": UNKNOWN}
    behind = {"key": "d", "state": "missing", "currency": "", "forks": [], **open_row}
    rest = {"key": "e", "state": "fresh", "currency": "", "forks": [],
            **dict.fromkeys(open_row, NOTHING)}  # fmt: skip
    found = totals([row, {**row, "forks": []}, euro, bare, behind, rest])
    assert {c: m.value for c, m in found["money"].items()} == {"USD": 2, "EUR": 1}
    assert list(found["no_price"]) == ["n"] and found["calls"].value == 4
    assert found["unknown"]["calls"] == ["d"] and found["forks"] == ["a: f"]
    assert (found["assets"], found["work"]) == (6, 5)
    assert plain({"x": [float("inf"), one]})["x"][0] is None


def test_plans_of_one_second_stay_in_order(tmp_path: Path) -> None:
    where = settings(tmp_path)
    made = [store_plan(where, "shop", ["all"], [], {})["plan"] for _ in range(20)]
    assert made == sorted(made)
