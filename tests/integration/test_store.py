"""`llmers store` on the shop: numbers, faults with their cost, carrying answers, retention."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from shop import BOOKS, USERS, Shop, made

from llmers_pipelines.store.manifests import ManifestStore
from llmers_pipelines.store.responses import ResponseStore

SUMMARY, VECTORS = "item_summaries/item_summary", "llm_embeddings/item_summary"
PROFILE = "user_profiles/user_preference"


def flip(path: Path, at: int | None = None, bit: int = 3) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2 if at is None else at] ^= 1 << bit
    path.write_bytes(body)


def age(home: Path, days: float) -> None:
    """Make every file and manifest below ``home`` so many days older."""
    then = time.time() - days * 86400
    for path in home.rglob("*"):
        os.utime(path, (then, then))


def test_stats_count_answers_vectors_and_versions(shop: Shop) -> None:
    document = shop.ask("store", "stats")
    answers = document["answers"]
    assert answers["rows"] == answers["keys"] == BOOKS + USERS
    groups = {g["task"]: g for g in answers["groups"]}
    assert groups["item_summaries"]["answers"] == BOOKS
    assert groups["item_summaries"]["prompt_revision"].startswith("item_summary-r")
    assert sum(g["bytes"] for g in answers["groups"]) == pytest.approx(answers["bytes"], abs=2)
    versions = {v["asset"]: v for v in document["versions"] if v["dataset"] == "shop"}
    assert set(versions) == {n.name for n in shop.plan().nodes}
    assert all(v["versions"] == 1 and v["bytes"] > 0 for v in versions.values())
    assert document["vectors"][0]["vectors"] > 0
    assert document["formats"]["answers"].startswith("2 (")
    assert document["formats"]["manifests"] == f"2 ({len(versions)})"
    told = shop.invoke("store", "stats").stdout
    assert "no price for item_summary.csv" in told and SUMMARY in told


def test_prices_of_the_toml_tell_what_the_answers_cost(own: Shop) -> None:
    own.choose('[prices."tiny/model"]\ninput = 2.0\noutput = 10.0\n')
    with ResponseStore(own.home / "data/llmers/responses").writer() as writer:
        writer.put(text="x", finish_reason="stop", request="r", identity="i", model="tiny/model@ab",
                   tokens_in=500_000, tokens_out=100_000, task="t")  # fmt: skip
    group = next(g for g in own.ask("store", "stats")["answers"]["groups"] if g["task"] == "t")
    assert group["money"]["amount"] == {"USD": pytest.approx(2.0)}


def test_everything_is_whole_and_listed(shop: Shop) -> None:
    report = shop.ask("store", "verify")
    assert report["ok"] and not report["faults"] and not report["no_checksum"]
    for kind in ("warehouse versions", "cells", "vector segments", "answer segments", "models",
                 "vector spaces", "SQLite files"):  # fmt: skip
        assert report["checked"][kind] > 0, kind
    assert "everything is as it was written" in shop.invoke("store", "verify").stdout


def test_a_flipped_bit_anywhere_in_the_warehouse_is_found(own: Shop) -> None:
    files = [p for p in (own.home / "data/llmers/warehouse").rglob("*") if p.is_file()]
    for path in files:
        flip(path)
    report = own.ask("store", "verify", code=1)
    found = {f["problem"].partition(": ")[0] for f in report["faults"]}
    assert found == {str(p) for p in files}
    assert any(p.name == "quarantine.parquet" for p in files)
    weights = [f for f in report["faults"] if "weights.safetensors" in f["problem"]]
    assert weights and all(any("evaluations/" in a for a in f["assets"]) for f in weights)


def test_a_damaged_table_is_moved_away_and_made_again_from_the_answers(own: Shop) -> None:
    folder = own.home / "data/llmers/warehouse/shop" / SUMMARY
    before = own.manifest(SUMMARY)
    flip(folder / before.data_version / "rows.parquet")
    report = own.ask("store", "verify", "--quarantine", code=1)
    (fault,) = report["faults"]
    assert f"shop: {VECTORS}" in fault["assets"] and Path(fault["aside"]).is_dir()
    assert json.loads((Path(fault["aside"]) / "reason.json").read_text())["problems"]
    assert report["regeneration"]["warehouse"][f"shop: {SUMMARY}"]["llm_calls"] == 0
    assert made(own.work()) == {SUMMARY}
    again = own.manifest(SUMMARY)
    assert again.data_version == before.data_version and again.counts["llm_calls"] == 0
    assert own.ask("store", "verify")["ok"]


def test_a_damaged_answer_names_its_cost_and_what_hangs_on_it(own: Shop) -> None:
    store = ResponseStore(own.home / "data/llmers/responses")
    own.choose('[prices."big"]\ninput = 1.0\noutput = 4.0\n')
    key = next(iter(shop_keys(own)))
    (row,) = store.records([key])
    for path in store.files():
        path.unlink()
    with store.writer() as writer:
        writer.put(text="a fine answer that is long enough to be hit by the flip " * 9,
                   finish_reason="stop", request=row["request"], identity=row["identity"],
                   model="big", tokens_in=1_000_000, tokens_out=500_000)  # fmt: skip
    (path,) = store.files()
    body = path.read_bytes()
    at = body.find(b"long enough")
    flip(path, at if at > 0 else 200)
    report = own.ask("store", "verify", code=1)
    cost = report["regeneration"]["answers"]
    assert cost["calls"] == 1 and cost["money"]["amount"] == {"USD": pytest.approx(3.0)}
    assert cost["tokens_in"] == 1_000_000 and cost["tokens_out"] == 500_000
    assert f"shop: {SUMMARY}" in cost["assets"] and f"shop: {VECTORS}" in cost["assets"]
    assert f"shop: {PROFILE}" not in cost["assets"]
    told = own.invoke("store", "verify", "--quarantine")
    assert told.exit_code == 1 and "1 calls, 1,000,000 tokens read" in told.stdout
    assert own.ask("store", "verify")["ok"]


def shop_keys(shop: Shop) -> list[str]:
    rows = shop.context().load(shop.plan().node(SUMMARY))
    return rows["request_key"].to_pylist()


def test_a_damaged_manifest_is_named_and_its_newest_version_restored(own: Shop) -> None:
    folder = own.home / "data/llmers/manifests/shop" / SUMMARY
    whole = own.manifest(SUMMARY)
    flip(folder / "current.json")
    result = own.invoke("status")
    assert result.exit_code == 1 and "current.json: damaged" in str(result.exception)
    report = own.ask("store", "verify", "--quarantine", code=1)
    assert report["faults"][0]["store"] == "manifests"
    assert own.manifest(SUMMARY) == whole and own.ask("store", "verify")["ok"]


def test_a_manifest_of_an_older_or_newer_form(own: Shop) -> None:
    path = own.home / "data/llmers/manifests/shop" / SUMMARY / "current.json"
    body = json.loads(path.read_text())
    old = {k: v for k, v in body.items() if k not in ("format", "checksum", "files")}
    for name in ("current.json", f"{body['data_version']}.json"):
        path.with_name(name).write_text(json.dumps(old))
    assert own.work() and not made(own.work()), "an older manifest stays in force"
    report = own.ask("store", "verify")
    assert report["ok"] and report["no_checksum"] == {"warehouse versions": 1}
    from llmers_pipelines.store.formats import checksum

    new = {**body, "format": 9}
    payload = {k: v for k, v in new.items() if k not in ("format", "checksum")}
    path.write_text(json.dumps({**new, "checksum": checksum(payload, 9)}))
    result = own.invoke("status")
    assert result.exit_code == 1 and "a manifest of format 9" in str(result.exception)


def test_answers_are_carried_to_another_home(own: Shop, tmp_path: Path) -> None:
    header = own.ask("store", "export", str(tmp_path / "out.tar"), "--dataset", "shop",
                     "--task", "item_summaries")  # fmt: skip
    assert header["rows"] == BOOKS and header["format"] == 1
    other = Shop(tmp_path / "other")
    (other.home / "data").mkdir(parents=True)
    (other.home / "llmers.toml").write_text((own.home / "llmers.toml").read_text())
    first = other.ask("store", "import", str(tmp_path / "out.tar"))
    again = other.ask("store", "import", str(tmp_path / "out.tar"))
    assert (first["added"], first["present"]) == (BOOKS, 0)
    assert (again["added"], again["present"]) == (0, BOOKS)
    assert other.ask("store", "stats")["answers"]["rows"] == BOOKS


def test_prune_shows_first_and_keeps_what_is_reachable(own: Shop) -> None:
    old = {n.name: own.manifest(n.name).data_version for n in own.plan().nodes}
    rows = own.read("items")
    rows[0]["description"] = "A story of something else."
    own.write("items", rows)
    changed = made(own.work())
    gone = next(n for n in sorted(changed) if n.startswith("evaluations/kar")
                and own.manifest(n).data_version != old[n])  # fmt: skip
    kar = next(n for n in sorted(changed) if n.startswith("recommenders/kar__deepfm"))
    strays = ("warehouse/shop/catalog/items/.tmp-dead", "cells/shop/.tmp-dead",
              "checkpoints/shop/never_ended")  # fmt: skip
    for stray in strays:
        (own.home / "data/llmers" / stray).mkdir(parents=True)
    assert not own.ask("store", "prune")["items"], "everything is young"
    age(own.home / "data", 40)
    ask = ("store", "prune", "--keep", "1", "--older-than", "0")
    whole = own.ask(*ask)
    names = {i["name"] for i in whole["items"]}
    assert not whole["removed"] and whole["bytes"] > 0 and set(strays) <= names
    assert f"shop/{gone}@{old[gone]}" in names
    # Model versions stay with all that they were made from, unless an alias is asked for.
    held = {f"shop/{n}@{old[n]}" for n in (kar, "catalog/items", "recommenders/knnblend")}
    assert not held & names
    aliased = {i["name"] for i in own.ask(*ask, "--aliased")["items"]}
    assert names < aliased and f"shop/{kar}@{old[kar]}" in aliased
    assert f"shop/recommenders/knnblend@{old['recommenders/knnblend']}" not in aliased
    done = own.ask(*ask, "--aliased", "--yes")
    assert done["removed"] and {i["name"] for i in done["items"]} == aliased
    store = ManifestStore(own.home / "data/llmers")
    assert store.version("shop", kar, old[kar]) is None
    assert not list((own.home / "data/llmers").rglob(".tmp-dead"))
    assert not own.ask(*ask, "--aliased")["items"]
    assert own.ask("store", "verify")["ok"] and not made(own.work())
    assert own.ask("store", "stats")["answers"]["rows"] >= BOOKS + USERS, "answers stay"
    assert own.ask("recommend", "--user", "u05")["items"]


def test_prune_of_answers_is_asked_for_and_says_what_they_cost(own: Shop) -> None:
    folder = own.home / "data/llmers/responses"
    with ResponseStore(folder).writer() as writer:
        writer.put(text="x", finish_reason="stop", request="r", identity="i", model="m",
                   tokens_in=70, tokens_out=30)  # fmt: skip
    quiet = own.ask("store", "prune", "--keep", "1", "--older-than", "0", "--yes")
    assert not quiet["answers"] and own.ask("store", "stats")["answers"]["rows"] == 65
    told = own.ask("store", "prune", "--older-than", "0", "--answers", "--yes")
    assert told["answers"]["answers"] == 1 and told["answers"]["tokens_in"] == 70
    assert told["answers"]["paid"]["without_price"] == ["m"]
    assert own.ask("store", "stats")["answers"]["rows"] == BOOKS + USERS
    assert own.ask("store", "verify")["ok"] and not made(own.work())
