"""End to end on a tiny shop: what runs, what is re-used, what is held, and what is paid twice."""

from __future__ import annotations

import csv
import re
from typing import Any

import pyarrow.parquet as pq
import pytest
from shop import BOOKS, Shop, made

from llmers_pipelines.data.leakage import LABELS_SEEN
from llmers_pipelines.data.training import TEST
from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.orchestrate import cells
from llmers_pipelines.orchestrate.context import HeldError
from llmers_pipelines.orchestrate.publish import materialize, stale_because
from llmers_pipelines.orchestrate.steps import champion as gate
from llmers_pipelines.orchestrate.steps import generate
from llmers_pipelines.plan import Champion, Pin, Train
from llmers_pipelines.prompts.item_summary import ItemSummary

FIELDS = {"key", "status", "rows", "llm_calls", "cache_hits", "repaired", "quarantined",
          "tokens_in", "tokens_out", "seconds", "data_version"}  # fmt: skip
SUMMARY, VECTORS = "item_summaries/item_summary", "llm_embeddings/item_summary"
TABLES = {"catalog/items", "catalog/users", "catalog/interactions"}
TEMPLATE = "__template"


def named(shop: Shop, pattern: str) -> set[str]:
    return {n.name for n in shop.plan().nodes if re.search(pattern, n.name)}


def method(shop: Shop, recipe: str) -> Any:
    return next(m for m in shop.plan().methods if m.recipe.slug == recipe)


def stale(shop: Shop, **changes: Any) -> dict[str, str]:
    """Return why assets would do work, without those that would not."""
    ctx = shop.context(**changes)
    found = {n.name: stale_because(n, ctx) for n in shop.plan(**changes).nodes}
    return {name: why for name, why in found.items() if why}


def test_the_first_run_makes_everything_and_asks_no_model(opened: Any) -> None:
    shop, report = opened
    assert report["run_id"] and report["success"]
    assert [r["key"] for r in report["assets"]] == [n.name for n in shop.plan().select(["all"])]
    for row in report["assets"]:
        assert set(row) >= FIELDS
        assert row["status"] == "materialized" and row["rows"] > 0 and row["data_version"]
    assert sum(r["llm_calls"] for r in report["assets"]) == 0
    assert set(report["metrics"]) == {m.slug for m in shop.plan().methods}
    assert 0 < report["metrics"]["knnblend"]["ndcg@10"] < 1
    assert 0.5 < report["metrics"]["deepfm"]["auc"] <= 1


def test_the_second_run_reuses_everything(shop: Shop) -> None:
    trained = sorted((shop.home / "data/llmers/cells/shop").iterdir())
    report = shop.ask("run", "all")
    assert report["success"] and {r["status"] for r in report["assets"]} == {"reused"}
    assert sum(r["llm_calls"] for r in report["assets"]) == 0
    summaries = next(r for r in report["assets"] if r["key"] == SUMMARY)
    assert summaries["cache_hits"] == BOOKS
    assert sorted((shop.home / "data/llmers/cells/shop").iterdir()) == trained


def test_an_edited_text_costs_its_own_row_alone(own: Shop) -> None:
    rows = own.read("items")
    rows[2]["description"] = "A story of the sea, told anew by its keeper."
    own.write("items", rows)
    done = made(own.work())
    # the tables and splits are read again; what reads words, and what is served with them, follows
    assert done == (
        TABLES
        | named(own, r"^catalog/splits")
        | named(own, r"^(item_summaries|user_profiles)/")
        | named(own, r"^llm_embeddings/item")
        | named(own, r"pca__")
        | named(own, r"^(recommenders|evaluations)/(llm2x|knnblend|kar)")
        | named(own, r"^registry/")
    )
    for name in ("llm_embeddings/item_text", VECTORS, VECTORS + TEMPLATE):
        assert own.manifest(name).counts["encoded"] == 1, name
    assert own.manifest(SUMMARY).counts["no_answer"] == 1  # it was written for the old row
    assert made(own.work()) == set()


def test_a_rewritten_file_of_equal_content_stops_at_the_tables(own: Shop) -> None:
    own.write("items", own.read("items"), quoting=csv.QUOTE_ALL)
    before = {n: own.manifest(n).data_version for n in TABLES}
    assert set(stale(own)) == TABLES
    assert made(own.work()) == TABLES
    assert {n: own.manifest(n).data_version for n in TABLES} == before
    own.write("items", own.read("items"), quoting=csv.QUOTE_ALL)  # the same bytes
    assert made(own.work()) == set()


def test_a_new_reader_trains_anew_and_leaves_the_words_alone(own: Shop) -> None:
    rows = own.read("interactions")
    own.write("interactions", rows + [{**row, "user_id": "u99"} for row in rows[:9]])
    done = made(own.work("llm2x"))
    assert named(own, r"^recommenders/(llm2x|sasrec)") <= done
    assert not done & named(own, r"^(item_summaries|llm_embeddings|features)/")


def test_another_prompt_makes_the_asked_stale_and_nothing_else(
    own: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ItemSummary, "revision", 2)
    assert stale(own) == dict.fromkeys((SUMMARY, SUMMARY + TEMPLATE), "code or settings changed")
    # the answers are recorded ones: asked anew they say the same, so the vectors stop the chain
    assert made(own.work()) == {SUMMARY, SUMMARY + TEMPLATE, VECTORS, VECTORS + TEMPLATE}
    assert own.manifest(VECTORS).counts["encoded"] == 0


def test_a_setting_makes_exactly_stale_what_it_decides(shop: Shop) -> None:
    asked = named(shop, r"^(item_summaries|user_profiles)/") - named(shop, TEMPLATE)
    assert set(stale(shop, max_tokens=99)) == asked
    assert set(stale(shop, seeds=2)) == named(shop, r"^evaluations/")
    assert stale(shop, budget_calls=5, device="cpu", batch_tokens=64) == {}
    text = (shop.folder / "shop.toml").read_text().replace("rating >= 4", "rating >= 3")
    (shop.folder / "shop.toml").write_text(text)
    try:
        assert stale(shop) == {"catalog/splits__ctr": "source changed: split settings"}
    finally:
        (shop.folder / "shop.toml").write_text(text.replace("rating >= 3", "rating >= 4"))


def leak(users: Any, log: Any, items: Any, fields: Any) -> list[dict[str, Any]]:
    """Tell one user's held-out rows as well, as a faulty step would."""
    rows = honest(users, log, items, fields)
    user = int(log.user[log.split == TEST][0])
    row = next(r for r in rows if r["user_id"] == log.users.ids[user - 1])
    held_out = log.item[(log.user == user) & (log.split == TEST)]
    row["history"] += [{"item_id": log.items.ids[i - 1]} for i in held_out]
    return rows


honest = generate.user_rows


def test_a_leaking_prompt_is_found_and_holds_everything_behind_it(
    own: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles, behind = "user_profiles/user_preference", "llm_embeddings/user_preference"
    check = next(c for c in own.manifest(profiles).checks if c.name == "no_leakage")
    assert check.passed and check.details["interactions shown"] > 0
    monkeypatch.setattr(generate, "user_rows", leak)
    own.choose("[llm]\nmax_tokens = 99")  # so that there is something to do
    wanted = (behind, "recommenders/deepfm")
    report = own.ask("run", *wanted, code=1)
    rows = {r["key"]: r for r in report["assets"]}
    assert rows[profiles]["held_by"] == ["no_leakage"]
    assert re.search(r"no_leakage failed: user 'u\d+', item 'b\d+' is a test row",
                     rows[profiles]["error"])  # fmt: skip
    assert rows[behind]["status"] == "skipped"
    assert rows["recommenders/deepfm"]["status"] == "reused", "what does not depend on it goes on"
    # a later run that does not touch the faulty asset is held as well
    node = own.plan().node(behind)
    with pytest.raises(HeldError, match=r"user_preference.*failed its blocking check 'no_leakage'"):
        materialize(node, own.context())
    states = {r["key"]: r for r in own.ask("status", "--dataset", "shop")}
    assert states[profiles]["held_by"] == [f"{profiles}: no_leakage"]
    assert states[behind]["because"].startswith("held: user_profiles/user_preference")
    # mended, it goes on where it was held; equal answers leave what is behind them as it was
    monkeypatch.setattr(generate, "user_rows", honest)
    report = own.ask("run", *wanted)
    done = {r["key"] for r in report["assets"] if r["status"] == "materialized"}
    assert report["success"] and done == {profiles}


def test_what_saw_labels_says_so_to_the_end_and_is_never_champion(own: Shop) -> None:
    kar = method(own, "kar")
    assert own.manifest("user_profiles/user_preference").flags == (LABELS_SEEN,)
    for node in (kar.train, kar.evaluate, kar.register):
        assert own.manifest(node.name).flags == (LABELS_SEEN,)
    for name in (SUMMARY, "recommenders/deepfm", "registry/champion__ctr"):
        assert own.manifest(name).flags == ()
    rows = own.ask("compare", "--task", "ctr")["rows"]
    assert {r["method"] for r in rows if LABELS_SEEN in r["flags"]} == {kar.slug}
    before = own.manifest("registry/champion__ctr").info["champion"]
    alone = gate.run(Champion("ctr", (kar.register,)), own.context())
    (verdict,) = alone.info["verdicts"]
    assert not verdict["promoted"] and "marked labels_seen" in " ".join(verdict["reasons"])
    assert alone.info["champion"] == before != verdict["version"]


def test_a_mark_declared_later_reaches_the_end_without_training_anew(own: Shop) -> None:
    path = own.folder / "shop.toml"
    path.write_text(path.read_text().replace(
        'path = "item_summary.csv"', 'path = "item_summary.csv"\nlabels_seen = true'))  # fmt: skip
    assert stale(own) == {SUMMARY: "source changed: their authors saw"}
    before = sorted((own.home / "data/llmers/cells/shop").iterdir())
    own.work("llm2x")
    llm2x = method(own, "llm2x")
    for node in (llm2x.train, llm2x.evaluate, llm2x.register):
        assert own.manifest(node.name).flags == (LABELS_SEEN,)
    assert own.manifest(llm2x.base.name).flags == ()
    assert sorted((own.home / "data/llmers/cells/shop").iterdir()) == before


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    own: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trained = cells._train, []

    def counted(node: Train, arm: str, seed: int, *rest: Any) -> dict[str, Any]:
        if len(trained) == 2 and not resumed:
            raise KeyboardInterrupt
        trained.append((node.slug, arm, seed))
        return train(node, arm, seed, *rest)

    monkeypatch.setattr(cells, "_train", counted)
    resumed = False
    slug = method(own, "llm2x").evaluate.name
    with pytest.raises(KeyboardInterrupt):
        own.work(slug, seeds=2)
    assert len(trained) == 2
    assert own.manifest(slug).info["seeds"] == 1  # nothing half-done was published
    resumed = True
    assert made(own.work(slug, seeds=2)) == {slug}
    assert own.manifest(slug).info["seeds"] == 2
    # the second seed of base, method, template, and of the permuted control: each once
    assert len(trained) == len(set(trained)) == 4
    assert {seed for _, _, seed in trained} == {1}


def asked_of(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> FakeEngine:
    monkeypatch.setattr(factory, "make_engine", lambda settings, **_: engine)
    monkeypatch.setattr(factory, "engine_info", lambda settings, **_: engine.info)
    return engine


def test_a_budget_stops_cleanly_and_answers_are_paid_for_once(
    own: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.choose('[llm]\nengine = "hf"\nmodel = "a-model"')
    engine = asked_of(monkeypatch, FakeEngine())

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        engine.asked.clear()
        report = own.ask("run", SUMMARY, *words, code=code)
        return next(r for r in report["assets"] if r["key"] == SUMMARY)

    recorded = own.ask("store", "stats")["answers"]["rows"]
    (row,) = [r for r in own.ask("plan", SUMMARY)["assets"] if r["key"] == SUMMARY]
    assert (row["llm_calls"], row["stored"]) == (BOOKS, 0)
    stopped = run("--budget-calls", "5", code=1)
    assert stopped["status"] == "budget reached" and "5 answers are stored" in stopped["error"]
    assert len(engine.asked) == 5, "a spent budget is not spent again by a retry"
    rest = run()
    assert (rest["llm_calls"], rest["cache_hits"]) == (BOOKS - 5, 5) and rest["tokens_in"] > 0
    rows = own.read("items")
    rows[7]["description"] = "A story of space without end."
    own.write("items", rows)
    assert run()["llm_calls"] == len(engine.asked) == 1
    assert run("--force")["llm_calls"] == 0
    assert own.ask("store", "stats")["answers"]["rows"] == recorded + BOOKS + 1
    assert own.ask("store", "verify")["faults"] == []


def test_a_pin_stands_until_it_is_moved(own: Shop) -> None:
    plan, ctx = own.plan(), own.context()
    target = plan.node("catalog/items")
    pin = Pin(target)
    first = materialize(pin, ctx)
    assert first.status == "materialized"
    rows = own.read("items")
    own.write("items", rows[:-1])
    assert made(own.work("catalog/items")) == {"catalog/items"}
    ctx = own.context()
    moved = ctx.manifest(target).data_version
    stands = materialize(pin, ctx)
    assert stands.status == "reused" and stands.manifest.data_version != moved
    assert ctx.load(pin).num_rows == BOOKS and ctx.load(target).num_rows == BOOKS - 1
    assert materialize(pin, ctx, force=True).manifest.data_version == moved


def test_versions_stay_and_are_never_overwritten(own: Shop) -> None:
    old = own.manifest("catalog/items")
    path = own.context().manifests.path(old) / "rows.parquet"
    before = path.read_bytes()
    rows = own.read("items")
    rows[0]["title"] = "Another Title"
    own.write("items", rows)
    own.work("catalog/items")
    assert own.manifest("catalog/items").data_version != old.data_version
    assert path.read_bytes() == before
    assert own.context().manifests.version("shop", "catalog/items", old.data_version) == old


def test_bad_rows_stay_with_their_reason(own: Shop) -> None:
    rows = own.read("interactions")
    own.write("interactions", [*rows, {**rows[0], "item_id": "nowhere"}])
    own.work("catalog/interactions")
    manifest = own.manifest("catalog/interactions")
    assert manifest.counts["quarantined"] == 1
    folder = own.context().manifests.path(manifest)
    kept = pq.read_table(folder / "quarantine.parquet").to_pylist()
    assert any(r["value"] == "nowhere" and r["reason"] and r["mend"] for r in kept)


def test_new_items_keep_the_places_of_reducers_and_encoders(own: Shop) -> None:
    """A new item is encoded with the fits that stand: the others' vectors do not move."""
    ctx = own.context()
    node = own.plan().node(next(iter(named(own, r"^features/pca.*summary$"))))
    before = ctx.load(node)
    rows = own.read("items")
    own.write("items", [*rows, {**rows[0], "item_id": "b99", "title": "The Newest Sea Book"}])
    own.work(node.name)
    after = own.context().load(node)
    assert after.ids[: len(before.ids)] == before.ids and "b99" in after.ids
    assert (after.vectors[: len(before.ids)] == before.vectors).all()
    assert own.manifest(VECTORS).counts["encoded"] == 1
    told = {c.name: c.details for c in own.manifest(node.name).checks}["reducer_hygiene"]
    assert told["rows kept in place"] == len(before.ids) and told["worst relative move"] == 0
    assert told["wrong signs"] == 0 and told["axes"] == before.dim
    told = {c.name: c.details for c in own.manifest(VECTORS).checks}["geometry"]
    assert 0 <= told["purity_by_chance"] <= told["category_purity"] <= 1
