"""`llmers new`: what it writes runs as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import llmers_pipelines
from llmers_pipelines.cli import main
from llmers_pipelines.data.description import load_description

ROOT = Path(llmers_pipelines.__file__).parents[1]


def new(*words: str) -> Result:
    return CliRunner().invoke(main, ["new", *words])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project, as far as a recipe and its test need it."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "llmers_pipelines", tmp_path / "llmers_pipelines", ignore=leave)
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_new_recipe_passes_its_own_contract(project: Path) -> None:
    made = new("recipe", 'My "Own" Method', "--family", "distillation", "--into", str(project))
    assert made.exit_code == 0, made.output
    files = ["llmers_pipelines/recipes/distillation/my_own_method.py",
             "tests/contract/test_my_own_method.py"]  # fmt: skip
    assert made.stdout.split() == [str(project / f) for f in files]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMERS_")}
    environment["PYTHONPATH"] = str(project)
    command = [sys.executable, "-m", "pytest", "-v", files[1]]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    again = new("recipe", "my own method", "--into", str(project), "--family", "distillation")
    assert again.exit_code == 1 and "exists already" in again.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["123"], "gives no valid name"),
        (["class"], "gives no valid name"),
        (["items"], "is a name that recipes import"),
        (["KAR"], "a recipe 'kar' exists already"),
        (["fine", "--family", "magic"], "family 'magic' is none of baselines, knowledge"),
        (["fine", "--into", "/nowhere"], "is not the project root"),
    ],
)
def test_names_that_cannot_be_are_refused(words: list[str], says: str) -> None:
    result = new("recipe", *words)
    assert result.exit_code == 1 and says in result.stderr


def test_a_new_data_set_is_a_description_to_fill_in(tmp_path: Path) -> None:
    made = new("dataset", "shop", "--into", str(tmp_path))
    assert made.exit_code == 0, made.output
    assert load_description(tmp_path / "shop.toml").name == "shop"
    again = new("dataset", "shop", "--into", str(tmp_path))
    assert again.exit_code == 1 and "exists already" in again.stderr
