"""Missing requests as files in the form of OpenAI's batch interface, which run_batch reads too.

Each line is a request whose ``custom_id`` is its key in the response store. What belongs to a key
(request, identity, task) is kept in the outbox below the data folder, so that an answer finds its
place whoever gave it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.responses import ResponseStore
from .asking import Ask
from .chat_form import CHAT, Form, chat_body
from .protocol import EngineError, EngineInfo

EXPORTED = "exported"  # finish_reason of an outbox row: it holds a request, no answer


def outbox(data: Path) -> ResponseStore:
    """Return the requests that were exported: rows of the response store's form, without answers.

    ``libraries`` holds model (the name that was asked), dataset and asset.
    """
    return ResponseStore(data / "batches" / "outbox")


@dataclass(frozen=True)
class Pending:
    """Missing requests of one asset. ``about``: task and prompt revision."""

    asset: str
    dataset: str
    asks: list[Ask]
    about: dict[str, Any]


@dataclass(frozen=True)
class Exported:
    files: tuple[Path, ...]
    requests: int
    by_asset: dict[str, int]
    left_out: tuple[str, ...] = ()  # rows that the chat form cannot hold, with the reason


def export_batch(
    parts: Iterable[Pending],
    out: Path,
    *,
    data: Path,
    info: EngineInfo,
    model: str,
    form: Form,
    most_requests: int = 50_000,
    most_bytes: int = 200_000_000,
) -> Exported:
    """Write the requests to ``out``, or to ``<stem>-0001.jsonl``, ... where it takes several files.

    Each key is written once, whichever assets ask it. Raises ``EngineError`` where such files are
    there already: an old part sent once more would be paid for once more.
    """
    own = re.compile(rf"{re.escape(out.stem)}(-\d{{4}})?{re.escape(out.suffix)}")
    if there := sorted(f for f in out.parent.glob("*") if own.fullmatch(f.name)):
        raise EngineError(f"{there[0]} is there already; give another --out, or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    by_asset: dict[str, int] = {}
    left_out: list[str] = []
    with _Files(out, most_requests, most_bytes) as files:
        with outbox(data).writer(flush_rows=5000, flush_seconds=1e9) as writer:
            for part in parts:
                by_asset[part.asset] = 0
                beside = {"model": model, "dataset": part.dataset, "asset": part.asset}
                for ask in part.asks:
                    if ask.key in seen:
                        continue
                    seen.add(ask.key)
                    try:
                        body = chat_body(model, ask.sent, form)
                    except ValueError as error:
                        left_out.append(f"{part.asset}: {ask.row_id}: {error}")
                        continue
                    line = {"custom_id": ask.key, "method": "POST", "url": CHAT, "body": body}
                    files.write(json.dumps(line, ensure_ascii=False))
                    writer.put(
                        text="", finish_reason=EXPORTED, request=ask.content,
                        identity=info.identity, engine=info.kind, model=info.label,
                        libraries=json.dumps(beside, sort_keys=True), row_id=ask.row_id,
                        **part.about,
                    )  # fmt: skip
                    by_asset[part.asset] += 1
        done = files.publish()  # after the outbox: an answer must find its request
    return Exported(tuple(done), sum(by_asset.values()), by_asset, tuple(left_out))


class _Files:
    """Writes lines to hidden files and gives them their names at the end, all or none."""

    def __init__(self, out: Path, most_requests: int, most_bytes: int) -> None:
        self._out = out
        self._most = (most_requests, most_bytes)
        self._parts: list[Path] = []
        self._file: Any = None
        self._lines = self._bytes = 0

    def write(self, line: str) -> None:
        data = line.encode("utf-8", "replace") + b"\n"
        if len(data) > self._most[1]:
            raise EngineError(
                f"one request takes {len(data)} bytes, a batch file holds {self._most[1]}; raise "
                "batch.megabytes"
            )
        full = self._lines >= self._most[0] or self._bytes + len(data) > self._most[1]
        if self._file is None or full:
            self._close()
            number = len(self._parts) + 1
            path = self._out.with_name(f".{self._out.stem}-{os.getpid()}-{number:04}.tmp")
            self._file = path.open("wb")
            self._parts.append(path)
            self._lines = self._bytes = 0
        self._file.write(data)
        self._lines += 1
        self._bytes += len(data)

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def publish(self) -> list[Path]:
        self._close()
        out = self._out
        one = len(self._parts) == 1
        names = [out if one else out.with_name(f"{out.stem}-{n:04}{out.suffix}")
                 for n in range(1, len(self._parts) + 1)]  # fmt: skip
        for part, name in zip(self._parts, names, strict=True):
            os.replace(part, name)
        self._parts = []
        return names

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
        for part in self._parts:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
