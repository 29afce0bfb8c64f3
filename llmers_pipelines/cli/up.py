"""``llmers up``: Dagster (UI and daemon), the MLflow UI and the lineage pages on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import urllib.request
from typing import Any

import click

from ..config import Settings
from .common import note, open_settings, settings_options
from .servers import Server, Servers, free_port
from .up_lock import UpLock

_LOADED = (
    "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError "
    "{ __typename ... on PythonError { message } } } } } }"
)


def _tool(name: str) -> str:
    """Return the command that was installed beside this interpreter."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.path.exists(beside) else shutil.which(name)
    if not found:
        raise click.ClickException(f"`{name}` is not installed; run `make setup`")
    return found


@click.command(epilog="Example: llmers up --port 3000")
@click.option("--port", default=3000, show_default=True, help="Dagster UI, or the next free port.")
@click.option("--mlflow-port", default=5000, show_default=True, help="MLflow UI, likewise.")
@click.option("--lineage-port", default=3001, show_default=True, help="Lineage pages, likewise.")
@click.option("--no-mlflow", is_flag=True, help="Without the MLflow UI.")
@settings_options
def up(port: int, mlflow_port: int, lineage_port: int, no_mlflow: bool, **flags) -> None:
    """Start the Dagster UI with its daemon, the MLflow UI and the lineage pages until Ctrl-C."""
    began = time.monotonic()
    settings = open_settings(**flags)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    # A shell starts background jobs with SIGINT ignored; it ends this one all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        with UpLock(settings.home, settings.dagster_home) as lock:
            servers = _servers(settings, port, lineage_port, 0 if no_mlflow else mlflow_port)
            addresses = {s.name: s.address for s in servers}
            env = {**os.environ, **settings.child_environment(), **_links(settings, addresses)}
            _prepare(settings)
            with Servers(servers, env, settings.dagster_home / "logs" / "up") as group:
                group.start()
                group.wait(lambda s: click.echo(f"{s.name:8} {s.address}"))
                lock.tell(addresses)
                click.echo(f"ready in {time.monotonic() - began:.0f} s; Ctrl-C stops all")
                group.watch()
    except KeyboardInterrupt:
        note("stopped")


def _leave(*_: object) -> None:
    note("stopping")
    sys.exit(0)


def _prepare(settings: Settings) -> None:
    from ..orchestrate.home import open_instance, release_orphans

    instance = open_instance(settings)
    if ended := release_orphans(instance):
        note(f"{len(ended)} runs of an earlier `llmers up` never ended; they are marked as failed")
    instance.dispose()


def _servers(settings: Settings, port: int, lineage_port: int, mlflow_port: int) -> list[Server]:
    """Return what is to be started, each on a free port. ``mlflow_port`` 0: without MLflow."""
    port = free_port(port)
    workspace = settings.dagster_home / "workspace.yaml"
    found = [
        Server("Dagster", (_tool("dagster"), "dev", "-h", "127.0.0.1", "-p", str(port),
                           "-w", str(workspace), "--log-level", "warning"), port, _dagster_ready),
    ]  # fmt: skip
    lineage_port = free_port(lineage_port, (port,))
    pages = (_tool("llmers"), "lineage", "--port", str(lineage_port))
    found.append(Server("Lineage", pages, lineage_port, lambda p: bool(_fetch(p, "/"))))
    if mlflow_port:
        mlflow_port = free_port(mlflow_port, (port, lineage_port))
        artifacts = settings.mlflow_folder / "artifacts"
        command = (_tool("mlflow"), "ui", "--host", "127.0.0.1", "--port", str(mlflow_port),
                   "--workers", "1", "--backend-store-uri", settings.mlflow_uri,
                   "--default-artifact-root", artifacts.as_uri())  # fmt: skip
        found.append(Server("MLflow", command, mlflow_port, _mlflow_ready))
    return found


def _links(settings: Settings, addresses: dict[str, str]) -> dict[str, str]:
    """Return the variables by which steps know the pages that their metadata link to."""
    found = {"LLMERS_MLFLOW_UI": addresses.get("MLflow", "")}
    if not settings.lineage_url:  # where people reach the pages may be elsewhere than here
        found["LLMERS_LINEAGE_URL"] = addresses["Lineage"]
    return {name: address for name, address in found.items() if address}


def _dagster_ready(port: int) -> bool:
    """Say whether the UI shows the assets; a fault in the definitions is told in its words."""
    found = _fetch(port, "/graphql", {"query": _LOADED})
    if not found:
        return False
    entries = json.loads(found)["data"]["workspaceOrError"].get("locationEntries", [])
    for entry in entries:
        told = entry["locationOrLoadError"] or {}
        if told.get("__typename") == "PythonError":
            raise click.ClickException(
                f"the definitions cannot be loaded: {told['message'].strip()}\n`llmers plan all` "
                "tells the same without servers"
            )
    return bool(entries) and all(e["loadStatus"] == "LOADED" for e in entries)


def _mlflow_ready(port: int) -> bool:
    return _fetch(port, "/health") == b"OK"


def _fetch(port: int, path: str, body: Any = None) -> bytes:
    """Return what a page of the server answers; b"" while there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read()
    except OSError:
        return b""
