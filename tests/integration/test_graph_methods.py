"""Methods over graphs on the shop: chains and rounds of questions, counted, killed, served."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import graph_shop
import pytest
from graph_shop import METHODS, Reader, answers_of, generated, opened
from shop import BOOKS, USERS, Shop, same_environment, wrong_lineage
from tiny_lm import make_tiny_lm

from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.llm import factory
from llmers_pipelines.orchestrate.publish import materialize
from llmers_pipelines.plan import Generate

ENGINE = 'engine = "hf"\nmodel = "a-model"'


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, Any]]:
    with same_environment():
        shop = opened(tmp_path_factory.mktemp("graphs"))
        return shop, shop.ask("run", "all")


def scripted(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Reader:
    engine = Reader(**settings)
    monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
    monkeypatch.setattr(factory, "engine_info", lambda *a, **k: engine.info)
    return engine


def test_one_run_makes_all_of_them(ran: Any) -> None:
    shop, report = ran
    assert report["success"], [r for r in report["assets"] if r.get("error")]
    assert {m for m in METHODS if any(k.startswith(m) for k in report["metrics"])} == set(METHODS)
    for node in shop.plan().nodes:
        checks = shop.manifest(node.name).checks
        assert [c.name for c in checks if c.blocking and not c.passed] == [], node.name
    assert wrong_lineage(shop) == []
    assert shop.ask("run", "all")["run_id"] is None  # nothing is stale


@pytest.mark.parametrize("method", METHODS)
def test_no_prompt_tells_of_a_held_out_row(ran: Any, method: str) -> None:
    from llmers_pipelines.orchestrate.steps.generate import entity_rows

    shop = ran[0]
    ctx, plan = shop.context(), shop.plan()
    log = ctx.load(plan.node("catalog/splits__sequential"))
    rows = zip(log.user, log.item, log.split, strict=True)
    ids = (log.users.ids, log.items.ids)
    train = {(ids[0][u - 1], ids[1][i - 1]) for u, i, s in rows if s == TRAIN}
    (loaded,) = [m for m in plan.methods if m.recipe.slug == method]
    told = 0
    for node in plan.nodes:
        if isinstance(node, Generate) and loaded.slug in plan.owners[node]:
            pairs = [p for row in entity_rows(node, ctx) for p in node.task.pairs(row)]
            told += len(pairs)
            assert set(pairs) <= train, node.name
            check = next(c for c in shop.manifest(node.name).checks if c.name == "no_leakage")
            assert check.passed and check.details["interactions shown"] == len(pairs)
    assert told > 0


def test_a_request_explores_along_the_tree_of_the_bundle(ran: Any) -> None:
    shop = ran[0]
    name = next(n.name for n in shop.plan().nodes if n.name.startswith("recommenders/harec"))
    asked = ("recommend", "--user", "u01", "-k", "6", "--method", name)
    plain, mixed = shop.ask(*asked), shop.ask(*asked, "--explore", "0.5", "--layer", "0")
    new = [row for row in mixed["items"] if row.get("explored")]
    assert len(new) == 3 and mixed["items"][:3] == plain["items"][:3]
    known = {r["item_id"] for r in shop.read("interactions") if r["user_id"] == "u01"}
    assert not known & {row["item_id"] for row in mixed["items"]}
    report = shop.manifest(name.replace("recommenders", "evaluations")).info["report"]
    assert "Exploration along the tree" in report


def test_a_review_of_a_test_row_never_enters(ran: Any) -> None:
    shop = ran[0]
    ctx, plan = shop.context(), shop.plan()
    name = next(n.name for n in plan.nodes if n.name.startswith("features/training_reviews"))
    reviews = ctx.load(plan.node(name))
    assert reviews.num_rows == USERS * 7  # nine read, the last two held out
    assert shop.manifest(name).counts["of_held_out_rows"] == USERS * 2
    edges = next(n.name for n in plan.nodes if n.name.startswith("features/review_aspect_edges"))
    assert set(ctx.load(plan.node(edges))["aspect"].to_pylist()) <= set(graph_shop.ASPECTS)


def test_rounds_ask_so_often_and_a_second_run_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GaCLLM: L (N_u + N_i) questions."""
    with same_environment():
        shop = opened(tmp_path, "gacllm", llm=ENGINE)
        engine = scripted(monkeypatch)
        names = generated(shop)
        shop.work(*names)
        assert len(names) == 4 and len(engine.asked) == 2 * (USERS + BOOKS)
        assert {shop.manifest(n).counts["llm_calls"] for n in names} == {USERS, BOOKS}
        ctx, plan = shop.context(), shop.plan()
        for name in names:
            assert materialize(plan.node(name), ctx, force=True).manifest.counts["llm_calls"] == 0
        assert len(engine.asked) == 2 * (USERS + BOOKS)


def test_reasoning_asks_each_pair_once_and_a_second_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with same_environment():
        shop = opened(tmp_path, "llmrg", llm=ENGINE)
        engine = scripted(monkeypatch)
        names = generated(shop)
        shop.work(*names)
        calls = {n: shop.manifest(n).counts for n in names}
        fills = [n for n in names if "fill_step" in n]
        base = [n.name for n in shop.plan().nodes if n.name.startswith("features/verified_steps")
                and "template" not in n.name]  # fmt: skip
        ctx, plan = shop.context(), shop.plan()
        pairs = [ctx.load(plan.node(n))["step_id"].to_pylist() for n in fills]
        assert not set(pairs[0]) & set(pairs[1]), "what the base holds is not asked again"
        assert all(len(p) == len(set(p)) for p in pairs)
        final = ctx.load(plan.node(base[-1]))
        assert final.num_rows == sum(map(len, pairs)), "the base grows"
        asked = sum(c["llm_calls"] for c in calls.values())
        assert asked == len(engine.asked) and asked > 0
        rows = [shop.manifest(n).counts for n in (s.name for s in shop.plan().nodes)
                if shop.context().manifests.current("shop", n)]  # fmt: skip
        spared = [c["users_not_asked"] for c in rows if "users_not_asked" in c]
        assert sum(spared) > 0, "some users are explained by what others gave"

        traced = shop.ask("trace", fills[0], pairs[0][0])["steps"][-1]["content"]
        asked_with = traced["prompt"]["messages"][-1]["content"]
        assert traced["status"] == "ok" and "[hidden]" in asked_with

        for name in names:
            again = materialize(plan.node(name), ctx, force=True).manifest.counts
            assert (again["llm_calls"], again["cache_hits"]) == (
                0, calls[name]["llm_calls"] + calls[name]["cache_hits"]
            )  # fmt: skip
        assert len(engine.asked) == asked


def test_a_new_user_asks_about_new_pairs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with same_environment():
        shop = opened(tmp_path, "llmrg", llm=ENGINE)
        scripted(monkeypatch)
        names = [n for n in generated(shop) if "fill_step" in n]
        shop.work(*names)
        first = {n: set(shop.context().load(shop.plan().node(n))["step_id"].to_pylist())
                 for n in names}  # fmt: skip
        rows = shop.read("interactions")
        twin = [r for r in rows if r["user_id"] == "u01"]
        more = [{**r, "user_id": "z99", "timestamp": int(r["timestamp"]) + 10**6} for r in twin]
        shop.write("interactions", [*rows, *more])
        engine = scripted(monkeypatch)
        shop.work(*names)
        asked = [r.row_id for r in engine.asked if ">" in r.row_id]
        known = set().union(*first.values())
        assert not set(asked) & known, "a verified pair is paid once"


KILLED = ("colakg", "sagcn", "gacllm", "harec", "llmrg")


@pytest.mark.parametrize("method", KILLED)
def test_killed_at_any_answer_it_goes_on_without_a_repeated_call(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with same_environment():
        whole = opened(tmp_path / "whole", method, llm=ENGINE)
        engine = scripted(monkeypatch)
        names = generated(whole)
        whole.work(*names)
        total = len(engine.asked)
        shop = opened(tmp_path / "killed", method, llm=ENGINE)

    def run(kill_after: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, graph_shop.__file__, str(shop.home), str(kill_after), *names]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    # inside of a later step
    at = {"colakg": 9, "sagcn": 31, "gacllm": 71, "harec": 50, "llmrg": 57}[method]
    assert run(at).returncode == -signal.SIGKILL
    again = run(0)
    assert again.returncode == 0, again.stderr[-2000:]
    # An answer that had come when the process died was paid; at most the last one is not stored.
    assert total - at <= int(again.stdout.split()[-1]) <= total - at + 1
    with same_environment():
        assert answers_of(shop, *names) == answers_of(whole, *names)


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model: grammars shape its answers, and most of them are refused."""
    return make_tiny_lm(tmp_path_factory.mktemp("talker"), stops=2.0)


@pytest.mark.parametrize("method", ["sagcn", "llmrg", "gacllm", "harec"])
def test_a_real_engine_answers_in_the_form_that_is_asked_for(
    tmp_path: Path, talker: Path, method: str
) -> None:
    """Noise keeps to the grammar or is refused as a value; nothing is asked twice."""
    with same_environment():
        shop = opened(tmp_path, method,
                      llm=f'engine = "hf"\nmodel = "{talker}"\nmax_tokens = 48')  # fmt: skip
        names = generated(shop)
        shop.work(*names)
        ctx, plan = shop.context(), shop.plan()
        status = {n: set(ctx.load(plan.node(n))["status"].to_pylist()) for n in names}
        assert set().union(*status.values()) <= {"ok", "repaired", "quarantined", "no_answer"}
        calls = [shop.manifest(n).counts["llm_calls"] for n in names]
        assert calls[0] > 0
        for name in names:
            assert materialize(plan.node(name), ctx, force=True).manifest.counts["llm_calls"] == 0


def test_an_adapter_tuned_on_matched_texts_rewrites(tmp_path: Path, talker: Path) -> None:
    with same_environment():
        shop = opened(tmp_path, "gacllm", llm=f'engine = "hf"\nmodel = "{talker}"\nmax_tokens = 24')
        text = (shop.home / "llmers.toml").read_text()
        more = "neighbours = 3, tuned = true, examples = 40, rounds = 1"
        text = text.replace("neighbours = 3", more)
        (shop.home / "llmers.toml").write_text(text)
        names = generated(shop)
        assert all("sft" in n for n in names) and len(names) == 2
        shop.work(*names)
        tuned = next(n for n in shop.plan().nodes if n.verb == "tune")
        assert shop.manifest(tuned.name).info or shop.manifest(tuned.name).counts
        examples = next(n.name for n in shop.plan().nodes if "matched_texts" in n.name
                        and n.verb == "derive")  # fmt: skip
        check = next(c for c in shop.manifest(examples).checks if c.name == "no_leakage")
        assert check.passed and check.details["interactions shown"] > 0
        assert json.dumps(shop.manifest(names[0]).counts["llm_calls"])
