"""Hidden states of many histories, in parts that survive a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ..models.layer_blocks import block_layers

if TYPE_CHECKING:
    from .language_model_states import LanguageModelStates


@torch.inference_mode()
def states_of(
    histories: Sequence[np.ndarray], table: np.ndarray, model: Callable[[], Any],
    how: LanguageModelStates, parts: Path,
) -> tuple[tuple[int, ...], np.ndarray, int]:  # fmt: skip
    """Return (layers, float16[P, B, E], positions that went through the model).

    Histories are positions in ``table`` (N + 1, W). Each part is stored below ``parts`` when it is
    made; a part that is there is read.
    """
    parts.mkdir(parents=True, exist_ok=True)
    soft: Any = None
    rows = torch.from_numpy(table)
    out, layers, passed = [], (), 0
    for start in range(0, len(histories), how.BATCH):
        file = parts / f"part_{start:09d}.safetensors"
        if file.is_file():
            found = load_file(file)
            layers = tuple(int(n) for n in found["layers"])
            out.append(found["states"])
            continue
        soft = soft or model()
        batch = histories[start : start + how.BATCH]
        states = soft([rows[h].to(soft.device) for h in batch])
        layers = block_layers(len(states) - 1, how.blocks)
        block = torch.stack([states[n] for n in layers], 1).half().cpu().numpy()
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        save_file({"states": block, "layers": np.array(layers)}, temporary)
        os.replace(temporary, file)
        out.append(block)
        passed += len(batch)
    empty = np.zeros((0, how.blocks, 1), np.float16)
    return layers, np.concatenate(out) if out else empty, passed
