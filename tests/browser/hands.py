"""Hands for the browser suite: start the real thing, click as a person does, wait for runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

from loopback import Loopback
from shop import Shop, same_environment

CHOICE = """
[llmers]
dataset = "shop"

[llm]
engine = "openai"
model = "shop/model"
endpoint = "URL"
api_key_env = "SHOP_KEY"
max_tokens = 200

[refresh]
enabled = true
seconds = 2

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
PICTURE = "http://127.0.0.1:9/picture.png"
MARKUP = f"![p]({PICTURE}) **bold** <img src={PICTURE}>"  # a title in the second data set
LLM2X = "llm2x__sasrec__dim16__summary"
_RUNS = """{ runsOrError(limit: 30) { ... on Runs { results {
  runId status pipelineName tags { key value } } } } }"""


@dataclass
class Site:
    """A running `llmers up`, and the server that answers for its language model."""

    shop: Shop
    model: Loopback
    process: subprocess.Popen
    addresses: dict[str, str]
    ready_seconds: float
    lines: list[str]

    @property
    def dagster(self) -> str:
        return self.addresses["Dagster"]


def crowd() -> float:
    """Return how much longer than on free cores things may take: others may be at work here."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def start(shop: Shop, *more: str) -> subprocess.Popen:
    """Start `llmers up` on ``shop`` from a folder that has nothing to do with it."""
    command = [sys.executable, "-c", "from llmers_pipelines.cli import run_main; run_main()",
               "up", "--home", str(shop.home), "--config", str(shop.home / "llmers.toml"),
               "--port", "3700", "--mlflow-port", "5700", "--lineage-port", "3750",
               *more]  # fmt: skip
    with same_environment():
        env = {**os.environ, "SHOP_KEY": "sk-shop-0123456789abcdef0123"}
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


def ask(site: Site, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(
        f"{site.dagster}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30 * crowd()) as answer:
        return json.load(answer)["data"]


def runs(site: Site) -> dict[str, dict[str, Any]]:
    found = ask(site, _RUNS)["runsOrError"]["results"]
    return {r["runId"]: {**r, "tags": {t["key"]: t["value"] for t in r["tags"]}} for r in found}


def new_runs(
    site: Site,
    before: dict[str, Any],
    count: int = 1,
    seconds: float = 150,
    by_sensor: bool = False,
) -> list[Any]:
    """Wait until ``count`` runs that are not in ``before`` have ended, and return them.

    ``by_sensor``: those that the refresh sensor asked for; else those of a person.
    """
    deadline = time.monotonic() + seconds * crowd()
    while time.monotonic() < deadline:
        fresh = [r for k, r in runs(site).items()
                 if k not in before and by_sensor == ("llmers/refresh" in r["tags"])]  # fmt: skip
        ended = [r for r in fresh if r["status"] in ("SUCCESS", "FAILURE", "CANCELED")]
        if len(ended) >= count:
            return ended
        time.sleep(0.5)
    raise AssertionError(f"{count} runs did not end within {seconds} s: {fresh}")


def choose(page: Any, *datasets: str) -> None:
    """In the dialog of a launch: choose data sets."""
    page.get_by_text("Select a partition").click()
    search = page.get_by_placeholder("Filter partitions")
    for name in datasets:
        search.fill(name)
        popover = search.locator("xpath=ancestor::*[contains(@class, 'dagster-popover')][1]")
        popover.locator(f'text="{name}" >> visible=true').last.click()
    page.keyboard.press("Escape")


def open_asset(page: Any, site: Site, name: str, view: str) -> None:
    chosen = "&partition=shop" if view == "partitions" else ""
    page.goto(f"{site.dagster}/assets/{name}?view={view}{chosen}")


def configure(page: Any, yaml: str) -> None:
    """In the dialog of a launch: write a run config."""
    page.get_by_text("Config", exact=True).click()
    page.get_by_role("button", name="Add config").click()
    page.locator(".CodeMirror").first.click()
    page.keyboard.insert_text(yaml)


def experiment(*lines: str) -> str:
    asset = "ops:\n  recommenders__sasrec__dim16:\n    config:\n      experiment:\n"
    return asset + "".join(f"        {line}\n" for line in lines)


def launched(page: Any, site: Site, config: str) -> dict[str, Any]:
    """Launch one recommender with a run config by clicking; return the run when it ended."""
    before = runs(site)
    submit(page, site, config)
    (run,) = new_runs(site, before)
    return run


def submit(page: Any, site: Site, config: str) -> None:
    """Click as far as the launch of one recommender with a run config."""
    open_asset(page, site, "recommenders/sasrec__dim16", "overview")
    page.get_by_role("button", name="Materialize").first.click()
    choose(page, "shop")
    configure(page, config)
    page.get_by_role("button", name="Save config").click()
    page.get_by_role("button", name="Launch 1 run").click()


def until(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds * crowd()
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.5)


def launch(site: Site, name: str, config: dict[str, Any], **tags: str) -> None:
    selector = {
        "repositoryLocationName": "llmers", "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": name.split("/")}],
    }  # fmt: skip
    parameters = {
        "selector": selector, "mode": "default",
        "runConfigData": {"ops": {name.replace("/", "__"): {"config": config}}},
        "executionMetadata": {"tags": [
            {"key": f"dagster/{k}", "value": v} for k, v in {"partition": "shop", **tags}.items()
        ]},
    }  # fmt: skip
    mutation = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) {
      __typename ... on PythonError { message } } }"""
    done = ask(site, mutation, {"p": parameters})["launchPipelineExecution"]
    assert done["__typename"] == "LaunchRunSuccess", done


def answer(body: dict[str, Any]) -> str:
    """Answer as a good model would: about the book that the prompt tells of."""
    told = dict(re.findall(r"^(\w+): (.+)$", body["messages"][-1]["content"], re.MULTILINE))
    title, kind = told["title"], told["kind"]
    return json.dumps({
        "summary": f"{title} follows people who live by {kind}. {told['description']}",
        "themes": [kind, f"number {title.split()[-1]}"], "mood": "calm",
        "audience": "adult readers",
    })  # fmt: skip


def open_kiosk(shop: Shop) -> None:
    """Describe a second data set beside the shop, with the same files."""
    folder = shop.home / "data" / "kiosk"
    shutil.copytree(shop.folder, folder)
    text = (folder / "shop.toml").read_text().replace('name = "shop"', 'name = "kiosk"')
    (folder / "kiosk.toml").write_text(text)
    (folder / "shop.toml").unlink()
    (folder / "items.csv").write_text(
        (shop.folder / "items.csv").read_text().replace("The Crime Book 1,", f"{MARKUP},", 1)
    )


def keep(page: Any, name: str) -> None:
    """Keep a picture of a page below LLMERS_SCREENSHOTS where that is set."""
    if folder := os.environ.get("LLMERS_SCREENSHOTS", ""):
        page.screenshot(path=os.path.join(folder, f"{name}.png"))
