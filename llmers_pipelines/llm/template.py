"""The engine without a language model: each task's own deterministic answer from metadata.

It is the control that every language model must beat, and what runs where there is no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .protocol import (
    ChoiceRequest,
    ChoiceResult,
    EngineInfo,
    GenRequest,
    GenResult,
    Halt,
    cannot,
)

if TYPE_CHECKING:
    import numpy as np


class TemplateEngine:
    """Answers with ``task.template(row)``; uses no tokens and never fails to be reproducible."""

    def __init__(self) -> None:
        self.info = EngineInfo(kind="template", model="template")

    def generate(
        self, requests: Sequence[GenRequest], *, halt: Halt | None = None
    ) -> Iterator[GenResult]:
        for request in requests:
            if request.without_model is None:
                yield GenResult.failed(request.row_id, "the task has no template")
                continue
            yield GenResult(request.row_id, request.without_model())

    def choose(self, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
        raise cannot("template", "rank choices")

    def embed(self, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1) -> np.ndarray:
        raise cannot("template", "embed texts")

    def close(self) -> None:
        """Nothing is held."""
