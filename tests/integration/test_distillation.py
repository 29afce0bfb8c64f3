"""Teachers and students in the shop: three teachers, the controls, and every command on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from shop import CHOICE, SHOP, SMALL, Shop, same_environment, wrong_lineage

from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.orchestrate.context import HeldError, StepError
from llmers_pipelines.orchestrate.publish import materialize, stale_because
from llmers_pipelines.orchestrate.steps import teach
from llmers_pipelines.plan import Distill, Teach, Train
from llmers_pipelines.teach.teacher import Taught

GRU = "{ dim = 8, hidden = 12, max_len = 10, fit = { epochs = 2, min_epochs = 1 } }"
METHODS = f"""
[[methods]]
recipe = "gru4rec"
backbone_settings = {GRU}
[[methods]]
recipe = "dllm2rec"
settings = {{ teacher_dim = 12 }}
backbone_settings = {SMALL}
[[methods]]
recipe = "dllm2rec"
backbone = "gru4rec"
settings = {{ teacher = "file", k = 3 }}
backbone_settings = {GRU}
"""
LARGER = "trained_ranking__sasrec__dim12__inner48"


def choice() -> str:
    head = CHOICE[: CHOICE.index("[[methods]]")]
    controls = 'controls = ["permuted", "gaussian", "shuffled"]'
    return head.replace('controls = ["permuted", "template"]', controls) + METHODS


def rankings() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, 31):
        books = rng.permutation(24)[:4] + 1
        rows += [{"user_id": f"u{user:02}", "rank": r, "item_id": f"b{b:02}", "sure": 1 / r}
                 for r, b in enumerate(books, start=1)]  # fmt: skip
    rows.append({"user_id": "u01", "rank": 9, "item_id": "b99", "sure": 0.5})
    return rows


def opened(home: Any, cutoff: str = "sequential") -> Shop:
    shop = Shop.open(home)
    shop.write("rankings", rankings())
    declared = f"""
[rankings.reader]
path = "rankings.csv"
confidence = "sure"
data_cutoff = "{cutoff}"
model = "a reader of books"
"""
    (shop.folder / "shop.toml").write_text(SHOP + declared)
    (shop.home / "llmers.toml").write_text(choice())
    return shop


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, Any]]:
    shop = opened(tmp_path_factory.mktemp("distilled"))
    return shop, shop.ask("run", "all")


@pytest.fixture
def shop(ran: tuple[Shop, dict[str, Any]]) -> Iterator[Shop]:
    with same_environment():
        yield ran[0]


def test_one_run_makes_teachers_students_and_their_evaluations(ran: Any) -> None:
    shop, report = ran
    assert report["success"], [r for r in report["assets"] if r.get("error")]
    keys = {r["key"].split("/")[0] for r in report["assets"]}
    assert {"teacher_states", "student_weights", "recommenders", "evaluations", "registry"} <= keys
    for node in shop.plan().nodes:
        if isinstance(node, (Teach, Distill)):
            assert all(c.passed for c in shop.manifest(node.name).checks if c.blocking), node.name
    assert len([k for k in report["metrics"] if k.startswith("dllm2rec")]) == 2
    assert wrong_lineage(shop) == []


def test_each_teacher_says_who_taught(shop: Shop) -> None:
    larger = shop.manifest(f"teacher_states/{LARGER}")
    assert larger.info["teacher"] == "no LLM (recommenders/sasrec__dim12__inner48)"
    assert larger.flags == ()
    recorded = shop.manifest("teacher_states/recorded_ranking__k3")
    assert recorded.info["teacher"] == "a reader of books (recorded)"
    assert recorded.counts["refused"] == 1
    folder = shop.context().manifests.path(recorded)
    bad = pq.read_table(folder / "quarantine.parquet").to_pylist()
    assert [(b["column"], b["value"]) for b in bad] == [("item_id", "b99")]
    found = [m for m in shop.plan().methods if m.recipe.slug == "dllm2rec"]
    report = shop.manifest(found[0].evaluate.name).info["report"]
    assert "no LLM (recommenders/sasrec__dim12__inner48)" in report


def test_the_controls_are_arms_of_the_same_evaluation(shop: Shop) -> None:
    for method in shop.plan().methods:
        if method.recipe.slug != "dllm2rec":
            continue
        assert isinstance(method.train, Distill)
        assert type(method.base) is Train and not method.base.parts
        folder = shop.context().manifests.path(shop.manifest(method.evaluate.name))
        summary = json.loads((folder / "summary.json").read_text())
        arms = {name.split("/")[0] for name in summary["cells"]}
        assert {"base", "enhanced", "permuted", "gaussian", "shuffled"} <= arms
    gru = next(m for m in shop.plan().methods if m.recipe.slug == "gru4rec")
    assert gru.evaluate.controls == ()


def test_commands_work_on_a_student_as_on_any_recommender(shop: Shop) -> None:
    assert shop.ask("run", "all")["run_id"] is None  # nothing is stale
    name = next(m for m in shop.plan().methods if m.recipe.slug == "dllm2rec").train.name
    assert shop.invoke("status").exit_code == 0
    rows = shop.ask("plan", "all")["assets"]
    assert {r["state"] for r in rows if r["key"].startswith(("teacher", "student"))} == {"fresh"}
    compared = shop.ask("compare")["rows"]
    assert any(r["method"] == name.split("/")[1] for r in compared)
    traced = shop.ask("trace", f"teacher_states/{LARGER}", "u05")
    taught = traced["steps"][-1]["content"]
    assert [r["rank"] for r in taught["rows"]] == list(range(1, 11))
    assert taught["note"].endswith(f"the newest is {taught['rows'][0]['position']}")
    assert name in {f["asset"] for f in traced["onward"]}
    assert name in {m["asset"] for m in traced["models"]}
    by_item = shop.ask("trace", f"teacher_states/{LARGER}", "b03")["steps"][-1]["content"]
    assert by_item["total"] > 0 and "mean rank" in by_item["note"]


def test_a_student_follows_its_teacher(ran: Any, tmp_path: Any) -> None:
    with same_environment():
        own = ran[0].copy(tmp_path / "home")
        rows = [r for r in own.read("rankings") if r["item_id"] != "b99"]
        rows[0]["item_id"] = next(
            i for i in ("b01", "b02", "b03", "b04", "b05")
            if i not in {r["item_id"] for r in rows if r["user_id"] == "u01"}
        )  # fmt: skip
        own.write("rankings", rows)
        ctx = own.context()
        nodes = {n.name: stale_because(n, ctx) for n in own.plan().nodes}
        stale = {n for n, why in nodes.items() if why}
        assert stale == {"teacher_states/recorded_ranking__k3"}
        assert nodes["teacher_states/recorded_ranking__k3"] == "source changed: rankings"
        done = own.work("all")
        again = {n for n, status in done.items() if status == "materialized"}
        assert {n.split("/")[0] for n in again} >= {"teacher_states", "student_weights"}
        assert not any("dllm2rec__sasrec" in n for n in again)


def test_rankings_that_saw_other_rows_are_refused(tmp_path: Any) -> None:
    with same_environment():
        shop = opened(tmp_path / "home", cutoff="unknown")
        node = shop.plan().node("teacher_states/recorded_ranking__k3")
        ctx = shop.context()
        for name in ("items", "interactions", "users", "splits__sequential"):
            materialize(shop.plan().node(f"catalog/{name}"), ctx)
        with pytest.raises(StepError, match="it is not recorded which interactions"):
            materialize(node, ctx)
        accepted = shop.context(accept_contaminated=True)
        assert materialize(node, accepted).manifest.flags == ("contaminated",)


def test_a_teacher_that_was_shown_held_out_rows_holds_its_students(
    ran: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with same_environment():
        own = ran[0].copy(tmp_path / "home")
        ctx = own.context()
        node = own.plan().node(f"teacher_states/{LARGER}")
        right = teach._trained

        def peeking(node: Teach, ctx: Any, data: Any) -> Taught:
            import dataclasses

            held = data.split == 2
            return dataclasses.replace(
                right(node, ctx, data), shown=(data.user[held], data.item[held])
            )

        monkeypatch.setattr(teach, "_trained", peeking)
        done = materialize(node, ctx, force=True)
        check = next(c for c in done.manifest.checks if c.name == "no_leakage")
        assert not check.passed and check.blocking and "is a test row" in check.details["why"]
        student = next(m for m in own.plan().methods if m.recipe.slug == "dllm2rec").train
        with pytest.raises(HeldError, match="no_leakage"):
            materialize(student, own.context())


def test_a_language_model_teaches_and_is_paid_once(
    ran: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with same_environment():
        own = ran[0].copy(tmp_path / "home")
        text = (own.home / "llmers.toml").read_text()
        text = text.replace("teacher_dim = 12", 'teacher = "llm"')
        (own.home / "llmers.toml").write_text(text)
        name = "teacher_states/language_model_ranking__pin__itemknn"
        plan = own.plan()
        node = plan.node(name)
        with pytest.raises(StepError, match=r"no LLM \(template\).*has no log-probabilities"):
            own.work(name)
        (row,) = (r for r in own.ask("plan", name)["assets"] if r["key"] == name)
        assert row["llm_calls"] is None and row["notes"][0].startswith("cannot run: the engine")
        assert "cannot run" in own.invoke("plan", name).stdout
        refused = own.invoke("run", "all", "--force")
        assert refused.exit_code == 1 and "nothing was run, asked or paid" in str(refused.exception)
        engines = []

        def fake(settings: Any, **_: Any) -> FakeEngine:
            engines.append(FakeEngine())
            return engines[-1]

        monkeypatch.setattr(factory, "make_engine", fake)
        monkeypatch.setattr(factory, "engine_info", lambda settings, **_: FakeEngine().info)
        with pytest.raises(StepError, match="budget reached: 7 of 7 calls; 7 answers are stored"):
            own.work(name, budget_calls=7)
        waiting = next(r for r in own.ask("plan", name)["assets"] if r["key"] == name)
        users = own.manifest("catalog/splits__sequential").counts["users"]
        assert (waiting["stored"], waiting["llm_calls"]) == (7, users - 7)
        assert waiting["cached"] == 7 and waiting["calls"]["value"] == users - 7
        assert waiting["tokens_in"]["value"] > 0 and waiting["tokens_out"]["value"] == 0
        assert f"{users - 7} calls score" in waiting["notes"][0]
        assert "nothing is written" in " ".join(own.invoke("plan", name).stdout.split())
        report = own.ask("run", name)
        assert report["success"]
        found = next(r for r in report["estimate"]["assets"] if r["key"] == name)
        assert found["calls"] == {"estimate": users - 7, "actual": users - 7, "error_percent": 0}
        assert found["tokens_in"]["actual"] > 0
        counts = own.manifest(name).counts
        assert (counts["llm_calls"], counts["cache_hits"]) == (users - 7, 7)
        table = own.context().load(node)
        # the fake model prefers candidates as they come: the best of the pinned ItemKNN
        assert set(np.unique(table["rank"].to_numpy())) == set(range(1, 11))
        ctx = own.context()
        assert materialize(node, ctx, force=True).manifest.counts["llm_calls"] == 0
        assert json.dumps(counts)
