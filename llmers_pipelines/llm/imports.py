"""Which version of a row a recorded answer belongs to: the row as it was when first imported.

An id/text table does not say what its author saw. The first run that uses an answer writes down the
row's hash; from then on the answer holds for that version of the row alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from ..store.segments import SegmentFolder

_SCHEMA = pa.schema([
    ("row_id", pa.string()),
    ("row_sha256", pa.string()),
    ("created", pa.timestamp("us", tz="UTC")),
])  # fmt: skip


class ImportManifest:
    """row id -> hash of the row at its first import, in one folder; the first entry wins."""

    def __init__(self, folder: Path | str) -> None:
        self._segments = SegmentFolder(folder, _SCHEMA)
        self._known: dict[str, str] = {}
        for _, table in self._segments.read_all():
            rows = zip(table["row_id"].to_pylist(), table["row_sha256"].to_pylist(), strict=True)
            for row_id, sha in rows:
                self._known.setdefault(row_id, sha)
        self._new: dict[str, str] = {}

    def same(self, row_id: str, sha: str) -> bool:
        """Say whether the row is as it was; a row seen for the first time is remembered."""
        known = self._known.get(row_id)
        if known is None:
            self._known[row_id] = self._new[row_id] = sha
            return True
        return known == sha

    def save(self) -> None:
        """Make what was remembered durable."""
        if self._new:
            now = datetime.now(UTC)
            rows = [{"row_id": i, "row_sha256": s, "created": now} for i, s in self._new.items()]
            self._segments.publish(pa.Table.from_pylist(rows, schema=_SCHEMA))
            self._new = {}
