"""What the refresh sensor notices, asks for, waits for and leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import create_run_for_test
from shop import SMALL, Shop, made, same_environment
from ticking import Ticking

from llmers_pipelines.data import file_hash
from llmers_pipelines.orchestrate import refresh
from llmers_pipelines.orchestrate.assemble import build_definitions
from llmers_pipelines.orchestrate.attempts import Failures
from llmers_pipelines.orchestrate.sensor import STATUS, status_metadata

SASREC = "recommenders/sasrec__dim8__inner16__max_len10__fit__epochs2__min_epochs1"
SUMMARY = "item_summaries/item_summary"


@pytest.fixture
def own_ticking(own: Shop) -> Iterator[Ticking]:
    ticking = Ticking(own)
    yield ticking
    ticking.instance.dispose()


def edited(shop: Shop, row: int = 3, **values: str) -> None:
    rows = shop.read("items")
    rows[row].update(values)
    shop.write("items", rows)


def test_nothing_moved_costs_no_look_into_dagster(own_ticking: Ticking) -> None:
    first = own_ticking.tick()
    assert first.requests == [] and first.rows == [], first.notes
    opened = own_ticking.opened
    assert own_ticking.tick().rows is None and own_ticking.opened == opened


def test_an_edit_is_one_run_of_what_follows_from_it(own_ticking: Ticking) -> None:
    own_ticking.tick()
    edited(own_ticking.shop, title="A Sea Book with Another Title")
    busy = own_ticking.tick(settled=False)
    assert busy.requests == [] and "items.csv is written" in busy.notes[0]
    done = own_ticking.tick()
    (request,) = done.requests
    assert request.partition_key == "shop" and request.tags["llmers/refresh"] == "shop"
    assert "catalog/items: source changed: files" in request.tags["llmers/because"]
    assert own_ticking.rows["registry/champion__ctr"].because.startswith("behind registry/")
    waiting = create_run_for_test(
        own_ticking.instance, status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/run_key": request.run_key},
    )  # fmt: skip
    assert own_ticking.tick().notes == ["shop: a refresh run is under way"]
    own_ticking.instance.delete_run(waiting.run_id)
    own_ticking.memory.open.clear()
    did = own_ticking.run(request)
    assert {"catalog/items", "llm_embeddings/item_text", "registry/knnblend"} <= made(did)
    assert did[SASREC] == "reused", "titles are no part of its log"
    assert own_ticking.tick().requests == [] and own_ticking.rows == {}


def test_what_is_written_during_a_comparison_is_seen_by_the_next(
    own_ticking: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = refresh.compare

    def slow(*given: Any) -> Any:
        found = real(*given)
        monkeypatch.setattr(refresh, "compare", real)
        edited(own_ticking.shop, title="Written while the first comparison ran")
        return found

    monkeypatch.setattr(refresh, "compare", slow)
    assert own_ticking.tick().requests == []
    assert len(own_ticking.tick().requests) == 1


def test_a_file_that_did_not_move_costs_a_stat_and_no_hash(
    own_ticking: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_ticking.tick()
    hashed: list[str] = []

    def content(path: str, *version: int) -> str:
        hashed.append(path.rpartition("/")[2])
        return f"{path} {version}"

    monkeypatch.setattr(file_hash, "_content", content)
    own_ticking.load()  # as after a start: nothing is remembered but what is on disk
    edited(own_ticking.shop, title="A Sea Book with Another Title")
    assert len(own_ticking.tick().requests) == 1
    assert hashed.count("items.csv") == 1 and "interactions.csv" not in hashed


def test_the_same_file_written_again_runs_nothing(own_ticking: Ticking) -> None:
    own_ticking.tick()
    own_ticking.shop.write("items", own_ticking.shop.read("items"))
    assert own_ticking.refresh() == {}


def test_a_run_over_the_data_set_is_waited_for(own_ticking: Ticking) -> None:
    own_ticking.tick()
    edited(own_ticking.shop, description="A story of space, told anew.")
    other = create_run_for_test(
        own_ticking.instance, status=dg.DagsterRunStatus.STARTING,
        tags={"dagster/partition": "shop"},
    )  # fmt: skip
    done = own_ticking.tick()
    assert done.requests == [] and done.notes == [f"shop: waiting for run {other.run_id[:8]}"]
    own_ticking.instance.delete_run(other.run_id)
    assert len(own_ticking.tick().requests) == 1


def test_a_cancelled_run_is_not_started_again_until_something_changes(
    own_ticking: Ticking,
) -> None:
    own_ticking.tick()
    edited(own_ticking.shop, title="The Sea Book, Second Edition")
    (request,) = own_ticking.tick().requests
    create_run_for_test(
        own_ticking.instance, status=dg.DagsterRunStatus.CANCELED,
        tags={"dagster/run_key": request.run_key}, asset_selection=set(request.asset_selection),
    )  # fmt: skip
    for _ in range(2):
        assert own_ticking.tick().requests == []
    assert own_ticking.rows["catalog/items"].held_by == (
        "catalog/items: its last run ended without it",
    )
    edited(own_ticking.shop, title="The Sea Book, Third Edition")
    assert "catalog/items" in made(own_ticking.refresh())


def test_too_many_bad_rows_hold_what_is_downstream_until_they_are_mended(
    own_ticking: Ticking,
) -> None:
    own_ticking.tick()
    good = own_ticking.shop.read("items")
    changed = [*good[:-1], {**good[-1], "title": "The Last Book"}]
    own_ticking.shop.write("items", [*changed, {**good[0], "title": "Twice"}])
    did = own_ticking.refresh()
    assert set(did) == {"catalog/items"}, "the check holds everything behind it"
    row = own_ticking.rows["registry/champion__sequential"]
    assert row.held_by == ("catalog/items: quarantine_small",)
    told = own_ticking.rows["catalog/items"].because
    assert "1 of 25 rows" in told and "row 25" in told and "duplicate_id" in told
    table = status_metadata([("shop", r) for r in own_ticking.rows.values()])
    assert "| shop | registry/champion__sequential |" in table["status"].value
    assert table["held"] == table["stale"] == len(own_ticking.rows)
    definitions = build_definitions(own_ticking.settings, own_ticking.plan)
    key = dg.AssetKey(["llm_embeddings", "item_text"])
    stale = CachingStaleStatusResolver(
        own_ticking.instance, definitions.resolve_asset_graph(),
        LoadingContextForTest(own_ticking.instance),
    )  # fmt: skip
    assert stale.get_status(key, "shop") == StaleStatus.STALE, "as the partition's page shows it"
    causes = [(c.reason, c.dependency.asset_key) for c in stale.get_stale_causes(key, "shop")]
    assert causes == [("has a new dependency data version", dg.AssetKey(["catalog", "items"]))]
    own_ticking.shop.write("items", changed)
    did = own_ticking.refresh()
    assert {"catalog/items", "llm_embeddings/item_text"} <= made(did)
    assert own_ticking.rows == {}


@pytest.mark.parametrize(
    ("fault", "held"), [("bad rows", "quarantine_small"), ("no column", "failed")]
)
def test_what_a_first_run_could_not_make_is_made_once_it_is_mended(
    tmp_path: Path, fault: str, held: str
) -> None:
    """Nothing of it was ever made, but somebody asked for it: the table names it and what holds."""
    with same_environment():
        shop = Shop.open(tmp_path / "home")
        (shop.home / "llmers.toml").write_text(
            '[llmers]\ndataset = "shop"\n[encoder]\nname = "tfidf?dim=24"\n'
            '[[methods]]\nrecipe = "knnblend"\n[[methods]]\nrecipe = "itemknn"\n'
        )
        good = shop.read("items")
        bad = [*good, good[0]] if fault == "bad rows" else [
            {k: v for k, v in row.items() if k != "title"} for row in good
        ]  # fmt: skip
        shop.write("items", bad)
        ticking = Ticking(shop)
        wished = [n for n in ticking.plan.nodes if "itemknn" not in n.slug]
        keys = [dg.AssetKey(list(n.key)) for n in wished]
        by_hand = dg.RunRequest(run_key="hand", partition_key="shop", asset_selection=keys)
        assert set(ticking.run(by_hand)) <= {"catalog/items"}
        assert ticking.tick().requests == []
        assert ticking.rows["registry/knnblend"].held_by == (f"catalog/items: {held}",)
        assert ticking.rows["registry/champion__sequential"].held_by
        assert "registry/itemknn" not in ticking.rows, "nobody asked for it"
        shop.write("items", good)
        did = ticking.refresh()
        assert {"catalog/items", "registry/knnblend", "registry/champion__sequential"} <= made(did)
        assert "registry/itemknn" not in did and ticking.rows == {}
        ticking.instance.dispose()


def test_other_settings_take_the_place_of_a_method_and_new_ones_wait_to_be_asked_for(
    own_ticking: Ticking,
) -> None:
    own_ticking.tick()
    path = own_ticking.shop.home / "llmers.toml"
    wider = SMALL.replace("inner = 16", "inner = 24")
    told = path.read_text().replace(
        f'recipe = "sasrec"\nbackbone_settings = {SMALL}',
        f'recipe = "sasrec"\nbackbone_settings = {wider}',
    )
    path.write_text(told + '\n[[methods]]\nrecipe = "textknn"\n')
    own_ticking.load()
    own_ticking.tick()
    assert SASREC.replace("inner16", "inner24") in own_ticking.rows
    assert not [name for name in own_ticking.rows if "textknn" in name]


def test_a_data_set_that_is_described_later_becomes_a_partition(own_ticking: Ticking) -> None:
    assert own_ticking.tick().added == []
    folder = own_ticking.shop.home / "data" / "annex"
    folder.mkdir()
    told = (own_ticking.shop.folder / "shop.toml").read_text()
    (folder / "annex.toml").write_text(told.replace('name = "shop"', 'name = "annex"'))
    assert own_ticking.tick().added == ["annex"]
    assert own_ticking.tick().added == [], "it is asked for once"


def test_what_failed_is_left_alone_until_its_combination_changes(own_ticking: Ticking) -> None:
    own_ticking.tick()
    path = own_ticking.shop.folder / "item_summary.csv"
    text = path.read_text()
    path.write_text(text.replace("item_id,text", "item_id,txt"))
    did = own_ticking.refresh()
    assert SUMMARY not in did
    failed = Failures(own_ticking.settings).get("shop", SUMMARY)
    assert failed is not None and "txt" in failed.error
    assert own_ticking.rows[SUMMARY].held_by == (f"{SUMMARY}: failed",)
    downstream = own_ticking.rows["registry/champion__sequential"].held_by
    assert downstream == (f"{SUMMARY}: failed",)
    path.write_text(text.replace("calm", "quiet"))
    assert SUMMARY in made(own_ticking.refresh())
    assert Failures(own_ticking.settings).get("shop", SUMMARY) is None


def test_the_status_asset_can_be_made_by_hand(own_ticking: Ticking) -> None:
    definitions = build_definitions(own_ticking.settings, own_ticking.plan)
    edited(own_ticking.shop, title="One more title")
    own_ticking.tick()
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[STATUS], instance=own_ticking.instance
    )
    (event,) = result.asset_materializations_for_node("catalog__status")
    assert "| shop | catalog/items | source changed: files | - |" in event.metadata["status"].value
