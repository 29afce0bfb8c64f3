"""Proofs are read from what tests and results left behind, and only for the code as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.config import Settings
from llmers_pipelines.orchestrate import records
from llmers_pipelines.orchestrate.records import proofs_of, recipe_digest
from llmers_pipelines.recipe import discover

KINDS = ("equations", "materialized", "lift", "served")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(records, "PACKAGED", tmp_path / "packaged")
    return Settings(home=tmp_path)


def write(settings: Settings, name: str, document: dict[str, Any]) -> None:
    path = settings.data / "records" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def proven(settings: Settings, slug: str = "kar") -> set[str]:
    proofs = proofs_of(discover()[slug], settings)
    assert tuple(proofs) == KINDS
    return {kind for kind, holds in proofs.items() if holds}


def test_without_records_nothing_is_proven(settings: Settings) -> None:
    assert proven(settings) == set()


def test_passed_tests_of_this_very_recipe_prove(settings: Settings) -> None:
    digest = recipe_digest("kar")
    passed = {"passed": True, "digest": digest}
    write(settings, "tests.json", {"kar": {"equations": passed, "served": passed}})
    assert proven(settings) == {"equations", "served"} and proven(settings, "llm2x") == set()
    failed, older = passed | {"passed": False}, passed | {"digest": "of another code"}
    write(settings, "tests.json", {"kar": {"equations": failed, "served": older}})
    assert proven(settings) == set()


def test_a_lift_is_one_that_was_claimed(settings: Settings) -> None:
    row = {"digest": recipe_digest("kar"), "verdict": "not shown"}
    write(settings, "results.json", {"kar": [row]})
    assert proven(settings) == {"materialized"}
    write(settings, "results.json", {"kar": [row, row | {"verdict": "claimed"}]})
    assert proven(settings) == {"materialized", "lift"}
    write(settings, "results.json", {"kar": [row | {"verdict": "claimed", "digest": "other"}]})
    assert proven(settings) == set()


def test_a_broken_record_proves_nothing(settings: Settings) -> None:
    write(settings, "tests.json", {})
    (settings.data / "records" / "tests.json").write_text("{half a")
    assert proven(settings) == set()


def test_the_packaged_records_stand_in_for_own_ones(settings: Settings) -> None:
    folder = records.PACKAGED
    folder.mkdir()
    passed = {"passed": True, "digest": recipe_digest("kar")}
    (folder / "tests.json").write_text(json.dumps({"kar": {"served": passed}}))
    assert proven(settings) == {"served"}
