"""What asking really took: one line per run of a prompt task, kept for the estimates to come.

A line is appended by the step itself, also where a budget stopped it and for pilots, so that
estimates can be compared with all that was paid. A killed process leaves no line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import Settings
from ..plan import Generate
from .context import StepContext


@dataclass(frozen=True)
class Measured:
    """One run's bill. ``done``: it was not stopped; ``seconds`` of wall time, loading included."""

    at: str
    dataset: str
    asset: str
    run_id: str
    engine: str
    model: str
    identity: str
    prompt_revision: str
    machine: str
    device: str  # "" where the model runs elsewhere, or nothing was asked
    llm_calls: int
    cache_hits: int
    tokens_in: int
    tokens_out: int
    seconds: float
    done: bool = True
    pilot: bool = False
    money: float = 0.0  # where the engine's own meter booked it; else the price table tells


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def machine() -> str:
    return socket.gethostname()


def plans_folder(settings: Settings) -> Path:
    return settings.data / "plans"


def keep(node: Generate, engine: Any, result: Any, ctx: StepContext, *, pilot: bool) -> None:
    """Append the bill of one run of ``node``."""
    counts = result.counts
    # Only a model whose weights are here runs here; by now it is loaded, so its device is known.
    local = bool(engine.info.weights_sha256 and counts["llm_calls"])
    line = Measured(
        now(), ctx.dataset, node.name, ctx.run_id, engine.info.kind, engine.info.label,
        engine.info.identity, node.task.prompt_revision, machine(),
        str(getattr(engine, "device", "") or ctx.device) if local else "",
        int(counts["llm_calls"]), int(counts["cache_hits"]), int(counts["tokens_in"]),
        int(counts["tokens_out"]), float(counts["seconds"]), not result.stopped, pilot,
        float(counts.get("money", 0.0)),
    )  # fmt: skip
    path = plans_folder(ctx.settings) / "measured.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(line), ensure_ascii=False) + "\n"
    # One write at the end of the file: lines of runs at the same time do not mix.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def measured(settings: Settings) -> list[Measured]:
    """Return all lines, oldest first; a line that is not whole is left out."""
    path = plans_folder(settings) / "measured.jsonl"
    if not path.is_file():
        return []
    out = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            out.append(Measured(**json.loads(text)))
        except (ValueError, TypeError):
            continue
    return out


@dataclass(frozen=True)
class Speed:
    """Tokens per second, prompt and answer together, and on what it was measured."""

    tokens_per_second: float
    device: str
    detail: str


def speed(
    lines: Iterable[Measured], *, engine: str, identity: str, prompt_revision: str
) -> Speed | None:
    """Return the speed of a model and engine on this machine: of this prompt, else of any.

    The device of the newest run counts; None where nothing was measured here.
    """
    here = [
        m for m in lines
        if (m.engine, m.identity, m.machine) == (engine, identity, machine())
        and m.llm_calls and m.seconds > 0
    ]  # fmt: skip
    here = [m for m in here if m.prompt_revision == prompt_revision] or here
    if not here:
        return None
    here = [m for m in here if m.device == here[-1].device]
    tokens = sum(m.tokens_in + m.tokens_out for m in here)
    seconds = sum(m.seconds for m in here)
    rate = tokens / seconds
    where = f" on {here[-1].device}" if here[-1].device else ""
    return Speed(rate, here[-1].device, f"{rate:,.0f} tokens/s{where} in {len(here)} earlier runs")
