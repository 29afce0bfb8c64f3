"""The engine that answers from recorded answers of language models that ran elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..data.recorded import Entry, Recording
from .imports import ImportManifest
from .keys import description_sha, row_sha256
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

NO_ANSWER = "no recorded answer"


class RecordedEngine:
    """Answers by row id, only while the row is the version that the answer was written for.

    A batch line may name that version (``description_sha``); otherwise it is the row as it was at
    the first import, kept in ``imports``. A changed row counts as one without a recorded answer.
    """

    def __init__(self, recording: Recording, imports: ImportManifest) -> None:
        self.recording = recording
        self._imports = imports
        self.info = EngineInfo(
            kind="recorded",
            model=recording.model or recording.name,
            weights_sha256=recording.sha256,
            data_cutoff=recording.data_cutoff,
        )

    def generate(
        self, requests: Sequence[GenRequest], *, halt: Halt | None = None
    ) -> Iterator[GenResult]:
        try:
            for request in requests:
                yield self._answer(request)
        finally:
            self._imports.save()

    def _answer(self, request: GenRequest) -> GenResult:
        entry = self.recording.entries.get(request.row_id)
        if entry is None or entry.text is None:
            why = f": {entry.error}" if entry is not None and entry.error else ""
            return GenResult.failed(request.row_id, f"{NO_ANSWER} in {self.recording.name}{why}")
        if changed := self._changed(request, entry):
            return GenResult.failed(request.row_id, f"{NO_ANSWER}: {changed}")
        reason = "length" if entry.finish_reason == "length" else "stop"
        return GenResult(request.row_id, entry.text, reason, entry.tokens_in, entry.tokens_out)

    def _changed(self, request: GenRequest, entry: Entry) -> str:
        row = request.row or {}
        if entry.description_sha:
            found = description_sha(row, self.recording.source_columns)
            if found == entry.description_sha:
                return ""
            return (
                f"the row has hash {found}, the answer was written for {entry.description_sha} "
                "(the row changed, or source_columns does not name its source record)"
            )
        if self._imports.same(request.row_id, row_sha256(row)):
            return ""
        return "the row has changed since the answers were imported"

    def choose(self, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
        raise cannot("recorded", "rank choices")

    def embed(self, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1) -> np.ndarray:
        raise cannot("recorded", "embed texts")

    def close(self) -> None:
        self._imports.save()
