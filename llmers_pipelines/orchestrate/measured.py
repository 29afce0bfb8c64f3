"""What asking really took: one line per run of a prompt task, kept for the estimates to come.

A line is appended by the step itself, also where a budget stopped it and for pilots, so that
estimates can be compared with all that was paid. A killed process leaves no line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import Settings
from .context import StepContext

NEWEST = 3  # runs that a speed is taken from


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
    loading: float = 0.0  # of ``seconds``: until the model could answer, once per run
    experiment: bool = False  # with another model than the asset's: no estimate was of it


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def machine() -> str:
    return socket.gethostname()


def plans_folder(settings: Settings) -> Path:
    return settings.data / "plans"


def keep(
    asset: str, prompt_revision: str, engine: Any, counts: Mapping[str, Any], ctx: StepContext, *,
    stopped: bool = False, pilot: bool = False,
) -> None:  # fmt: skip
    """Append the bill of one run of an asset that asks a model."""
    # Only a model whose weights are here runs here; by now it is loaded, so its device is known.
    local = bool(engine.info.weights_sha256 and counts["llm_calls"])
    line = Measured(
        now(), ctx.dataset, asset, ctx.run_id, engine.info.kind, engine.info.label,
        engine.info.identity, prompt_revision, machine(),
        str(getattr(engine, "device", "") or ctx.device) if local else "",
        int(counts["llm_calls"]), int(counts["cache_hits"]), int(counts["tokens_in"]),
        int(counts["tokens_out"]), float(counts["seconds"]), not stopped, pilot,
        float(counts.get("money", 0.0)), round(float(getattr(engine, "load_seconds", 0.0)), 3),
        ctx.apart is not None,
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
    """Tokens per second, prompt and answer together, and on what it was measured.

    ``loading``: seconds before the first token, once per run.
    """

    tokens_per_second: float
    device: str
    detail: str
    loading: float = 0.0


def speed(
    lines: Iterable[Measured], *, engine: str, identity: str, prompt_revision: str,
    writes: bool = True,
) -> Speed | None:  # fmt: skip
    """Return the speed of a model and engine on this machine: of this prompt, else of any.

    The device of the newest run counts, and of its runs the newest ``NEWEST``: what else the
    machine did then is nearest to what it does now. ``writes`` False: choices are scored, which is
    another speed than that of written answers. None where nothing was measured here.
    """
    here = [
        m for m in lines
        if (m.engine, m.identity, m.machine) == (engine, identity, machine())
        and m.llm_calls and m.seconds > m.loading
    ]  # fmt: skip
    same = [m for m in here if m.prompt_revision == prompt_revision]
    here = same or [m for m in here if bool(m.tokens_out) == writes]
    if not here:
        return None
    here = [m for m in here if m.device == here[-1].device][-NEWEST:]
    tokens = sum(m.tokens_in + m.tokens_out for m in here)
    if not tokens:
        return None
    loading = max(m.loading for m in here)
    rate = tokens / sum(m.seconds - m.loading for m in here)
    where = f" on {here[-1].device}" if here[-1].device else ""
    detail = f"{rate:,.0f} tokens/s{where} in {len(here)} earlier runs"
    if loading:
        detail += f", and {loading:,.1f} s to load the model"
    return Speed(rate, here[-1].device, detail, loading)
