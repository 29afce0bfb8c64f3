"""Lines of a stream in bounded memory, whatever the stream holds."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_LINE = 16 << 20  # bytes; the longest genuine records (friends of a reviewer) stay below 1 MiB
BLOCK = 4 << 20


class Line(NamedTuple):
    """A line without its end. ``whole`` is false where it was too long; ``data`` is its start."""

    number: int
    data: bytes
    whole: bool


def read_lines(stream: BinaryIO, limit: int = MAX_LINE) -> Iterator[Line]:
    """Yield the lines of ``stream``, numbered from 1; at most ``limit`` bytes are held."""
    number = 0
    while data := stream.readline(limit + 1):
        number += 1
        if number == 1 and data.startswith(codecs.BOM_UTF8):
            data = data[len(codecs.BOM_UTF8) :]
        if len(data) <= limit or data.endswith(b"\n"):
            yield Line(number, data.rstrip(b"\r\n"), True)
            continue
        head = data[:200]
        while (rest := stream.readline(BLOCK)) and not rest.endswith(b"\n"):
            pass
        yield Line(number, head, False)


def read_blocks(stream: BinaryIO, size: int = BLOCK, limit: int = MAX_LINE) -> Iterator[bytes]:
    """Yield whole lines in blocks of about ``size`` bytes, never a part of a line.

    A line longer than ``limit`` is cut there: its pieces come as lines, and are refused as such.
    """
    kept = b""
    first = True
    while data := stream.read(size):
        if first and data.startswith(codecs.BOM_UTF8):
            data = data[len(codecs.BOM_UTF8) :]
        first = False
        data = kept + data
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
            kept = data[end:]
        elif len(data) > limit:
            yield data + b"\n"
            kept = b""
        else:
            kept = data
    if kept:
        yield kept + b"\n"


def decode(data: bytes, encoding: str) -> tuple[str, bool]:
    """Return the text of ``data`` and whether its bytes were right.

    Wrong bytes of a file that says it is UTF-8 are read as Windows Latin: that is what they are in
    the known files, and no byte is lost.
    """
    try:
        return data.decode(encoding), True
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace"), False
