"""Where blocks of layers end, alike for a deep teacher and a shallow student."""

from __future__ import annotations


def block_layers(layers: int, blocks: int) -> tuple[int, ...]:
    """Return the layers (from 1) at which ``blocks`` blocks of ``layers`` layers end.

    ``k (layers // blocks)`` for k = 1..blocks. Hidden states of a model have one entry more than it
    has layers: entry 0 is what enters the first layer, so these numbers index them as they are.
    Raises ValueError for more blocks than layers.
    """
    if not 1 <= blocks <= layers:
        raise ValueError(
            f"{blocks} blocks of a model with {layers} layers: choose 1 to {layers} blocks"
        )
    return tuple(k * (layers // blocks) for k in range(1, blocks + 1))
