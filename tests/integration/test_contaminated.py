"""Answers that may have seen held-out rows, end to end on ml1m: refused, or used and marked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from shop import same_environment

from llmers_pipelines.cli import main

pytestmark = pytest.mark.data

FIT = "{ dim = 8, fit = { epochs = 1, min_epochs = 1 } }"
CHOICE = f"""
[llmers]
dataset = "ml1m"

[llm]
engine = "ENGINE"
accept_contaminated = ACCEPT

[encoder]
name = "tfidf?dim=16"

[evaluation]
controls = []

[[methods]]
recipe = "knnblend"
[[methods]]
recipe = "bprmf"
backbone_settings = {FIT}
[[methods]]
recipe = "llmrec"
backbone = "bprmf"
backbone_settings = {FIT}
"""
PROFILES = "user_profiles/user_preference__sequential"


@dataclass(frozen=True)
class Hands:
    home: Path
    data_root: Path

    def choose(self, engine: str, accept: str) -> None:
        chosen = CHOICE.replace("ACCEPT", accept).replace("ENGINE", engine)
        (self.home / "llmers.toml").write_text(chosen)

    def profiles(self) -> dict[str, Any]:
        """Return the stored manifest of the user profiles."""
        folder = self.home / "data/llmers/manifests"
        return json.loads(
            next(folder.rglob("user_preference__sequential/current.json")).read_text()
        )

    def ask(self, *words: str) -> dict[str, Any]:
        env = {"LLMERS_HOME": str(self.home), "LLMERS_DATA_ROOT": str(self.data_root)}
        with same_environment():
            found = CliRunner(env=env).invoke(main, [*words, "--dataset", "ml1m", "--json"])
            return json.loads(found.stdout)


@pytest.fixture
def hands(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Hands:
    monkeypatch.chdir(tmp_path)
    return Hands(tmp_path, data_root)


def test_summaries_of_unknown_cutoff_give_marked_results_that_are_never_promoted(hands: Hands):
    hands.choose("recorded", "false")
    refused = hands.ask("run", PROFILES)["assets"][-1]
    assert refused["key"] == PROFILES and refused["status"] == "failed" and not refused["rows"]
    assert "not recorded" in refused["error"] and "accept_contaminated" in refused["error"]
    hands.choose("auto", "false")  # the template, without a language model, stands in
    assert hands.ask("run", PROFILES)["success"]
    template = hands.profiles()
    assert template["rows"] == 6_040 and not template["flags"]

    hands.choose("auto", "true")
    report = hands.ask("run", "llmrec")
    profiles = hands.profiles()
    assert "contaminated" in profiles["flags"]
    assert profiles["data_version"] != template["data_version"]
    assert report["success"]
    rows = {a["key"].partition("/")[0]: a for a in report["assets"] if "llmrec" in a["key"]}
    assert {rows[k]["status"] for k in ("recommenders", "evaluations")} == {"materialized"}
    compared = [r for r in hands.ask("compare")["rows"] if r["method"].startswith("llmrec")]
    assert compared and all("contaminated" in r["flags"] for r in compared)
    assert {r["verdict"] for r in compared} == {"not shown"}
    assert any("'contaminated'" in reason for reason in compared[0]["reasons_method"])
    champion = next((hands.home / "data/llmers/warehouse/ml1m/registry").glob("champion*/*/*.json"))
    verdicts = json.loads(champion.read_text())["verdicts"]
    marked = [v for v in verdicts if "contaminated" in v["flags"]]
    assert len(marked) == 1 and not marked[0]["promoted"]
    assert not any("contaminated" in v["flags"] for v in verdicts if v not in marked)
