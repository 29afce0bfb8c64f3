"""Pin: remember the version of a node that stands, until it is moved on purpose."""

from __future__ import annotations

import json
from pathlib import Path

from ...plan import Pin
from ..context import Outcome, StepContext


def run(node: Pin, ctx: StepContext) -> Outcome:
    """Pin the current version of ``node.node``."""
    target = ctx.manifest(node.node)
    pointer = {"asset": target.name, "data_version": target.data_version}

    def save(folder: Path) -> None:
        (folder / "pin.json").write_text(json.dumps(pointer))

    return Outcome(
        save, target.data_version, rows=target.rows, info=pointer, columns=target.columns
    )
