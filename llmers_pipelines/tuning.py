"""The ``[tune]`` section of ``llmers.toml``: the language model to tune, and how often to save.

Without the section the local model of ``[llm]`` is tuned, which then answers with and without its
adapter. Encoders that are tuned are those of ``[encoder]``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class TuneSettings:
    """``model`` and ``revision`` enter the identity of what is tuned, the rest does not."""

    model: str = ""  # local folder or hub id; "" = llm.model, where the engine is a local one
    revision: str = ""
    checkpoint_seconds: float = 60.0  # between two snapshots of a training; at most so much is lost


def read_tune(where: str, body: Mapping[str, Any]) -> TuneSettings:
    """Return the checked section; ``ValueError`` names the file, the setting and the mend."""
    usual = {f.name: getattr(TuneSettings(), f.name) for f in fields(TuneSettings)}
    for name, value in body.items():
        if name not in usual:
            near = difflib.get_close_matches(name, usual, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(usual))}"
            raise ValueError(f"{where} [tune]: unknown setting {name!r}; {hint}")
        wanted = "text" if isinstance(usual[name], str) else "a number of at least 0"
        kinds = str if wanted == "text" else (int, float)
        if (
            not isinstance(value, kinds)
            or isinstance(value, bool)
            or (not isinstance(value, str) and not 0 <= value < float("inf"))
        ):
            raise ValueError(f"{where} tune.{name} = {value!r}; write {wanted}")
    return TuneSettings(**body)
