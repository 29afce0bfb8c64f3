"""Candidates of a pinned baseline: what they see, what stands when the baseline is tuned."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop import BOOKS, USERS, Shop, made, same_environment, wrong_lineage

from llmers_pipelines.config import Method
from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.orchestrate.context import HeldError, StepError
from llmers_pipelines.orchestrate.publish import materialize, stale_because
from llmers_pipelines.orchestrate.steps.generate import entity_rows

PIN = "features/pin__lightgcn__sequential"
OFFERED = "features/top_candidates__pin__lightgcn__sequential"
CHOSEN = "augmented_interactions/liked_disliked"
SETTINGS = "{{ dim = 8, negatives = 8, fit = {{ epochs = 2, min_epochs = 1, lr = {lr} }} }}"
CHOICE = """
[llmers]
dataset = "shop"

[encoder]
name = "tfidf?dim=24"

[llm]
{llm}

[evaluation]
controls = ["permuted", "random_pairs", "popular_pairs", "template"]

[[methods]]
recipe = "lightgcn"
backbone_settings = {settings}
[[methods]]
recipe = "llmrec"
backbone_settings = {settings}
"""
ENGINE = 'engine = "hf"\nmodel = "a-model"'


def choose(shop: Shop, lr: float = 0.01, llm: str = 'engine = "template"') -> None:
    toml = CHOICE.format(settings=SETTINGS.format(lr=lr), llm=llm)
    (shop.home / "llmers.toml").write_text(toml)


def version(shop: Shop, name: str) -> str:
    return shop.manifest(name).data_version


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    with same_environment():
        shop = Shop.open(tmp_path_factory.mktemp("candidates"))
        choose(shop)
        report = shop.ask("run", "llmrec")  # through Dagster, checks included
        assert report["success"], report
    return shop


@pytest.fixture
def own(worked: Shop, tmp_path: Path) -> Shop:
    return worked.copy(tmp_path / "home")


def test_the_baseline_that_offers_is_the_baselines_own_asset(worked: Shop) -> None:
    names = [n.name for n in worked.plan().nodes]
    (baseline,) = [n for n in names if re.match("recommenders/lightgcn", n)]
    assert worked.manifest(PIN).info["asset"] == baseline
    assert names.count(PIN) == names.count(OFFERED) == names.count(CHOSEN) == 1
    assert wrong_lineage(worked) == []


def test_candidates_and_histories_are_made_from_training_rows_alone(worked: Shop) -> None:
    ctx, plan = worked.context(), worked.plan()
    log = ctx.load(plan.node("catalog/splits__sequential"))
    train = {(u, i) for u, i, s in zip(log.user, log.item, log.split, strict=True) if s == TRAIN}
    rows = entity_rows(plan.node(CHOSEN), ctx)  # type: ignore[arg-type]
    assert len(rows) == USERS and all(len(r["candidates"]) == 10 for r in rows)
    for row in rows:
        user = int(log.users.index([row["user_id"]])[0])
        met = {int(log.items.index([e["item_id"]])[0]) for e in row["history"]}
        offered = {int(log.items.index([e["item_id"]])[0]) for e in row["candidates"]}
        assert {(user, i) for i in met} <= train and met and not met & offered
        assert not {(user, i) for i in offered} & train
    checks = {c.name: c.passed for c in worked.manifest(OFFERED).checks}
    assert checks == {"row_identity": True, "no_leakage": True}


def test_answers_are_items_of_the_users_own_list(worked: Shop) -> None:
    ctx = worked.context()
    table = ctx.load(worked.plan().node(CHOSEN))
    offered = ctx.load(worked.plan().node(OFFERED)).to_pylist()
    lists: dict[str, set[str]] = {}
    for row in offered:
        lists.setdefault(row["user_id"], set()).add(row["item_id"])
    assert set(table["status"].to_pylist()) == {"ok"}
    for row in table.to_pylist():
        assert {*row["liked"], *row["disliked"]} <= lists[row["user_id"]]
        assert len({*row["liked"], *row["disliked"]}) == 2


def test_an_answer_is_traced_to_the_users_own_list(worked: Shop) -> None:
    found = worked.ask("trace", CHOSEN, "u05")
    names = [s["asset"] for s in found["steps"]]
    assert OFFERED in names and names[-1] == CHOSEN and PIN not in names
    offered = next(s for s in found["steps"] if s["asset"] == OFFERED)
    assert PIN in offered["also_read"], "a trained model has no row of a user"
    answer = found["steps"][-1]["content"]
    prompt = answer["prompt"]["messages"][-1]["content"]
    listed = [found["titles"][r["item_id"]] for r in offered["content"]["rows"]]
    assert len(listed) == 10 and all(title in prompt for title in listed)
    assert answer["value"]["liked"][0] in {r["item_id"] for r in offered["content"]["rows"]}
    assert answer["attempts"][0]["parsed"].keys() == {"liked", "disliked"}


def test_every_control_is_an_arm_of_its_own(worked: Shop) -> None:
    evaluation = next(n for n in worked.plan().nodes if n.name.startswith("evaluations/llmrec"))
    ctx = worked.context()
    comparison = (ctx.manifests.path(ctx.manifest(evaluation)) / "report.md").read_text()
    assert "random_pairs" in comparison and "popular_pairs" in comparison
    baseline = next(n for n in worked.plan().nodes if n.name.startswith("evaluations/lightgcn"))
    assert "pairs" not in str(baseline.controls)  # type: ignore[attr-defined]


def test_a_tuned_baseline_buys_no_answers_until_the_pin_is_moved(
    own: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
    monkeypatch.setattr(factory, "engine_info", lambda settings: engine.info)
    choose(own, llm=ENGINE)
    own.work(CHOSEN)
    assert len(engine.asked) == USERS
    before = {name: own.plan().node(name) for name in (PIN, OFFERED, CHOSEN)}
    stood = {name: version(own, name) for name in before}

    engine.asked.clear()
    choose(own, lr=0.5, llm=ENGINE)
    plan = own.plan()
    tuned = next(n for n in plan.nodes if n.name.startswith("recommenders/lightgcn"))
    assert tuned.name != own.manifest(PIN).info["asset"]
    for name, node in before.items():
        assert (plan.node(name).digest, plan.node(name).code_version) == (
            node.digest, node.code_version
        )  # fmt: skip
    assert made(own.work(CHOSEN)) == {tuned.name}
    assert engine.asked == [] and {name: version(own, name) for name in stood} == stood

    moved = own.invoke("pin", "move", PIN)
    assert moved.exit_code == 0, moved.output
    assert own.manifest(PIN).info == {"asset": tuned.name, "data_version": version(own, tuned.name)}
    assert {OFFERED, CHOSEN} <= made(own.work(CHOSEN))
    assert engine.asked and version(own, OFFERED) != stood[OFFERED]


def test_two_tunings_share_one_pin(own: Shop) -> None:
    methods = tuple(Method("llmrec", backbone_settings={"fit": {"lr": lr}}) for lr in (0.01, 0.5))
    names = [n.name for n in own.plan(methods=methods).nodes]
    assert names.count(PIN) == names.count(CHOSEN) == 1
    assert sum(n.startswith("recommenders/llmrec") for n in names) == 2


def test_new_rows_and_items_find_the_pinned_model_in_its_own_log(own: Shop) -> None:
    items, rows = own.read("items"), own.read("interactions")
    own.write("items", [{**items[0], "item_id": "a00", "title": "The First Sea Book"}, *items])
    own.write("interactions", [{**rows[0], "user_id": "a00", "item_id": b, "timestamp": 9}
                               for b in ("b01", "b02", "b03", "a00")] + rows)  # fmt: skip
    stood = version(own, PIN)
    before = own.context().load(own.plan().node(OFFERED))
    own.work(CHOSEN)
    assert version(own, PIN) == stood
    after = own.context().load(own.plan().node(OFFERED))
    assert own.manifest(OFFERED).counts["new_items"] == 1
    old = {(r["user_id"], r["rank"]): r["item_id"] for r in before.to_pylist()}
    new = {(r["user_id"], r["rank"]): r["item_id"] for r in after.to_pylist()}
    assert old == {k: v for k, v in new.items() if k[0] != "a00"}  # positions all moved by one
    assert ("a00", 1) in new  # a reader whom the model does not know, scored from the history


def test_rows_that_taught_the_pinned_model_may_not_be_held_out_later(own: Shop) -> None:
    rows = own.read("interactions")
    newest: dict[str, int] = {}
    for row in rows:
        newest[row["user_id"]] = max(newest.get(row["user_id"], 0), int(row["timestamp"]))
    # Without each reader's last row, what was trained on before is the validation row now.
    left = [r for r in rows if int(r["timestamp"]) < newest[r["user_id"]]]
    own.write("interactions", left)
    with pytest.raises(HeldError, match="held out now"):
        own.work(CHOSEN)
    why = stale_because(own.plan().node(OFFERED), own.context())
    assert "no_leakage" in why
    assert own.invoke("pin", "move", PIN).exit_code == 0
    own.work(CHOSEN)


def test_test_rows_change_neither_candidates_nor_questions(own: Shop) -> None:
    ctx, plan = own.context(), own.plan()
    before = ctx.load(plan.node(OFFERED)), entity_rows(plan.node(CHOSEN), ctx)  # type: ignore[arg-type]
    rows = own.read("interactions")
    last: dict[str, dict[str, Any]] = {}
    for row in rows:
        if int(row["timestamp"]) > int(last.get(row["user_id"], {"timestamp": 0})["timestamp"]):
            last[row["user_id"]] = row
    rng = np.random.default_rng(0)
    for user, row in last.items():
        met = {r["item_id"] for r in rows if r["user_id"] == user}
        free = [f"b{n:02}" for n in range(1, BOOKS + 1) if f"b{n:02}" not in met]
        row["item_id"] = str(rng.choice(free))
    own.write("interactions", rows)
    own.work(CHOSEN)
    ctx = own.context()
    assert before[0].equals(ctx.load(plan.node(OFFERED)))
    assert before[1] == entity_rows(plan.node(CHOSEN), ctx)  # type: ignore[arg-type]


def test_a_pruned_model_is_named_with_the_mend(own: Shop) -> None:
    ctx, node = own.context(), own.plan().node(OFFERED)
    shutil.rmtree(ctx.manifests.path(ctx.stands_for(own.plan().node(PIN))[1]))
    with pytest.raises(StepError, match=f"was pruned; run `llmers pin move {PIN}"):
        materialize(node, ctx, force=True)
