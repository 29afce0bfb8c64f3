"""Snapshots of a training: tensors as safetensors, facts as JSON, in place all at once or not.

Nothing here knows what is trained: ``save`` takes named tensors and plain facts. Values survive
bit for bit, so a training that goes on from a snapshot ends as one that was never interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, FACTS = "state.safetensors", "facts.json"


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write the snapshot of ``step`` below ``folder`` and drop older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".tmp-"))
    # A tensor may share its memory with another one; a file holds each on its own.
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    save_file(own, temporary / TENSORS)
    (temporary / FACTS).write_text(json.dumps({**facts, "step": step}))
    target = folder / f"step_{step:09d}"
    shutil.rmtree(target, ignore_errors=True)
    os.rename(temporary, target)
    for old in _found(folder):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest snapshot below ``folder``; None where there is none."""
    for place in reversed(_found(folder)):
        facts = json.loads((place / FACTS).read_text())
        return load_file(place / TENSORS), facts
    return None


def _found(folder: Path) -> list[Path]:
    """Return the whole snapshots, oldest first; a folder half written keeps its temporary name."""
    return sorted(p for p in folder.glob("step_*") if p.is_dir())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimizer as ``optimizer.<parameter>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, values in state.items() for name, value in values.items()
    }  # fmt: skip


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what ``optimizer_tensors`` returned back into an optimizer of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            number, _, setting = rest.partition(".")
            state.setdefault(int(number), {})[setting] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def random_tensors() -> dict[str, Tensor]:
    """Return the state of torch's random streams, of the CPU and of each CUDA device."""
    found = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found |= {f"random.cuda{n}": s for n, s in enumerate(torch.cuda.get_rng_state_all())}
    return found


def restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Set torch's random streams as ``random_tensors`` found them."""
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            if (state := tensors.get(f"random.cuda{number}")) is not None:
                torch.cuda.set_rng_state(state, number)
