"""Which version of an evaluation a comparison tells of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.config import Method, Settings
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.compare import collect, evaluation_of
from llmers_pipelines.store.manifests import Manifest, ManifestStore


def test_an_evaluation_with_other_seeds_does_not_stand_for_it(tmp_path: Path) -> None:
    plan = build_plan(Settings(methods=(Method("sasrec"),), encoder="tfidf", seeds=3))
    three = plan.methods[0].evaluate
    one = dataclasses.replace(three, seeds=1)
    store = ManifestStore(tmp_path)
    for number, node in enumerate((three, one)):
        store.write(Manifest(
            node.name, "shop", node.code_version, f"version{number}", node.digest, "folder",
            created=f"2026-01-0{number + 1}",
        ))  # fmt: skip

    def found(node: object) -> str:
        manifest = evaluation_of(store, "shop", node)
        return manifest.data_version if manifest else ""

    assert found(three) == "version0", "though the other one is newer"
    assert found(one) == "version1"
    assert found(dataclasses.replace(three, seeds=5)) == "version1", "any is better than none"
    assert evaluation_of(store, "other", three) is None


def test_an_evaluation_over_another_encoder_does_not_stand_for_it(tmp_path: Path) -> None:
    store, nodes = ManifestStore(tmp_path), []
    for number, encoder in enumerate(("tfidf?dim=16", "tfidf?dim=8", "tfidf?dim=4")):
        plan = build_plan(Settings(methods=(Method("knnblend"),), encoder=encoder))
        nodes.append(plan.methods[0].evaluate)
        if number < 2:
            store.write(Manifest(
                nodes[-1].name, "shop", nodes[-1].code_version, f"version{number}",
                nodes[-1].digest, "folder", created=f"2026-01-0{number + 1}",
            ))  # fmt: skip
    assert len({n.name for n in nodes}) == len({n.code_version for n in nodes}) == 1
    versions = [evaluation_of(store, "shop", n).data_version for n in nodes]
    assert versions == ["version0", "version1", "version1"], "its own, else the newest"


def test_a_claim_holds_only_with_the_p_corrected_over_the_methods(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = ManifestStore(settings.data)
    for number, p in enumerate((0.03, 0.04, 0.0001)):
        folder = store.warehouse / f"e{number}"
        folder.mkdir(parents=True)
        row = {"task": "sequential", "method": f"m{number}", "slice": "all", "p": p}
        row |= {"metric": "ndcg@10"}
        pq.write_table(pa.Table.from_pylist([row]), folder / "rows.parquet")
        summary = {"base": "b", "verdict": "claimed", "reasons": [], "primary": "ndcg@10"}
        (folder / "summary.json").write_text(json.dumps(summary))
        name = f"evaluations/m{number}"
        store.write(Manifest(name, "shop", "c", f"v{number}", "d", f"e{number}"))
    rows = collect(settings, "shop", None)
    assert [r["p_corrected"] for r in rows] == pytest.approx([0.06, 0.06, 0.0003])
    assert [r["verdict"] for r in rows] == ["not shown", "not shown", "claimed"]
    assert rows[0]["reasons_method"] == ["the p corrected over 3 methods is 0.06"]


def test_what_is_told_of_an_asset_is_of_the_version_that_its_node_made(tmp_path: Path) -> None:
    store, nodes = ManifestStore(tmp_path), []
    for number, encoder in enumerate(("tfidf?dim=16", "tfidf?dim=8", "tfidf?dim=4")):
        plan = build_plan(Settings(methods=(Method("knnblend"),), encoder=encoder))
        nodes.append(plan.methods[0].train)
        assert store.of("shop", nodes[-1]) is None or number
        if number < 2:
            store.write(Manifest(
                nodes[-1].name, "shop", nodes[-1].code_version, f"version{number}",
                nodes[-1].digest, "folder", created=f"2026-01-0{number + 1}",
            ))  # fmt: skip
    told = [m.data_version for n in nodes if (m := store.of("shop", n)) is not None]
    assert told == ["version0", "version1", "version1"], "its own, else the current one"
