"""The lineage pages and ``llmers diff`` on the shop, as a browser asks for them."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shop import BOOKS, TINY, Shop, same_environment, wrong_lineage
from starlette.testclient import TestClient

from llmers_pipelines.config import Method
from llmers_pipelines.orchestrate.lineage_url import asset_path, diff_path, row_path
from llmers_pipelines.orchestrate.metadata import metadata_of
from llmers_pipelines.orchestrate.publish import materialize
from llmers_pipelines.plan import Table, Train, Tune, walk
from llmers_pipelines.recipe import discover
from llmers_pipelines.web.app import HERE, create_app
from llmers_pipelines.web.site import Site

SUMMARY, VECTORS = "item_summaries/item_summary", "llm_embeddings/item_summary"
SPLITS = "catalog/splits__sequential"
HERE_ALONE = "http://127.0.0.1:3001"
SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
ODD = ("a/b c", "50%&=?#", "é ü 漢", SCRIPT, IMAGE, "../../secret")


def client(shop: Shop, **changes: Any) -> TestClient:
    settings = shop.settings(**changes)
    return TestClient(create_app(Site(settings, shop.plan(**changes))), base_url=HERE_ALONE)


def page(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
    return answer.text


def links(text: str) -> set[str]:
    """Return the addresses on a page, as a browser would follow them."""
    return {html.unescape(found) for found in re.findall(r'href="([^"#][^"]*)"', text)}


def test_every_address_that_a_page_links_to_answers(shop: Shop) -> None:
    browser = client(shop)
    waiting, seen = ["/"], set()
    kinds: dict[str, int] = {}
    while waiting:
        path = waiting.pop()
        kind = re.sub(r"(\?.*|/d/shop/a/[a-z_]+/[a-z0-9_]+)", "", path)
        if path in seen or kinds.get(kind, 0) >= 60:  # enough of each kind of page
            continue
        seen.add(path)
        kinds[kind] = kinds.get(kind, 0) + 1
        waiting += sorted(links(page(browser, path)) - seen)
    assert {"/", "/d/shop", "/row"} <= set(kinds)
    assert sum(kinds.values()) > 60


def test_a_row_page_shows_the_whole_way(shop: Shop) -> None:
    text = page(client(shop), row_path("shop", VECTORS, "b03"))
    at = [text.index(word) for word in ("table: ", "Prompt", "Model and settings", "Raw answer",
                                        "Value", "Vector", "Models that use it")]  # fmt: skip
    assert at == sorted(at)
    words = ("The Sea Book 3", "item_summary-r", "item_summary.csv@", "nearest of 23 others",
             "recommenders/llm2x__sasrec", "test ndcg@10", "llmers-shop-sequential")  # fmt: skip
    assert [word for word in words if word not in text] == []
    assert shop.manifest("catalog/items").data_version in text
    kar = page(client(shop), row_path("shop", "user_profiles/user_preference", "u05"))
    assert "labels_seen" in kar and "what is recommended (ctr)" in kar


def test_every_asset_with_rows_shows_the_row_that_was_asked_for(shop: Shop) -> None:
    for entity, row_id in (("item", "b03"), ("user", "u05")):
        for manifest in (shop.manifest(n.name) for n in shop.plan().nodes):
            words = ("trace", manifest.name, row_id, "--entity", entity, "--json")
            result = shop.invoke(*words)
            if result.exit_code:
                assert re.search("has no row|holds rows of", str(result.exception)), manifest.name
                continue
            last = json.loads(result.stdout)["steps"][-1]
            assert last["asset"] == manifest.name and last["content"], manifest.name


def test_the_champion_is_marked_and_explains_itself(shop: Shop) -> None:
    browser = client(shop)
    champion = shop.manifest("registry/champion__sequential").info["champion"]
    verdicts = shop.manifest("registry/champion__sequential").info["verdicts"]
    served = next(v["asset"] for v in verdicts if v["version"] == champion)
    row = page(browser, row_path("shop", "catalog/items", "b03"))
    section = next(s for s in row.split('<section class="model">')[1:] if served in s)
    assert '<span class="mark good">champion</span>' in section
    text = page(browser, "/d/shop/recommend?user=u05&task=sequential&k=3")
    answer = shop.ask("recommend", "--user", "u05", "--task", "sequential", "-k", "3", "--explain")
    assert served in text and text.count('<li id="item-') == len(answer["items"]) == 3
    for item in answer["items"]:
        assert row_path("shop", "catalog/items", item["item_id"]) in links(text)
        assert f"score {item['score']:.4f}" in text
        for near in item["why"]["nearest"]:
            assert f"({near['similarity']:.3f})" in text
    same = shop.ask("recommend", "--user", "u05", "--task", "sequential", "-k", "3", "--evidence")
    assert [i["item"]["id"] for i in same["items"]] == [i["item_id"] for i in answer["items"]]
    for item in same["items"]:
        for read in item["read"]:
            assert read["asset"] in text and read["id"] == item["item"]["id"]
    words = shop.invoke("recommend", "--user", "u05", "--evidence").stdout
    assert "made from catalog/items @" in words and served in words
    unknown = page(browser, "/d/shop/recommend?user=nobody&task=sequential")
    assert "fallback: popularity" in unknown
    assert "other" in page(browser, "/d/shop/recommend?user=u05&task=other", 404)


def test_a_registry_that_is_away_hides_aliases_and_not_the_page(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(name: str) -> dict[str, str]:
        raise ConnectionError("no registry")

    monkeypatch.setattr("llmers_pipelines.web.site.registry_aliases", lambda settings: away)
    text = page(client(shop), row_path("shop", "catalog/items", "b03"))
    assert "llmers-shop-sequential version" in text and ">champion</span>" not in text


def test_a_registry_that_comes_later_is_found(own: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = own.settings()
    site = Site(settings, own.plan())
    there = settings.mlflow_folder
    there.rename(there.with_name("later"))
    assert site.aliases("llmers-shop-sequential") == {}
    there.with_name("later").rename(there)
    monkeypatch.setattr("llmers_pipelines.web.site.SECONDS", 0.0)
    assert "champion" in site.aliases("llmers-shop-sequential")


def test_rows_are_found_by_id_and_title(shop: Shop) -> None:
    browser = client(shop)
    text = page(browser, asset_path("shop", VECTORS, q="sea book 1"))
    assert "The Sea Book 12" in text and "Space" not in text
    assert f"{BOOKS} rows" in page(browser, asset_path("shop", VECTORS))
    first = page(browser, asset_path("shop", "catalog/interactions"))
    last = page(browser, asset_path("shop", "catalog/interactions", page="9999"))
    assert "page 1 of 8" in first and "page 8 of 8" in last
    assert "0 rows that hold nothing" in page(browser, asset_path("shop", VECTORS, q="nothing"))
    items = page(browser, asset_path("shop", SPLITS, entity="item"))
    assert "b01" in items and "u01" not in items


def test_wrong_addresses_say_what_there_is(shop: Shop) -> None:
    browser = client(shop)
    assert "stored: shop" in page(browser, "/d/other", 404)
    assert "stored: " in page(browser, asset_path("shop", "catalog/none"), 404)
    assert "has no row" in page(browser, row_path("shop", VECTORS, "b99"), 404)
    assert "?id=" in page(browser, f"{asset_path('shop', VECTORS)}/row", 400)
    assert "whole number" in page(browser, asset_path("shop", VECTORS, page="x"), 400)
    for version in ("../../../secret", "%2e%2e/x", "0"):
        page(browser, asset_path("shop", VECTORS, version=version), 404)
    page(browser, "/d/..%2f..%2fetc", 404)
    page(browser, "/d/shop/a/..%2f../x", 404)
    assert "no other version" in page(browser, f"{asset_path('shop', VECTORS)}/diff", 404)


def test_only_this_machine_reads_and_nobody_writes(shop: Shop) -> None:
    browser = client(shop)
    assert browser.post("/").status_code == 405
    assert browser.delete("/d/shop").status_code == 405
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert browser.get("/", headers={"Host": host}).status_code == 400, host
    assert browser.get("/", headers={"Host": "localhost:3001"}).status_code == 200
    for path in ("/", "/d/other", "/static/lineage.css"):
        policy = browser.get(path).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "script-src" not in policy
    text = page(browser, "/d/shop")
    assert "<script" not in text and " style=" not in text and "http" not in text
    for file in (HERE / "templates").glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape|Markup", file.read_text()), file.name


def test_pages_load_no_model_library_until_a_recommendation_is_asked_for(shop: Shop) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COLD, str(shop.home)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True"]


def test_the_first_recommendation_page_waits_for_no_model_library(shop: Shop) -> None:
    """The server opens the served models in the background; one without a champion opens none."""
    settings = shop.settings()
    site = Site(settings, shop.plan())
    site.preload()
    assert set(site._scorers) == {("llmers-shop-sequential", "1"), ("llmers-shop-ctr", "1")}
    opened = dict(site._scorers)
    browser = TestClient(create_app(site), base_url=HERE_ALONE)
    text = page(browser, "/d/shop/recommend?user=u05&task=sequential")
    assert "What is recommended to u05" in text
    assert site._scorers == opened, "the page opens nothing"


_COLD = """
import sys
from pathlib import Path
from llmers_pipelines.config import load_settings
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.web.app import create_app
from llmers_pipelines.web.site import Site
from starlette.testclient import TestClient
home = Path(sys.argv[1])
settings = load_settings(home=home, config=home / "llmers.toml")
settings.apply_environment()
site = Site(settings, build_plan(settings))
site.warm()
client = TestClient(create_app(site), base_url="http://127.0.0.1")
for path in ("/", "/d/shop", "/d/shop/a/llm_embeddings/item_summary",
             "/d/shop/a/llm_embeddings/item_summary/row?id=b03"):
    assert client.get(path).status_code == 200, path
print("torch" in sys.modules)
assert client.get("/d/shop/recommend?user=u05&task=sequential").status_code == 200
print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop with texts alone, whose ids and titles try to leave their place on the page."""
    with same_environment():
        shop = Shop.open(tmp_path_factory.mktemp("odd"))
        names = dict(zip((f"b{n:02}" for n in range(1, len(ODD) + 1)), ODD, strict=True))
        for table in ("items", "interactions", "item_summary"):
            rows = shop.read(table)
            for row in rows:
                row["item_id"] = names.get(row["item_id"], row["item_id"])
                if row["item_id"] in ODD and table == "items":
                    row |= {"title": f"{SCRIPT} {IMAGE} {row['title']}", "kind": IMAGE}
                if row["item_id"] in ODD and table == "item_summary":
                    row["text"] = row["text"].replace("calm", f"calm {SCRIPT}")
            shop.write(table, rows)
        shop.work(VECTORS, SPLITS)
        yield shop


@pytest.mark.parametrize("row_id", ODD)
def test_catalog_text_never_becomes_markup(odd: Shop, row_id: str) -> None:
    browser = client(odd)
    found = page(browser, asset_path("shop", VECTORS, q=row_id))
    path = row_path("shop", VECTORS, row_id, entity="item")
    assert path in links(found)
    for address in (path, row_path("shop", SUMMARY, row_id), row_path("shop", SPLITS, row_id),
                    asset_path("shop", "catalog/items", q=row_id),
                    asset_path("shop", SUMMARY, q=row_id)):  # fmt: skip
        text = page(browser, address)
        assert "<script" not in text and "<img" not in text and "onerror=alert(1)>" not in text
        assert html.escape(row_id, quote=False).replace('"', "&#34;") in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &#34;&gt;&lt;img src=x onerror" in text
    page(browser, row_path("shop", VECTORS, SCRIPT + "none"), 404)


def test_markup_in_parameters_is_escaped(odd: Shop) -> None:
    browser = client(odd)
    for path, status in (
        (asset_path("shop", VECTORS, q=IMAGE), 200),
        (asset_path("shop", VECTORS, version=SCRIPT), 404),
        (row_path("shop", VECTORS, "b20", entity=SCRIPT), 404),
        (diff_path("shop", VECTORS, SCRIPT, IMAGE), 404),
        (f"/d/{html.escape('<script>')}", 404),
    ):
        text = page(browser, path, status)
        assert "<script" not in text and "<img" not in text, path


def test_two_versions_are_compared(own: Shop) -> None:
    rows = own.read("items")
    rows[2]["description"] = "A story of the sea, told anew."
    rows[3]["title"] = SCRIPT
    own.write("items", [*rows[:-1], {**rows[0], "item_id": "b99", "title": "A New Book"}])
    own.work("llm_embeddings/item_text")
    found = own.ask("diff", "catalog/items")
    old, new = (own.context().manifests.versions("shop", "catalog/items")[n] for n in (0, 1))
    assert (found["before"], found["after"]) == (old.data_version, new.data_version)
    told = found["rows"]
    assert (told["added"], told["removed"], told["changed"]) == (1, 1, 2)
    assert told["by_column"] == {"title": 1, "description": 1}
    assert [r["item_id"] for r in told["added_examples"]] == ["b99"]
    change = next(c for c in told["changed_examples"] if c["key"] == {"item_id": "b03"})
    assert change["columns"]["description"][1] == "A story of the sea, told anew."
    drift = own.ask("diff", "llm_embeddings/item_text", "--from", "previous", "--to", "current")
    drift = drift["vectors"]
    assert (drift["added"], drift["removed"], drift["compared"]) == (1, 1, BOOKS - 1)
    assert {m["id"] for m in drift["moved"]} == {"b03", "b04"} and drift["texts_changed"] == 2
    assert drift["mean_same_text"] == 1 and drift["least"] < 1
    assert own.ask("diff", "catalog/items", "--from", new.data_version[:9])["same"]
    text = own.invoke("diff", "catalog/items").stdout
    assert "1 added, 1 removed, 2 changed" in text and "description: 1 rows changed" in text
    refused = own.invoke("diff", "catalog/items", "--from", "nope")
    assert refused.exception is not None and old.data_version in str(refused.exception)
    browser = client(own)
    text = page(browser, diff_path("shop", "catalog/items", "previous", "current"))
    assert "A New Book" in text and "<script" not in text and "told anew" in text
    text = page(browser, f"{asset_path('shop', 'llm_embeddings/item_text')}/diff")
    assert "Moved most" in text and row_path("shop", "llm_embeddings/item_text", "b03") in text
    versions = page(browser, asset_path("shop", "catalog/items"))
    assert diff_path("shop", "catalog/items", old.data_version, new.data_version) in links(versions)


def test_an_old_version_is_traced_through_what_it_was_made_from(own: Shop) -> None:
    before = own.manifest(VECTORS)
    rows = own.read("items")
    rows[2]["title"] = "Another Title"
    own.write("items", rows)
    own.work(VECTORS)
    old = own.ask("trace", VECTORS, "b03", "--version", before.data_version)
    assert [s["current"] for s in old["steps"]] == [False, False, False]
    assert old["steps"][0]["content"]["values"]["title"] == "The Sea Book 3"
    new = own.ask("trace", VECTORS, "b03")
    assert new["steps"][0]["content"]["values"]["title"] == "Another Title"
    answer = new["steps"][1]["content"]
    assert answer["status"] == "no_answer" and "has changed" in answer["reason"]
    assert "older version" in page(
        client(own), row_path("shop", VECTORS, "b03", version=before.data_version)
    )


def test_a_link_to_the_pages_is_no_part_of_a_version(own: Shop) -> None:
    node = own.plan().node(VECTORS)
    urls = []
    for address in ("", "https://lineage.example/shop"):
        settings = own.settings(lineage_url=address)
        done = materialize(node, own.context(lineage_url=address))
        assert done.status == "reused"
        urls.append(metadata_of(node, done, settings)["lineage"].value)
    path = asset_path("shop", VECTORS)
    assert urls == [f"http://127.0.0.1:3001{path}", f"https://lineage.example/shop{path}"]
    page(client(own), path)


def test_every_column_that_lineage_names_exists(shop: Shop) -> None:
    assert wrong_lineage(shop) == []
    made_of_columns = [n for n in shop.plan().nodes if n.verb in ("generate", "embed", "derive")]
    assert all(shop.manifest(node.name).lineage for node in made_of_columns)
    split = shop.manifest(SPLITS)
    assert split.lineage["user"] == (("catalog/interactions", "user_id"),)
    broken = {"vector": ((SUMMARY, "text"), (SUMMARY, "txt"), ("catalog/users", "user_id"))}
    shown = dataclasses.replace(shop.manifest(VECTORS), lineage={**broken, "no": ()})
    assert len(wrong_lineage(shop, {VECTORS: shown})) == 3, "the check itself can fail"


def test_lineage_of_every_recipe_names_columns_that_exist(odd: Shop) -> None:
    """Whatever is made of the catalog without a training: the rest has no columns of its own.

    The shop has no log for some tasks; what needs one is left out.
    """
    found = [r for r in discover().values() if not r.is_baseline]
    tables = (("items", ""), ("users", ""), ("interactions", ""))
    there = (*tables, ("splits", "sequential"), ("splits", "ctr"))
    every = {"methods": tuple(Method(r.slug, backbone_settings={"dim": 8}) for r in found)}
    nodes = [n for n in odd.plan(**every).nodes
             if n.verb in ("table", "generate", "embed", "derive")
             and not any(isinstance(m, (Train, Tune))
                         or (isinstance(m, Table) and (m.table, m.task) not in there)
                         for m in walk([n]))]  # fmt: skip
    assert len({n.name for n in nodes} - {n.name for n in odd.plan().nodes}) >= 3
    ctx = odd.context(**every)
    made = [materialize(node, ctx).manifest for node in nodes]
    assert wrong_lineage(odd, **every) == []
    assert len(found) > 5 and sum(len(m.lineage) for m in made) > 20


def test_a_changed_choice_is_followed_and_a_broken_one_is_not(own: Shop) -> None:
    site = Site(own.settings(), own.plan(), lambda: (own.settings(), own.plan()))
    browser = TestClient(create_app(site), base_url=HERE_ALONE)
    assert "not loaded by llmers.toml" not in page(browser, "/d/shop")
    config = own.home / "llmers.toml"
    whole = config.read_text()
    for text, lacking in ((whole.replace('recipe = "kar"', 'recipe = "popularity"').replace(
            f'backbone = "deepfm"\nbackbone_settings = {TINY}\n', ""), True),
            ("nothing", True), (whole, False)):  # fmt: skip
        config.write_text(text)
        os.utime(config, ns=(0, time.time_ns()))
        assert ("not loaded by llmers.toml" in page(browser, "/d/shop")) is lacking, text


def test_masked_answers_stay_masked(own: Shop, tmp_path: Path) -> None:
    own.choose('[safety.pii]\naction = "mask"')
    rows = own.read("item_summary")
    rows[2]["text"] = rows[2]["text"].replace("calm", "calm, write to someone@example.com")
    own.write("item_summary", rows)
    own.work(SUMMARY)
    for told in (str(own.ask("trace", SUMMARY, "b03")),
                 page(client(own), row_path("shop", SUMMARY, "b03"))):  # fmt: skip
        assert "masked parts of this answer" in told and "someone@example.com" not in told
