"""Loading the code location: light, complete, and open to Dagster's own selections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.config import PROJECT

# In a process of its own: other tests have imported torch and mlflow long before.
LOAD = """
import json, sys
from llmers_pipelines.definitions import defs
import dagster as dg

loaded = defs() if callable(defs) else defs
specs = list(loaded.resolve_all_asset_specs())
graph = loaded.resolve_asset_graph()
def select(text):
    chosen = dg.AssetSelection.from_string(text).resolve(graph)
    return sorted("/".join(k.path) for k in chosen)
print(json.dumps({
    "heavy": sorted(
        {"torch", "transformers", "vllm", "mlflow", "faiss", "ray", "duckdb"} & set(sys.modules)
    ),
    "assets": [{
        "key": "/".join(s.key.path), "group": s.group_name, "owners": list(s.owners),
        "kinds": sorted(s.kinds), "code_version": s.code_version, "tags": dict(s.tags),
        "description": s.description or "",
        "partitions": getattr(s.partitions_def, "name", None),
    } for s in specs],
    "checks": sorted({f"{k.asset_key.to_user_string()}:{k.name}" for k in graph.asset_check_keys}),
    "jobs": sorted(j.name for j in loaded.resolve_all_job_defs()),
    "selected": {t: select(t) for t in (
        "group:user_profiles", 'key:"llm_embeddings/item_text"', 'tag:"family/guidance"',
        'kind:llm', '+key:"features/pca__item_text"', 'owner:"team:llmers"')},
}))
"""


STATUS = "catalog/status"  # the table of what is stale, over all data sets


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LLMERS_", "DAGSTER_"))}
    environment |= {"LLMERS_HOME": str(home), "LLMERS_CONFIG": str(PROJECT / "llmers.toml"),
                    "PYTHONPATH": str(PROJECT)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LOAD], capture_output=True, text=True, env=environment, cwd=home
    )
    assert done.returncode == 0, done.stderr
    assert not list(Path(home).iterdir()), "loading definitions writes nothing"
    return json.loads(done.stdout)


def test_loading_imports_no_heavy_library(found: dict[str, Any]) -> None:
    assert found["heavy"] == []


def test_every_asset_says_what_it_is(found: dict[str, Any]) -> None:
    assert len(found["assets"]) > 30
    for asset in found["assets"]:
        prefix = asset["key"].split("/")[0]
        assert asset["group"] == prefix
        assert asset["owners"] == ["team:llmers"] and asset["kinds"] and asset["code_version"]
        assert asset["partitions"] == (None if asset["key"] == STATUS else "dataset")
        assert "llmers/verb" in asset["tags"]
        text = asset["description"].split("\n\nUsed by")[0]
        assert len(text.split()) >= 3, f"{asset['key']} is not described: {text!r}"
    by_key = {a["key"]: a for a in found["assets"]}
    shared = by_key["llm_embeddings/item_text"]
    assert {"method/llm_esr__sasrec", "method/knnblend", "family/guidance"} <= set(shared["tags"])
    assert "Used by: " in shared["description"]
    assert "mlflow" in by_key["registry/llm_esr__sasrec"]["kinds"]


def test_every_asset_but_pins_is_checked(found: dict[str, Any]) -> None:
    checked = {name.split(":")[0] for name in found["checks"]}
    keys = {a["key"] for a in found["assets"] if "pin__" not in a["key"]}
    assert checked == keys - {STATUS, "evaluations/leaderboard"}  # both show what was checked
    assert "user_profiles/user_preference:no_leakage" in found["checks"]


def test_a_job_per_method(found: dict[str, Any]) -> None:
    assert {"method__llm_esr__sasrec", "method__kar__din", "method__sasrec"} <= set(found["jobs"])


def test_string_selections_work_in_this_environment(found: dict[str, Any]) -> None:
    chosen = found["selected"]
    assert chosen["group:user_profiles"] == [
        "user_profiles/user_preference", "user_profiles/user_preference__template",
    ]  # fmt: skip
    assert chosen['key:"llm_embeddings/item_text"'] == ["llm_embeddings/item_text"]
    guided = chosen['tag:"family/guidance"']
    assert "recommenders/llm_esr__sasrec" in guided and "recommenders/kar__din" not in guided
    assert all(k.split("/")[0] in ("user_profiles", "item_summaries") for k in chosen["kind:llm"])
    assert chosen["kind:llm"]
    assert chosen['+key:"features/pca__item_text"'] == [
        "catalog/items", "features/pca__item_text", "llm_embeddings/item_text",
    ]  # fmt: skip
    assert len(chosen['owner:"team:llmers"']) == len(found["assets"])
