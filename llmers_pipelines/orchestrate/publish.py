"""Materialize one node for one data set: re-publish what is unchanged, else run its verb."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..plan import Champion, Node, Pin
from ..store.fingerprints import fingerprint, mark
from ..store.manifests import Manifest
from .attempts import Failures, attempt_key
from .checks import blocking_names
from .context import QUARANTINE, Outcome, StepContext, StepError
from .steps import run_verb, sources_of

_ON_DEVICE = ("embed", "train", "evaluate", "tune")  # their seconds mean little without the device


@dataclass(frozen=True)
class Published:
    """The manifest in force after a step, and whether work was done for it."""

    manifest: Manifest
    status: str  # materialized | reused
    seconds: float


def wanted(node: Node, ctx: StepContext) -> dict[str, Any]:
    """Return what a fresh manifest of ``node`` would be made from; raise where inputs lack."""
    inputs = {n.name: _marked(ctx.manifest(n)) for n in required(node, ctx)}
    return {
        "code_version": node.code_version,
        "inputs": {} if isinstance(node, Pin) else inputs,
        "sources": {**sources_of(node, ctx), **({"wiring": node.wiring} if node.wiring else {})},
    }


def _marked(manifest: Manifest) -> str:
    """Return the version with its flags: a new mark reaches everything downstream."""
    return " ".join([manifest.data_version, *manifest.flags])


def required(node: Node, ctx: StepContext) -> list[Node]:
    """Return the inputs that must be there; the gate takes the candidates that there are."""
    if isinstance(node, Champion):
        return [n for n in node.inputs if ctx.manifests.current(ctx.dataset, n.name)]
    return list(node.inputs)


def stale_because(node: Node, ctx: StepContext) -> str:
    """Return why ``node`` would do work now: "" (fresh), missing, code, data or sources."""
    have = ctx.manifests.current(ctx.dataset, node.name)
    if have is None:
        return "missing"
    if isinstance(node, Pin):
        return ""
    if have.held_by:
        return f"held: its blocking check {have.held_by[0]} failed"
    try:
        want = wanted(node, ctx)
    except StepError as error:
        return f"held: {error}"
    return difference(have, want, ctx)


def difference(have: Manifest, want: dict[str, Any], ctx: StepContext) -> str:
    """Name the first thing in which a manifest differs from what is wanted."""
    if have.code_version != want["code_version"]:
        return "code or settings changed"
    if have.sources != want["sources"]:
        names = [k for k in want["sources"] if have.sources.get(k) != want["sources"][k]]
        return f"source changed: {', '.join(names) or 'one was removed'}"
    # The order counts as well: it says which input stands where.
    if list(have.inputs.items()) != list(want["inputs"].items()):
        names = [k for k in want["inputs"] if have.inputs.get(k) != want["inputs"][k]]
        return f"input changed: {', '.join(names) or 'one was removed'}"
    if not ctx.manifests.path(have).is_dir():
        return "files were removed"
    return ""


def materialize(node: Node, ctx: StepContext, *, force: bool = False) -> Published:
    """Return the published version of ``node``; unchanged inputs and code cost no work."""
    start = time.perf_counter()
    have = None if force else ctx.manifests.current(ctx.dataset, node.name)
    if have is not None and isinstance(node, Pin):  # it stands, whatever became of its target
        return Published(have, "reused", time.perf_counter() - start)
    want = wanted(node, ctx)
    if have is not None and not have.held_by and not difference(have, want, ctx):
        return Published(have, "reused", time.perf_counter() - start)
    # An experiment is tried by people alone: its failure holds nothing back.
    failures = Failures(ctx.settings) if ctx.apart is None else None
    try:
        outcome = run_verb(node, ctx)
        manifest = _store(node, ctx, outcome, want, time.perf_counter() - start)
    except Exception as error:  # whatever it was: noted, and raised as it came
        if failures is not None:
            failures.note(ctx.dataset, node.name, attempt_key(node, want, ctx.settings), error)
        raise
    if failures is not None:
        failures.clear(ctx.dataset, node.name)
    ctx.remember(manifest, outcome.keep)
    return Published(manifest, "materialized", time.perf_counter() - start)


def _draw(node: Node, folder: Any, ctx: StepContext) -> None:
    from .plots import draw

    try:
        draw(node, folder)
    except Exception as error:  # a picture is no reason to lose what was made
        ctx.log(f"{node.name}: no picture: {type(error).__name__}: {error}")


def _store(
    node: Node, ctx: StepContext, outcome: Outcome, want: dict[str, Any], seconds: float
) -> Manifest:
    store = ctx.manifests
    folder = f"{ctx.dataset}/{node.name}/{outcome.data_version}"
    target = store.warehouse / folder
    # What lies there from before keeps its own list: a damaged file is not declared whole.
    before = store.version(ctx.dataset, node.name, outcome.data_version)
    files = before.files if before is not None and target.is_dir() else None
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=target.parent, prefix=".tmp-")
        try:
            outcome.save(type(target)(temporary))
            _draw(node, type(target)(temporary), ctx)  # pictures are files of the version as well
            os.chmod(temporary, 0o755)
            os.rename(temporary, target)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            if not target.is_dir():  # another process may have published the same content
                raise
    files = fingerprint(target) if files is None else files
    if outcome.beside:
        outcome.beside(target)
        files = {name: found for name, found in files.items() if name != QUARANTINE}
        if (target / QUARANTINE).is_file():
            files[QUARANTINE] = mark(target / QUARANTINE)
    checks = outcome.checks + (outcome.verify(target) if outcome.verify else ())
    if left_out := blocking_names(node, ctx.settings.safety) - {c.name for c in checks}:
        raise StepError(
            f"{node.name}: the step reported no {', '.join(sorted(left_out))}; a version without "
            "its blocking checks is not published"
        )
    # The gate reads marks, it does not carry them: a refused candidate taints no champion.
    parents = [] if isinstance(node, Champion) else required(node, ctx)
    inherited = [f for n in parents for f in ctx.manifest(n).flags]
    manifest = Manifest(
        name=node.name,
        dataset=ctx.dataset,
        data_version=outcome.data_version,
        digest=node.digest,
        folder=folder,
        rows=outcome.rows,
        counts=outcome.counts,
        checks=checks,
        flags=tuple(sorted({*inherited, *outcome.flags})),
        columns=outcome.columns,
        lineage=outcome.lineage,
        info={**outcome.info, **({"device": ctx.device} if node.verb in _ON_DEVICE else {})},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        files=files,
        **want,
    )
    store.write(manifest)
    return dataclasses.replace(manifest)
