"""`llmers up` on a small shop, as a new user starts it, and a browser that looks at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))

from shop import Shop, same_environment

CHOICE = """
[llmers]
dataset = "shop"

[encoder]
name = "tfidf?dim=24"

[evaluation]
controls = ["permuted"]

[[methods]]
recipe = "itemknn"
[[methods]]
recipe = "knnblend"
[[methods]]
recipe = "sasrec"
backbone_settings = { dim = 16 }
[[methods]]
recipe = "llm2x"
settings = { source = "summary" }
backbone_settings = { dim = 16 }
"""
LLM2X = "llm2x__sasrec__dim16__summary"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Return the system's browser, or "": LLMERS_CHROMIUM or the first of its usual names."""
    given = os.environ.get("LLMERS_CHROMIUM", "")
    return given or next((p for name in PROGRAMS if (p := shutil.which(name))), "")


def _missing() -> str:
    if not chromium():
        return f"no browser: none of {', '.join(PROGRAMS)} is installed; LLMERS_CHROMIUM names one"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed: make setup"
    return ""


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[object]:
    """The system's Chromium; without one a test is skipped, or fails under --need-browser."""
    if why := _missing():
        if request.config.getoption("--need-browser"):
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


@dataclass
class Site:
    """A running `llmers up`."""

    shop: Shop
    process: subprocess.Popen
    addresses: dict[str, str]
    ready_seconds: float
    lines: list[str]

    @property
    def dagster(self) -> str:
        return self.addresses["Dagster"]


def start(shop: Shop, *more: str) -> subprocess.Popen:
    """Start `llmers up` on ``shop`` from a folder that has nothing to do with it."""
    command = [sys.executable, "-c", "from llmers_pipelines.cli import run_main; run_main()",
               "up", "--home", str(shop.home), "--config", str(shop.home / "llmers.toml"),
               "--port", "3700", "--mlflow-port", "5700", *more]  # fmt: skip
    with same_environment():
        env = dict(os.environ)
    return subprocess.Popen(
        command, cwd="/", env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def await_ready(process: subprocess.Popen) -> tuple[dict[str, str], list[str], float]:
    """Return addresses, lines and seconds once `llmers up` says that it is ready."""
    began, lines, addresses = time.monotonic(), [], {}
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"(\w+) +(http://127\.0\.0\.1:\d+)", line):
            addresses[found[1]] = found[2]
        if line.startswith("ready in"):
            return addresses, lines, time.monotonic() - began
    raise AssertionError(f"llmers up ended: {''.join(lines)}")


@pytest.fixture(scope="session")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The shop under `llmers up`, for the whole suite."""
    shop = Shop.open(tmp_path_factory.mktemp("browser") / "home")
    (shop.home / "llmers.toml").write_text(CHOICE)
    process = start(shop)
    try:
        addresses, lines, seconds = await_ready(process)
        yield Site(shop, process, addresses, seconds, lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=40) == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=40)


@pytest.fixture
def page(browser, site: Site, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    """A new tab; a screenshot of it is kept below LLMERS_SCREENSHOTS where that is set."""
    opened = browser.new_page(viewport={"width": 1500, "height": 950})
    opened.set_default_timeout(20_000)
    yield opened
    folder = os.environ.get("LLMERS_SCREENSHOTS", "")
    if folder:
        opened.screenshot(path=str(Path(folder) / f"{request.node.name}.png"))
    opened.close()
