"""One file over HTTP: resumed where it broke off, started again where it changed, checked."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..schema import DataError
from .describe import RawFile
from .progress import Progress

CHUNK = 1 << 20
TRIES = 6  # without a new byte in between
TIMEOUT = 60.0  # seconds without an answer
MAX_WAIT = 60.0
SPARE = 1 << 28  # bytes of disk that stay free
_AGENT = "llmers-pipelines"
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_DROPPED = (http.client.HTTPException, ConnectionError, socket.timeout, TimeoutError)


class Missing(DataError):
    """The server says that there is no such file, or that it may not be had."""


class _Changed(Exception):
    """The file on the server is another one than the part that is here."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = (urllib.parse.urlsplit(u).scheme for u in (req.full_url, newurl))
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise Missing(f"{req.full_url} leads to {newurl}, which is not followed: not secure")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


@dataclass
class Download:
    """Fetches files into a folder. ``sleep`` and ``timeout`` are changed by tests.

    ``unchecked``: names of files whose length nobody told, so that a cut one looks whole.
    """

    progress: Progress
    sleep: Callable[[float], None] = time.sleep
    timeout: float = TIMEOUT
    unchecked: set[str] = field(default_factory=set)

    def fetch(self, file: RawFile, folder: Path) -> Path:
        """Return the path of ``file`` in ``folder`` after downloading it.

        The addresses are tried in order. Raises ``DataError`` when none has it, when the connection
        breaks too often (the part stays, and the next call goes on there), or for lack of disk.
        """
        target = folder / file.name
        faults = []
        for url in file.urls:
            try:
                self._fetch(url, target, file)
                return target
            except Missing as fault:
                faults.append(str(fault))
        raise Missing("; ".join(faults))

    def _fetch(self, url: str, target: Path, file: RawFile) -> None:
        part = target.with_name(target.name + ".part")
        state = target.with_name(target.name + ".part.json")
        tries = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                self._go_on(url, part, state, file)
                break
            except _Changed:
                part.unlink(missing_ok=True)
                state.unlink(missing_ok=True)
                tries += 1
                why = "it changed on the server again and again"
                wait = 0.0
            except urllib.error.HTTPError as fault:
                if fault.code not in _AGAIN:
                    raise Missing(_refused(url, fault.code)) from None
                tries += 1
                why, wait = f"the server answers {fault.code}", _retry_after(fault, tries)
            except (urllib.error.URLError, *_DROPPED) as fault:
                now = part.stat().st_size if part.exists() else 0
                tries = 1 if now > before else tries + 1
                reason = fault.reason if isinstance(fault, urllib.error.URLError) else fault
                why, wait = f"{type(fault).__name__}: {reason}", min(MAX_WAIT, 2.0 ** (tries - 1))
                if isinstance(reason, socket.gaierror):
                    raise Missing(f"{url}: the server's name is not known ({reason})") from None
            if tries >= TRIES:
                have = part.stat().st_size if part.exists() else 0
                raise DataError(
                    f"{url}: given up after {tries} tries ({why}); {have:,} bytes are kept in "
                    f"{part}, and the next fetch goes on from there"
                )
            self.sleep(wait)
        os.replace(part, target)
        state.unlink(missing_ok=True)

    def _go_on(self, url: str, part: Path, state: Path, file: RawFile) -> None:
        """Get what is missing of ``part``; return when it is whole."""
        kept = _read_state(state)
        have = part.stat().st_size if part.exists() else 0
        validator = kept.get("validator", "")
        if have and (kept.get("url") != url or not validator):
            have = 0  # nothing tells whether the server still has the same file
        request = urllib.request.Request(url, headers={
            "User-Agent": _AGENT, "Accept-Encoding": "identity"})  # fmt: skip
        if have:
            request.add_header("Range", f"bytes={have}-")
            request.add_header("If-Range", validator)
        try:
            answer = _opener().open(request, timeout=self.timeout)
        except urllib.error.HTTPError as fault:
            if fault.code == 416 and have:
                if _total(fault.headers.get("Content-Range")) == have:
                    return
                raise _Changed from None
            raise
        with contextlib.closing(answer):
            resumed = have > 0 and answer.status == 206
            if resumed and not _goes_on(answer.headers.get("Content-Range"), have):
                raise _Changed
            if resumed and _validator(answer.headers) not in ("", validator):
                raise _Changed
            start = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else 0
            if not total and resumed:
                total = max(_total(answer.headers.get("Content-Range")), 0)
            _check_room(part.parent, (total or file.size) - start, url)
            state.write_text(
                json.dumps({"url": url, "validator": _validator(answer.headers), "total": total})
            )
            self._copy(answer, part, start, total, file)

    def _copy(self, answer: Any, part: Path, start: int, total: int, file: RawFile) -> None:
        done = start
        bound = total or max(4 * file.size, 1 << 40)
        self.progress.start(start)
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            out.truncate()
            while data := answer.read1(CHUNK):
                out.write(data)
                done += len(data)
                if done > bound:
                    raise DataError(f"{file.name}: the server sends more than it announced")
                self.progress.bytes(file.name, done, total)
        self.progress.end()
        if total and done < total:
            raise ConnectionResetError(f"{done:,} of {total:,} bytes came")
        self.unchecked.discard(file.name)
        if total or getattr(answer, "chunked", False):
            return  # chunks have an end of their own
        # The end of the connection is all that tells the end of the file, or that it broke off.
        if done < file.size:
            raise ConnectionResetError(
                f"{done:,} bytes came without an announced length; {file.size:,} are published"
            )
        if done != file.size:
            self.unchecked.add(file.name)


def _read_state(state: Path) -> dict[str, Any]:
    try:
        kept = json.loads(state.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _validator(headers: Any) -> str:
    """Return a strong ETag or the date of the last change: what If-Range compares."""
    etag = headers.get("ETag") or ""
    return etag if etag.startswith('"') else headers.get("Last-Modified") or ""


def _goes_on(content_range: str | None, start: int) -> bool:
    match = re.match(r"bytes (\d+)-", content_range or "")
    return match is not None and int(match[1]) == start


def _total(content_range: str | None) -> int:
    tail = (content_range or "").rpartition("/")[2]
    return int(tail) if tail.isdigit() else -1


def _retry_after(fault: urllib.error.HTTPError, tries: int) -> float:
    given = fault.headers.get("Retry-After") or ""
    wait = float(given) if given.isdigit() else 2.0 ** (tries - 1)
    return min(MAX_WAIT, wait)


def _refused(url: str, code: int) -> str:
    why = {401: "it wants a login", 403: "it may not be had", 404: "there is no such file",
           410: "it is gone"}.get(code, "it refuses")  # fmt: skip
    why = "it leads to an address that is not followed" if 300 <= code < 400 else why
    return f"{url}: the server answers {code} ({why})"


def _check_room(folder: Path, need: int, url: str) -> None:
    free = shutil.disk_usage(folder).free
    if need + SPARE > free:
        raise DataError(
            f"{url} needs {need:,} bytes, and {folder} has {free:,} free; make room, or choose "
            "another folder with --data-root"
        )


def digest(path: Path, algorithm: str) -> str:
    """Return the hex digest of the content of ``path``."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def published_checksum(url: str, timeout: float = TIMEOUT) -> str:
    """Return the 32 hex digits that the publisher keeps at ``url``, "" where it cannot be read."""
    request = urllib.request.Request(url, headers={"User-Agent": _AGENT})
    try:
        with contextlib.closing(_opener().open(request, timeout=timeout)) as answer:
            content = answer.read(4096).decode("ascii", "replace")
    except (urllib.error.URLError, DataError, *_DROPPED):
        return ""
    found = re.search(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{32}(?![0-9A-Fa-f])", content)
    return found[0].lower() if found else ""
