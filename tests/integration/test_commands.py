"""The command line on the shop: one JSON document each, clear failures, nothing that writes."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from shop import BOOKS, USERS, Shop, same_environment

from llmers_pipelines import cli
from llmers_pipelines.recipe import discover

SUMMARY, VECTORS = "item_summaries/item_summary", "llm_embeddings/item_summary"


def test_compare_has_a_row_per_metric_and_slice_with_controls(shop: Shop) -> None:
    document = shop.ask("compare")
    assert Path(document["report"]).read_text().startswith("# shop: enhanced against base")
    rows = document["rows"]
    assert {r["method"] for r in rows} == {m.slug for m in shop.plan().methods}
    enhanced = [r for r in rows if not r["is_baseline"]]
    heads = [r for r in enhanced if r["slice"] == "all" and r["metric"] == r["primary"]]
    assert {r["task"] for r in heads} == {"sequential", "ctr"}
    wanted = {"metric", "slice", "base", "enhanced", "difference", "low", "high", "p",
              "p_corrected", "users", "seeds", "claim", "verdict", "flags"}  # fmt: skip
    for row in heads:
        assert set(row) >= wanted
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["p"] <= row["p_corrected"] <= 1
        for control in ("permuted", "template"):
            assert 0 <= row[f"control_{control}"] <= 1
        assert row["claim"] != "claimed", "one seed claims nothing"
    assert {"all", "tail_items"} <= {r["slice"] for r in enhanced}
    only = shop.ask("compare", "--task", "ctr")["rows"]
    assert {r["task"] for r in only} == {"ctr"}


def test_compare_leaves_out_what_is_no_longer_chosen(own: Shop) -> None:
    every = {row["method"] for row in own.ask("compare")["rows"]}
    toml = own.home / "llmers.toml"
    toml.write_text(toml.read_text().rpartition("[[methods]]")[0])
    chosen = {row["method"] for row in own.ask("compare")["rows"]}
    assert chosen < every
    told = f"{len(every - chosen)} evaluated before are not in llmers.toml"
    assert told in own.invoke("compare").stderr
    assert {row["method"] for row in own.ask("compare", "--all")["rows"]} == every


def test_compare_writes_the_report_where_it_is_told(shop: Shop, tmp_path: Path) -> None:
    result = shop.invoke("compare", "--out", str(tmp_path / "report.md"))
    assert result.exit_code == 0
    text = (tmp_path / "report.md").read_text()
    assert "## Task `sequential`" in text and "labels seen" in text and text in result.stdout


def test_sampled_metrics_are_named_so_and_leave_every_report_as_it_is(own: Shop) -> None:
    report = Path(own.ask("compare")["report"])
    before, plan = report.read_text(), own.ask("plan")["assets"]
    found = own.ask("compare", "--sampled", "5u")
    assert report.read_text() == before and own.ask("plan")["assets"] == plan
    rows = found["rows"]
    told = own.ask("compare")["rows"]
    assert {r["method"] for r in rows} == {r["method"] for r in told if r["task"] != "ctr"}
    assert {"enhanced", "base"} <= {r["arm"] for r in rows}
    names = {"hr@5_5u", "ndcg@5_5u", "hr@10_5u", "ndcg@10_5u", "mrr@10_5u"}
    full = {r["method"]: r["enhanced"] for r in told
            if r["slice"] == "all" and r["metric"] == "hr@10"}  # fmt: skip
    for row in rows:
        assert names < set(row) and "hr@10" not in row and "ndcg@10" not in row
        assert row["hr@10_5u"] == 1.0, "of six candidates each is among the first ten"
        if row["arm"] == "enhanced":
            assert row["users"] == USERS and row["hr@10_5u"] >= full[row["method"]]
            # what the full ranks let expect, with a draw's deviation over 40 users
            assert row["hr@5_5u"] == pytest.approx(row["expected hr@5_5u"], abs=0.25)
    table = own.invoke("compare", "--sampled", "5p").stdout
    assert "hr@10_5p" in table and "do not keep the order of models" in table
    assert "expected" not in table
    for wrong in ("100", "0u", "u"):
        refused = own.invoke("compare", "--sampled", wrong)
        assert refused.exit_code
        assert "write 100u (uniform) or 100p (by popularity)" in str(refused.exception)


def test_status_and_plan_agree_that_nothing_is_to_do(shop: Shop) -> None:
    names = {n.name for n in shop.plan().nodes}
    rows = shop.ask("status")
    assert {r["key"] for r in rows if r["dataset"] == "shop"} == names
    assert not [r for r in rows if r["stale"] or r["held_by"]]
    document = shop.ask("plan", "llm2x")
    assert {r["state"] for r in document["assets"]} == {"fresh"}
    assert {r["key"] for r in document["assets"]} < names
    assert "at most 0 would do work" in shop.invoke("plan", "llm2x").stdout
    assert "assets are fresh" in shop.invoke("status").stdout


def test_plan_tells_what_follows_a_change_before_anything_runs(own: Shop) -> None:
    rows = own.read("items")
    rows[0]["title"] = "Another Title"
    own.write("items", rows)
    states = {r["key"]: r for r in own.ask("plan")["assets"]}
    assert states["catalog/items"]["state"] == "source changed: files"
    assert states[SUMMARY]["state"] == "after catalog/items"
    assert states["registry/champion__ctr"]["state"].startswith("after registry/")
    assert own.manifest("catalog/items").counts["records_read"] == BOOKS, "nothing ran"


def test_recommend_for_a_known_reader(shop: Shop) -> None:
    answer = shop.ask("recommend", "--user", "u05", "-k", "4")
    assert answer["user"] == "u05" and answer["model"] == "knnblend" and answer["fallback"] is None
    assert answer["version"] == shop.manifest("registry/champion__sequential").info["champion"]
    read = {r["item_id"] for r in shop.read("interactions") if r["user_id"] == "u05"}
    found = [i["item_id"] for i in answer["items"]]
    assert len(found) == 4 and not read & set(found)
    titles = {r["item_id"]: r["title"] for r in shop.read("items")}
    assert all(i["title"] == titles[i["item_id"]] for i in answer["items"])
    scores = [i["score"] for i in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_recommend_from_a_named_method(shop: Shop) -> None:
    """Whatever the gate said of it: a person wants to see what a method would serve."""
    served = shop.ask("recommend", "--user", "u05")
    other = "llm2x__sasrec" if "llm2x" not in served["model"] else "knnblend"
    method = next(m.train.slug for m in shop.plan().methods if m.slug.startswith(other))
    answer = shop.ask("recommend", "--user", "u05", "--method", method)
    assert answer["model"] == method and answer["version"] != served["version"]
    assert len(answer["items"]) == 10
    told = shop.invoke("recommend", "--user", "u05", "--method", "nothing").stderr
    assert "no version of" in told and method in told


def test_recommend_explains_with_near_items_and_shared_attributes(shop: Shop) -> None:
    answer = shop.ask("recommend", "--user", "u05", "--explain")
    read = {r["item_id"] for r in shop.read("interactions") if r["user_id"] == "u05"}
    whys = [i["why"] for i in answer["items"]]
    near = [n["item_id"] for why in whys for n in why["nearest"]]
    assert near and set(near) <= read
    assert any("kind" in why["shared"] for why in whys)
    told = shop.invoke("recommend", "--user", "u05", "--explain").stdout
    assert "near The " in told and "shares kind" in told


def test_recommend_to_a_stranger_says_so(shop: Shop) -> None:
    answer = shop.ask("recommend", "--user", "nobody", "--task", "ctr", "-k", "3", "--explain")
    assert answer["fallback"] == "popularity" and len(answer["items"]) == 3
    assert answer["model"] == "deepfm"
    assert "fallback: popularity" in shop.invoke("recommend", "-u", "nobody").stdout


def test_trace_walks_from_a_vector_to_the_catalog_row_and_forward(shop: Shop) -> None:
    found = shop.ask("trace", VECTORS, "b03")
    assert [s["asset"] for s in found["steps"]] == ["catalog/items", SUMMARY, VECTORS]
    row, answer, vector = found["steps"]
    assert vector["reads"] == [SUMMARY, "catalog/items"] and answer["reads"] == ["catalog/items"]
    assert all(step["current"] and not step["problem"] for step in found["steps"])
    vector, answer = vector["content"], answer["content"]
    assert vector["known"] and vector["encoder"] and vector["norm"] > 0
    assert vector["text"] == answer["text"]
    assert answer["status"] == "ok" and "sea" in answer["attempts"][0]["raw"]
    assert answer["prompt_revision"].startswith("item_summary-r")
    assert answer["engine"]["model"].startswith("item_summary.csv@")
    prompt = " ".join(m["content"] for m in answer["prompt"]["messages"])
    assert "The Sea Book 3" in prompt
    assert row["content"]["values"]["title"] == found["title"] == "The Sea Book 3"
    assert row["sources"]["files"]
    assert row["data_version"] == shop.manifest("catalog/items").data_version
    onward = {r["asset"] for r in found["onward"]}
    assert any(name.startswith("recommenders/llm2x") for name in onward)
    assert not any("kar" in name or "template" in name for name in onward)
    (model,) = found["models"]
    assert model["registered"] == "llmers-shop-sequential" and model["version"]
    assert "rendered prompt" in shop.invoke("trace", VECTORS, "b03").stdout


def test_trace_of_a_reader_shows_training_rows_alone(shop: Shop) -> None:
    found = shop.ask("trace", "user_profiles/user_preference", "u05")
    log = next(s for s in found["steps"] if s["asset"] == "catalog/splits__ctr")["content"]
    data = shop.context().load(shop.plan().node("catalog/splits__ctr"))
    mine = data.user == data.users.index(["u05"])[0]
    held_out = {data.items.ids[i - 1] for i in data.item[mine & (data.split == 2)]}
    assert held_out and log["newest"] and not held_out & {i["id"] for i in log["newest"]}


def test_sql_asks_over_every_table_and_the_store(shop: Shop) -> None:
    query = ("select i.kind, count(*) as n from catalog.items i join item_summaries.item_summary s "
             "using (item_id) where s.status = 'ok' group by 1 order by 1")  # fmt: skip
    assert shop.ask("sql", query) == [
        {"kind": k, "n": BOOKS // 3} for k in ("crime", "sea", "space")
    ]
    assert shop.ask("sql", "select count(*) as n from store.responses")[0]["n"] > 0
    table = VECTORS.replace("/", ".")
    own = shop.ask(
        "sql", "select item_id, known, len(vector) as dim, array_cosine_similarity(vector, vector) "
        f"as own from {table} order by item_id",
    )  # fmt: skip
    assert [row["item_id"] for row in own] == [f"b{i:02}" for i in range(1, BOOKS + 1)]
    assert {row["dim"] for row in own} == {24} and all(row["known"] for row in own)
    assert own[0]["own"] == pytest.approx(1.0, abs=1e-5)
    assert "sasrec" in shop.invoke("sql", "select distinct method from evaluations.knnblend union "
                                   "select 'sasrec'").stdout  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        "create table t as select 1",
        "drop view catalog.items",
        "copy (select 1) to '{}/out.csv'",
        "attach '{}/other.db'",
        "select 1; select 2",
        "set enable_external_access = true",
        "select * from read_csv('{}/secret.csv')",
        "select * from '{}/secret.csv'",
        "select * from read_text('{}/secret.csv')",
        "select * from nothing.here",
    ],
)
def test_sql_writes_nothing_and_reads_no_file(shop: Shop, tmp_path: Path, query: str) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    result = shop.invoke("sql", query.format(tmp_path), "--json")
    assert result.exit_code == 1 and not result.stdout and result.stderr.startswith("Error")
    assert [p.name for p in tmp_path.iterdir()] == ["secret.csv"]


def test_data_sets_are_listed_shown_and_checked(shop: Shop) -> None:
    rows = {r["name"]: r for r in shop.ask("datasets")}
    assert rows["shop"]["tasks"] == ["sequential", "ctr"] and not rows["shop"]["missing"]
    assert rows["shop"]["recorded"] == ["item_summary", "user_preference"]
    report = shop.ask("datasets", "check", "shop")
    assert report["ok"] and report["counts"]["items"] == BOOKS
    assert report["recorded"] == {
        "item_summary": {"answers": BOOKS, "empty": 0},
        "user_preference": {"answers": USERS, "empty": 0},
    }
    facts = shop.ask("datasets", "show", "shop")
    assert facts["users"] == USERS and facts["interactions"] == 360
    assert facts["recorded"] == {"item_summary": "none", "user_preference": "ctr"}


def test_a_faulty_data_set_fails_its_check_with_the_place(own: Shop) -> None:
    own.write("item_summary", [{"item_id": "b01", "words": "x"}])
    report = own.ask("datasets", "check", "shop", code=1)
    assert not report["ok"] and "no column 'text'" in report["errors"][0]


def test_a_catalog_of_ones_own_is_added_and_runs(own: Shop, tmp_path: Path) -> None:
    theirs = {"item_id": "sku", "title": "name", "user_id": "customer"}
    for name in ("items", "interactions"):
        rows = [{theirs.get(k, k): v for k, v in row.items() if k != "rating"}
                for row in own.read(name)]  # fmt: skip
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    files = ["--items", str(tmp_path / "items.csv"),
             "--interactions", str(tmp_path / "interactions.csv")]  # fmt: skip
    names = ["--map", "items.item_id=sku", "--map", "items.title=name"]
    names += ["--map", "interactions.user_id=customer", "--map", "interactions.item_id=sku"]
    made = own.ask("datasets", "add", "mine", *files, *names)
    assert Path(made["file"]).is_file() and made["report"]["ok"]
    assert made["guessed"]["items"]["columns"]["item_id"] == "sku"
    report = own.ask("run", "catalog/splits__sequential", "--dataset", "mine")
    assert report["success"] and report["assets"][0]["rows"] == BOOKS
    states = own.ask("plan", "all", "--dataset", "mine")["assets"]
    assert not [r for r in states if "kar" in r["key"]], "without labels there is no ctr"
    again = own.invoke("datasets", "add", "mine", *files, *names)
    assert again.exit_code == 1 and "'mine' is described in" in again.stderr
    (tmp_path / "interactions.csv").write_text("customer,sku,timestamp\nx,nowhere,5\n")
    broken = own.ask("datasets", "add", "broken", *files, *names, code=1)
    assert broken["file"] == "" and broken["report"]["errors"]


def test_recipes_are_cards_with_proofs_from_records(shop: Shop) -> None:
    rows = {r["slug"]: r for r in shop.ask("recipes")}
    assert set(rows) == set(discover())
    for row in rows.values():
        assert set(row["proofs"]) == {"equations", "materialized", "lift", "served"}
    mine = {m.recipe.slug for m in shop.plan().methods}
    assert all(rows[slug]["proofs"]["materialized"] for slug in mine)
    one = shop.ask("recipes", "show", "LLM2X")
    assert one["slug"] == "llm2x" and "The LLM adds" in one["doc"]
    assert "llm_embeddings/item_text" in one["assets"] and "backbone" in one["settings"]


def test_doctor_finds_this_environment_whole(shop: Shop) -> None:
    document = shop.ask("doctor")
    assert document["ok"]
    checks = {c["check"]: c for c in document["checks"]}
    assert checks["plan"]["ok"] and checks["data set shop"]["ok"] and checks["torch"]["found"]
    assert all(c["mend"] for c in document["checks"] if not c["ok"])


def test_doctor_names_the_fault_of_a_plan(own: Shop) -> None:
    own.choose('[[methods]]\nrecipe = "sasrek"')
    document = own.ask("doctor", code=1)
    (plan,) = [c for c in document["checks"] if c["check"] == "plan"]
    assert not document["ok"] and "no recipe 'sasrek'" in plan["found"] and plan["mend"]


@pytest.mark.parametrize(
    "command",
    ["run all", "plan all", "status", "compare", "sql select~1", "trace catalog/items b01",
     "recommend --user u01"],
)  # fmt: skip
def test_an_unknown_data_set_is_a_failure_with_the_near_name(shop: Shop, command: str) -> None:
    words = [word.replace("~", " ") for word in command.split()]
    result = shop.invoke(*words, "--dataset", "shopp", "--json")
    assert result.exit_code == 1 and not result.stdout
    assert "no data set 'shopp'; did you mean 'shop'" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "lllm2x"], "nothing is called 'lllm2x'"),
        (["trace", VECTORS, "b99"], "has no row 'b99'"),
        (["recommend", "-u", "u01", "-d", "sample"], "no version of 'llmers-sample-sequential'"),
        (["compare", "-d", "sample"], "no evaluation of data set 'sample' is materialized"),
        (["recommend", "-u", "u01", "--task", "rating"], "declares no split 'rating'"),
        (["pin", "move", "catalog/items"], "catalog/items is not a pin"),
        (["run", "catalog/splits__ctr", "--config", "/nowhere.toml"], "no such file"),
    ],
)
def test_failures_are_one_line_without_a_traceback(
    shop: Shop, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    where = ["--home", str(shop.home)]
    if "--config" not in words:
        where += ["--config", str(shop.home / "llmers.toml")]
    monkeypatch.setattr(sys, "argv", ["llmers", *words, *where])
    with same_environment(), pytest.raises(SystemExit) as stopped:
        cli.run_main()
    told = capfd.readouterr()
    assert stopped.value.code == 1 and not told.out
    assert says in told.err and "Traceback" not in told.err
    assert len(told.err.strip().splitlines()) <= 2


def test_stdout_holds_the_document_alone_also_below_python(
    own: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Libraries write to the file descriptors: the step that trains and logs is watched there."""
    where = ["--home", str(own.home), "--config", str(own.home / "llmers.toml")]
    words = ["run", "recommenders/knnblend", "--force", "--json"]
    monkeypatch.setattr(sys, "argv", ["llmers", *words, *where])
    with same_environment(), pytest.raises(SystemExit) as stopped:
        cli.run_main()
    report: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert stopped.value.code == 0 and report["success"]


@pytest.mark.parametrize("command", list(cli._COMMANDS))
def test_every_command_has_help_and_an_example(command: str) -> None:
    result = CliRunner().invoke(cli.main, [command, "--help"])
    assert result.exit_code == 0 and "Usage:" in result.stdout


def test_a_mistyped_command_names_the_near_one() -> None:
    result = CliRunner().invoke(cli.main, ["recomend"])
    assert result.exit_code == 2 and "Did you mean 'recommend'?" in result.stderr
