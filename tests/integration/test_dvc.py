"""The stages of dvc.yaml with the real program: each runs once, and its figures can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shop import Shop

from llmers_pipelines.config import PROJECT

pytestmark = pytest.mark.dvc
LLMERS = Path(sys.executable).with_name("llmers")


@pytest.fixture
def project(own: Shop, dvc: str) -> Shop:
    """The shop as a DVC project with this project's stages."""
    (own.home / "dvc.yaml").write_text((PROJECT / "dvc.yaml").read_text())
    (own.home / "params.yaml").write_text(
        f"llmers: {LLMERS}\ndataset: shop\nsource: data/shop\n"
        "engine: auto\nencoder: tfidf?dim=24\nseeds: 1\n"
    )
    (own.home / "llmers_pipelines").mkdir()
    (own.home / "llmers_pipelines" / "code.py").write_text("")
    call(own, dvc, "init", "--no-scm", "-q")
    return own


def call(shop: Shop, *words: str, **more: str) -> str:
    """Run a program in the shop's folder and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMERS_")}
    environment |= {"LLMERS_HOME": str(shop.home), "DVC_NO_ANALYTICS": "1", **more}
    done = subprocess.run(
        words, cwd=shop.home, env=environment, capture_output=True, text=True, check=False,
        timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_stages_run_once_and_their_figures_can_be_read(project: Shop, dvc: str) -> None:
    first = call(project, dvc, "repro")
    for stage in ("prepare", "enhance", "train", "report"):
        assert f"Running stage '{stage}'" in first
    second = call(project, dvc, "repro")
    assert "Running stage" not in second and "Data and pipelines are up to date" in second

    shown = json.loads(call(project, dvc, "metrics", "show", "--json"))
    figures = shown[""]["data"]["reports/dvc/metrics.json"]["data"]
    told = {r["method"]: r for r in project.ask("compare")["rows"]
            if r["slice"] == "all" and r["metric"] == r["primary"]}  # fmt: skip
    assert {m for task in figures.values() for m in task} == set(told)
    for task in figures.values():
        for method, values in task.items():
            metric = told[method]["metric"]
            assert values[metric] == pytest.approx(told[method]["enhanced"], abs=1e-6)
    call(project, dvc, "plots", "show", "-o", "page")
    page = (project.home / "page" / "index.html").read_text()
    assert "knnblend" in page and "validation by epoch" in page

    items = project.read("items")
    items[0]["title"] = "Another Title"
    project.write("items", items)
    third = call(project, dvc, "repro")
    assert "Running stage 'prepare'" in third and "Running stage 'train'" in third
    project.write("items", project.read("items"))  # the same content again
    assert "Running stage" not in call(project, dvc, "repro")


def test_add_puts_the_files_under_dvc_and_takes_their_version(own: Shop, dvc: str) -> None:
    folder = own.home / "mine"
    folder.mkdir()
    for name in ("items", "interactions"):
        (folder / f"{name}.csv").write_text((own.folder / f"{name}.csv").read_text())
    call(own, dvc, "init", "--no-scm", "-q")
    files = ["--items", str(folder / "items.csv")]
    files += ["--interactions", str(folder / "interactions.csv")]
    call(own, str(LLMERS), "datasets", "add", "mine", *files, "--dvc", LLMERS_DVC=dvc)
    pointers = sorted(p.name for p in folder.glob("*.dvc"))
    assert pointers == ["interactions.csv.dvc", "items.csv.dvc"]
    report = own.ask("datasets", "check", "mine")
    assert set(report["dvc"]) == {"items.csv", "interactions.csv"}
    assert "changed" not in report["dvc"].values()
    with Path(folder / "items.csv").open("a") as file:
        file.write("b99,A New Book,sea,More of it.\n")
    report = own.ask("datasets", "check", "mine")
    assert report["dvc"]["items.csv"] == "changed"
    assert any("dvc add items.csv" in warning for warning in report["warnings"])
    (folder / "items.csv").unlink()
    assert "dvc pull" in own.ask("datasets", "check", "mine", code=1)["errors"][0]
