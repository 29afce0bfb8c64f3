"""One small shop, made once through the command line; tests that change it work on a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shop import Shop, same_environment


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Commands set variables for the libraries that they load: the next test must not read them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, Any]]:
    """Return the shop and the document of `llmers run all --json` that made it."""
    shop = Shop.open(tmp_path_factory.mktemp("shop"))
    return shop, shop.ask("run", "all")


@pytest.fixture
def shop(opened: tuple[Shop, dict[str, Any]]) -> Iterator[Shop]:
    """Return the shop that all tests read."""
    with same_environment():
        yield opened[0]


@pytest.fixture
def own(opened: tuple[Shop, dict[str, Any]], tmp_path: Path) -> Iterator[Shop]:
    """Return a copy of the shop that a test may change."""
    with same_environment():
        yield opened[0].copy(tmp_path / "home")
