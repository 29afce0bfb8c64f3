"""What a new user does, in this order: looks at the graph, materializes, changes, follows a row."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hands import (
    LLM2X,
    PICTURE,
    Site,
    await_ready,
    choose,
    configure,
    crowd,
    experiment,
    keep,
    launch,
    launched,
    new_runs,
    open_asset,
    runs,
    start,
    submit,
    until,
)
from shop import BOOKS

pytestmark = pytest.mark.browser
SUMMARY = "item_summaries/item_summary"
EDITED = "A quiet town & a missing key."
GROUPS = ("catalog", "item_summaries", "llm_embeddings", "features", "recommenders",
          "evaluations", "registry")  # fmt: skip


def test_it_is_ready_soon_and_says_where(site: Site) -> None:
    assert set(site.addresses) == {"Dagster", "MLflow", "Lineage"}
    assert site.ready_seconds < 25 * crowd(), site.lines  # of two cores that are free
    for address in site.addresses.values():
        assert address.startswith("http://127.0.0.1:")
    assert (site.shop.home / "dagster_home" / "history").is_dir()


def test_a_second_start_is_refused_in_plain_words(site: Site) -> None:
    second = start(site.shop)
    text, _ = second.communicate(timeout=60 * crowd())
    assert second.returncode == 1
    assert "already runs on" in text and site.dagster in text and "kill" in text
    assert "Traceback" not in text


def test_the_graph_speaks_the_language_of_the_product(page: Any, site: Site) -> None:
    page.goto(f"{site.dagster}/asset-groups")
    for group in GROUPS:
        page.locator(f'text="{group}" >> visible=true').first.wait_for()
    page.goto(f"{site.dagster}/jobs")
    for job in ("refresh_catalog", "enhancements", "champion_race", "report",
                "family__initialization"):  # fmt: skip
        page.locator(f'text="{job}" >> visible=true').first.wait_for()


def test_everything_is_materialized_by_clicking(page: Any, site: Site) -> None:
    before = runs(site)
    page.goto(f"{site.dagster}/asset-groups")
    page.locator('text="item_summaries" >> visible=true').first.wait_for()
    page.get_by_role("button", name="Materialize all").click()
    choose(page, "shop")
    page.get_by_role("button", name="Launch 1 run").click()
    (run,) = new_runs(site, before)
    assert run["status"] == "SUCCESS"
    page.goto(f"{site.dagster}/runs/{run['runId']}")
    page.get_by_text("Success", exact=True).first.wait_for()
    page.get_by_text("partition: shop").first.wait_for()


def test_a_version_shows_rows_pictures_and_where_columns_come_from(page: Any, site: Site) -> None:
    open_asset(page, site, "item_summaries/item_summary", "partitions")
    page.get_by_text("sample rows").first.wait_for()
    page.get_by_text("column_lineage").first.wait_for()
    picture = page.get_by_role("img", name="scores")
    picture.first.wait_for()
    assert picture.first.evaluate("e => e.naturalWidth") > 200
    open_asset(page, site, f"recommenders/{LLM2X}", "partitions")
    page.get_by_role("img", name="epochs").first.wait_for()
    with page.context.expect_page() as opened:
        page.locator(f"a[href^='{site.addresses['MLflow']}/#/runs/']").first.click()
    run = opened.value
    run.get_by_text("best_valid").first.wait_for(timeout=40_000 * crowd())
    run.close()


def test_the_overview_is_readable(page: Any, site: Site) -> None:
    open_asset(page, site, f"recommenders/{LLM2X}", "overview")
    page.get_by_text("SASRec enhanced by LLM2X: the weights that would be served.").wait_for()
    page.get_by_text("llmers/cost: training").first.wait_for()
    page.get_by_text("champion_race").first.wait_for()


def test_a_wrong_type_is_refused_in_the_form(page: Any, site: Site) -> None:
    open_asset(page, site, "recommenders/sasrec__dim16", "overview")
    page.get_by_role("button", name="Materialize").first.click()
    choose(page, "shop")
    configure(page, experiment("lr: quick"))
    page.get_by_text('is not valid for expected type "Float_1e-08_to_10"').first.wait_for()
    assert page.get_by_role("button", name="Save config").is_disabled()


def test_a_value_out_of_range_makes_no_run(page: Any, site: Site) -> None:
    before = runs(site)
    submit(page, site, experiment("epochs: 0"))
    page.get_by_text("0 is out of range: 1 to 100000").first.wait_for()
    assert runs(site).keys() == before.keys()


def test_a_setting_that_the_method_lacks_is_refused_in_the_form(page: Any, site: Site) -> None:
    open_asset(page, site, "recommenders/sasrec__dim16", "overview")
    page.get_by_role("button", name="Materialize").first.click()
    choose(page, "shop")
    configure(page, experiment("backbone:", "  depth: 3"))
    page.get_by_text('unexpected config entry "depth"').first.wait_for()
    assert page.get_by_role("button", name="Save config").is_disabled()


def test_an_experiment_that_changes_nothing_ends_before_it_works(page: Any, site: Site) -> None:
    run = launched(page, site, experiment("backbone:", "  dim: 16"))
    assert run["status"] == "FAILURE"
    page.goto(f"{site.dagster}/runs/{run['runId']}")
    page.get_by_text("the settings of the experiment are those of the asset").first.wait_for()


def test_an_experiment_says_that_it_is_one(page: Any, site: Site) -> None:
    before = site.shop.manifest("recommenders/sasrec__dim16")
    run = launched(page, site, experiment("epochs: 3", "lr: 0.02"))
    assert run["status"] == "SUCCESS"
    assert run["tags"]["llmers/experiment"] == "recommenders/sasrec__dim16: no version"
    assert site.shop.manifest("recommenders/sasrec__dim16") == before
    open_asset(page, site, "recommenders/sasrec__dim16", "events")
    page.get_by_text("Experiment, no version published").first.wait_for()


def test_several_data_sets_are_filled_at_once(page: Any, site: Site) -> None:
    before = runs(site)
    open_asset(page, site, "catalog/items", "overview")
    page.get_by_role("button", name="Materialize").first.click()
    choose(page, "shop", "kiosk")
    page.get_by_role("button", name=re.compile("Launch (2-run )?backfill|Launch 2 runs")).click()
    ended = new_runs(site, before, count=2)
    assert {r["status"] for r in ended} == {"SUCCESS"}
    assert {r["tags"]["dagster/partition"] for r in ended} == {"shop", "kiosk"}
    assert site.shop.context().manifests.current("kiosk", "catalog/items").rows == BOOKS


def test_catalog_text_is_shown_as_it_is(page: Any, site: Site) -> None:
    """Markup in a title is neither drawn nor fetched."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.dagster}/assets/catalog/items?view=partitions&partition=kiosk")
    page.get_by_text("sample rows").first.wait_for()
    page.get_by_text("**bold** <img src").first.wait_for()
    assert asked and PICTURE not in asked


def test_an_edited_catalog_runs_its_chain_by_itself(page: Any, site: Site) -> None:
    before, asked = runs(site), len(site.model.bodies)
    table, champion = "catalog/items", "registry/champion__sequential"
    versions = {name: site.shop.manifest(name).data_version for name in (table, SUMMARY)}
    rows = site.shop.read("items")
    rows[3]["description"] = EDITED
    site.shop.write("items", rows)
    (run,) = new_runs(site, before, by_sensor=True)
    assert run["status"] == "SUCCESS" and run["tags"]["llmers/refresh"] == "shop"
    assert f"{table}: source changed" in run["tags"]["llmers/because"]
    assert len(site.model.bodies) == asked + 1, "the other books were answered before"
    assert EDITED in str(site.model.bodies[-1]["messages"])
    page.goto(f"{site.dagster}/runs/{run['runId']}")
    page.get_by_text("Success", exact=True).first.wait_for()
    assert site.shop.manifest(table).data_version != versions[table]
    assert site.shop.manifest(champion).name == champion
    open_asset(page, site, SUMMARY, "partitions")
    page.get_by_text(re.compile(r"historical events \([2-9]")).first.wait_for()


def test_a_book_is_followed_to_its_prompt(page: Any, site: Site) -> None:
    open_asset(page, site, SUMMARY, "partitions")
    link = page.locator(f"a[href='{site.addresses['Lineage']}/d/shop/a/{SUMMARY}']").first
    with page.context.expect_page() as opened:
        link.click()
    pages = opened.value
    pages.get_by_role("heading", name=SUMMARY).wait_for()
    pages.locator("input[name=q]").fill("b04")
    pages.get_by_role("button", name="Find").click()
    pages.get_by_role("link", name="b04").click()
    pages.get_by_role("heading", name="The Crime Book 4").first.wait_for()
    said = pages.locator("main").inner_text()
    for wanted in (EDITED, "shop/model", "catalog/items", "follows people who live by crime"):
        assert wanted in said, wanted
    assert pages.locator("pre", has_text=f"description: {EDITED}").count() == 1, "as it was asked"
    keep(pages, "row")
    pages.close()


def plotted(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Say whether a training that is under way has shown its epochs."""
    kind = dg.DagsterEventType.ASSET_OBSERVATION
    found = [e.dagster_event for e in instance.all_logs(run_id, of_type=kind)]
    return any("plot of epochs" in e.asset_observation_data.asset_observation.metadata
               for e in found if e is not None)  # fmt: skip


def test_a_killed_run_frees_the_pool(site: Site) -> None:
    """The slot of a run whose process was killed is free again within a minute."""
    before = runs(site)
    slow = {"experiment": {"epochs": 100_000, "patience": 100_000, "min_epochs": 100_000}}
    launch(site, "recommenders/sasrec__dim16", slow, max_retries="0")
    with dg.DagsterInstance.from_config(str(site.shop.home / "dagster_home")) as instance:
        storage = instance.event_log_storage
        until(lambda: storage.get_concurrency_info("gpu").active_slot_count == 1, 60)
        (run_id,) = (k for k in runs(site) if k not in before)
        until(lambda: plotted(instance, run_id), 90)
        pid = next(
            int(m[1]) for e in instance.all_logs(run_id)
            if (m := re.search(r"\(pid: (\d+)\)", e.message or ""))
        )  # fmt: skip
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: storage.get_concurrency_info("gpu").active_slot_count == 0, 90)
        print(f"slot free after {time.monotonic() - began:.0f} s")
    before = runs(site)
    launch(site, "recommenders/sasrec__dim16", {"experiment": {"epochs": 2}})
    assert new_runs(site, before)[0]["status"] == "SUCCESS"


def test_it_starts_again_on_the_same_home_and_stops_on_term(site: Site, tmp_path: Path) -> None:
    site.process.send_signal(signal.SIGINT)
    assert site.process.wait(timeout=40 * crowd()) == 0
    again = start(site.shop)
    try:
        addresses, _, _ = await_ready(again)
        site.addresses.update(addresses)
        assert runs(site), "what ran before is still there"
        again.send_signal(signal.SIGTERM)
        assert again.wait(timeout=40 * crowd()) == 0
    finally:
        if again.poll() is None:
            again.kill()
