"""A data root of its own for each test, and fetching from raw files that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from public_place import Place

from llmers_pipelines.data.public import describe


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", tmp_path / "data")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the checksums of the genuine files: those of the tests are small ones."""
    genuine = describe.public_sets()
    without = {
        name: replace(s, files=tuple(replace(f, md5="", checksum_url="") for f in s.files))
        for name, s in genuine.items()
    }
    monkeypatch.setattr(describe, "public_sets", lambda: without)
