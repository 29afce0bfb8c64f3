"""``llmers up``: Dagster (UI and daemon), the MLflow UI and the lineage pages on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import click

from .common import note, open_settings, settings_options


def _free_port(wanted: int) -> int:
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise click.ClickException(f"no free port between {wanted} and {wanted + 49}; pass --port")


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tool(name: str) -> str:
    """Return the command that was installed beside this interpreter."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.path.exists(beside) else shutil.which(name)
    if not found:
        raise click.ClickException(f"`{name}` is not installed; run `make setup`")
    return found


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@click.command(epilog="Example: llmers up --port 3000")
@click.option("--port", default=3000, show_default=True, help="Dagster UI.")
@click.option("--mlflow-port", default=5000, show_default=True, help="MLflow UI.")
@click.option("--lineage-port", default=3001, show_default=True, help="Lineage pages.")
@click.option("--no-mlflow", is_flag=True, help="Dagster alone.")
@settings_options
def up(port: int, mlflow_port: int, lineage_port: int, no_mlflow: bool, **flags) -> None:
    """Start the Dagster UI with its daemon, the MLflow UI and the lineage pages until Ctrl-C."""
    from ..orchestrate.home import open_instance

    settings = open_settings(**flags)
    open_instance(settings).dispose()
    env = {**os.environ, **settings.child_environment()}
    port, mlflow_port = _free_port(port), _free_port(mlflow_port)
    workspace = settings.dagster_home / "workspace.yaml"
    commands = {
        "Dagster": ([_tool("dagster"), "dev", "-h", "127.0.0.1", "-p", str(port),
                     "-w", str(workspace), "--log-level", "warning"], port),
    }  # fmt: skip
    lineage_port = _free_port(lineage_port if lineage_port != port else port + 1)
    commands["Lineage"] = ([_tool("llmers"), "lineage", "--port", str(lineage_port)], lineage_port)
    # What is materialized below links to these pages.
    env.setdefault("LLMERS_LINEAGE_URL", settings.lineage_url or f"http://127.0.0.1:{lineage_port}")
    if not no_mlflow:
        artifacts = settings.mlflow_folder / "artifacts"
        commands["MLflow"] = (
            [_tool("mlflow"), "ui", "--host", "127.0.0.1", "--port", str(mlflow_port),
             "--workers", "1", "--backend-store-uri", settings.mlflow_uri,
             "--default-artifact-root", artifacts.as_uri()], mlflow_port,
        )  # fmt: skip
        env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    children = {
        name: subprocess.Popen(command, env=env, preexec_fn=_default_signals,
                               stdout=subprocess.DEVNULL)
        for name, (command, _) in commands.items()
    }  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _wait(children, {name: p for name, (_, p) in commands.items()})
        while all(c.poll() is None for c in children.values()):
            time.sleep(0.5)
        gone = next(n for n, c in children.items() if c.poll() is not None)
        raise click.ClickException(f"{gone} ended by itself (exit {children[gone].returncode})")
    except KeyboardInterrupt:
        note("stopping")
    finally:
        _stop(list(children.values()))


def _wait(children: dict[str, subprocess.Popen], ports: dict[str, int]) -> None:
    pending = dict(ports)
    deadline = time.monotonic() + 180
    while pending and time.monotonic() < deadline:
        for name, port in list(pending.items()):
            if children[name].poll() is not None:
                raise click.ClickException(f"{name} ended while starting")
            if _listening(port):
                click.echo(f"{name:8} http://127.0.0.1:{port}")
                del pending[name]
        time.sleep(0.3)
    if pending:
        raise click.ClickException(f"{', '.join(pending)} did not answer within 180 s")


def _stop(children: list[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
