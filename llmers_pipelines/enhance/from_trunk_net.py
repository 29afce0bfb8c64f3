"""The weights of a pretrained network put into a new one (torch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def load_trunk(model: Any, arrays: Mapping[str, np.ndarray], share: float, name: str) -> None:
    """Set every tensor of ``model.trunk`` to ``share`` of its pretrained value and the rest of its
    own; nothing else.

    Raises ValueError where the two have other tensors or shapes, or a value is not finite.
    """
    trunk = model.trunk
    if missing := sorted(set(trunk) ^ set(arrays)):
        raise ValueError(
            f"{name}: {missing[0]!r} is a weight of one of the two networks alone; pretrain with "
            "the settings of the backbone that is trained"
        )
    for key, tensor in trunk.items():
        found = torch.from_numpy(np.array(arrays[key], np.float32))
        if found.shape != tensor.shape:
            raise ValueError(
                f"{name}: {key!r} has the shape {tuple(found.shape)}, the backbone's has "
                f"{tuple(tensor.shape)}; pretrain with its settings and on the same log"
            )
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"{name}: {key!r} holds values that are not finite")
        if share > 0:
            with torch.no_grad():
                tensor.copy_(found if share == 1 else share * found + (1 - share) * tensor)
