"""`llmers up` on a small shop, as a new user starts it, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))

from hands import CHOICE, Site, answer, await_ready, crowd, keep, open_kiosk, start
from loopback import Loopback
from shop import Shop

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


@pytest.fixture(scope="session")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The shop under `llmers up`, for the whole suite."""
    shop = Shop.open(tmp_path_factory.mktemp("browser") / "home")
    open_kiosk(shop)
    with Loopback(answer=answer) as model:
        (shop.home / "llmers.toml").write_text(CHOICE.replace("URL", model.url))
        process = start(shop)
        try:
            addresses, lines, seconds = await_ready(process)
            yield Site(shop, model, process, addresses, seconds, lines)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=40 * crowd()) == 0
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=40)


@pytest.fixture
def page(browser, site: Site, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    """A new tab; a screenshot of it is kept below LLMERS_SCREENSHOTS where that is set."""
    opened = browser.new_page(viewport={"width": 1500, "height": 950})
    opened.set_default_timeout(20_000 * crowd())
    yield opened
    keep(opened, request.node.name)
    opened.close()
