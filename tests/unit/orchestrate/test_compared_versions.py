"""Which version of an evaluation a comparison tells of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from llmers_pipelines.config import Method, Settings
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.compare import evaluation_of
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
