"""Code and settings that changed on disk: loaded anew, or told and left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.config import load_settings
from llmers_pipelines.orchestrate import reload
from llmers_pipelines.orchestrate.reload import Loaded

CHOICE = '[[methods]]\nrecipe = "popularity"\n'


@pytest.fixture
def choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "llmers.toml"
    path.write_text(CHOICE)
    monkeypatch.setenv("LLMERS_CONFIG", str(path))
    monkeypatch.setenv("LLMERS_HOME", str(tmp_path))
    return path


@pytest.fixture
def loaded(choice: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.setattr(reload, "_package_folders", lambda: [str(choice.parent / "plugin.py")])
    return Loaded(load_settings())


def write(path: Path, text: str, age: float = 60) -> None:
    path.write_text(text)
    stamp = path.stat().st_mtime - age
    os.utime(path, (stamp, stamp))


def test_nothing_is_said_while_disk_and_memory_agree(loaded: Loaded) -> None:
    assert loaded.behind(None) == ""


def test_what_is_being_written_is_waited_for(loaded: Loaded, choice: Path) -> None:
    write(choice, CHOICE + "# more", age=0)
    assert loaded.behind(None) == f"{choice} changed; waiting until it is written"


def test_what_cannot_be_loaded_is_told_and_loads_nothing(
    loaded: Loaded, choice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "_ask", lambda origin: pytest.fail("it must not be loaded"))
    write(choice, '[[methods]]\nrecipe = "no_such_recipe"\n')
    told = loaded.behind(None)
    assert "cannot be loaded, so nothing runs" in told and "no_such_recipe" in told


def test_what_can_be_loaded_is_asked_for_once(
    loaded: Loaded, choice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(reload, "_fault", lambda: "")
    monkeypatch.setattr(reload, "_ask", lambda origin: asked.append(origin) or True)
    write(choice, CHOICE + "# more")
    assert loaded.behind("here").endswith("the code location is loaded anew")
    assert "reload the code location" in loaded.behind("here"), "this process should be gone by now"
    assert asked == ["here"]
    write(choice.parent / "plugin.py", "x = 1")
    assert "and 1 more; the code location is loaded anew" in loaded.behind("here")


def test_a_server_that_cannot_load_anew_is_named(loaded: Loaded, choice: Path) -> None:
    write(choice, CHOICE + "# more")
    assert "reload the code location (Deployment, Reload) or start anew" in loaded.behind(None)
