"""Cells behind docs/results.md stay readable: the identity of trained models does not drift.

A change that is meant to train anew (a raised revision) is told here:
``python tests/unit/orchestrate/test_published_cells.py`` writes the table again.
"""

from __future__ import annotations

import json
from pathlib import Path

from llmers_pipelines.config import Method, Settings
from llmers_pipelines.orchestrate.build import build_plan

TABLE = Path(__file__).with_name("published_cells.json")
RECIPES = ("bprmf", "deepfm", "din", "ease", "itemknn", "kar", "knnblend", "lightgcn", "llm2x",
           "llm_esr", "llm_init", "popularity", "sasrec", "textknn")  # fmt: skip


def identities() -> dict[str, list[str]]:
    """Return [code version, digest] of each trained model, with the packaged encoder."""
    methods = tuple(Method(slug) for slug in RECIPES)
    plan = build_plan(Settings(encoder="minilm", methods=methods))
    nodes = [n for n in plan.nodes if n.prefix == "recommenders"]
    return {n.name: [n.code_version, n.digest] for n in nodes}


def test_trained_models_keep_their_identity() -> None:
    stored, now = json.loads(TABLE.read_text()), identities()
    changed = sorted(n for n in stored if stored[n] != now.get(n))
    assert not changed, (
        f"{', '.join(changed)}: their stored cells would be trained again; undo the change of "
        f"identity, or write {TABLE.name} again and say so in CHANGELOG.md"
    )
    assert set(stored) == set(now)


if __name__ == "__main__":
    TABLE.write_text(json.dumps(identities(), indent=1, sort_keys=True) + "\n")
