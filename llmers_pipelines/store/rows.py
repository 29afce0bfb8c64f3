"""The row of a stored answer: its columns, its key and its checksums.

The checksum of a row is 32 hexadecimal digits: 16 of the answer (with its key), so that reading an
answer proves it without reading the prompt, and 16 of what is recorded beside it. The request and
the identity need none: their hash is the key. Rows of format 1 have 16 digits over all of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

SCHEMA = pa.schema([
    ("key", pa.string()),  # 64 hexadecimal digits
    ("key64", pa.uint64()),  # the first 16 of them as a number: what the anti-join compares
    ("low64", pa.uint64()),  # the next 16
    ("text", pa.string()),  # the raw answer
    ("finish_reason", pa.string()),
    ("tokens_in", pa.int32()),
    ("tokens_out", pa.int32()),
    ("request", pa.string()),  # canonical JSON: messages, sampling, seed, schema
    ("identity", pa.string()),  # weights + adapter + tokenizer
    ("engine", pa.string()),
    ("model", pa.string()),
    ("libraries", pa.string()),  # JSON object name -> version
    ("task", pa.string()),
    ("prompt_revision", pa.string()),
    ("row_id", pa.string()),  # the first row that asked
    ("created", pa.timestamp("us", tz="UTC")),
    ("checksum", pa.string()),
])  # fmt: skip
ANSWER = ("key", "text", "finish_reason", "tokens_in", "tokens_out")
ASKED = ("request", "identity")
BESIDE = ("engine", "model", "libraries", "task", "prompt_revision", "row_id")
REPEATING = ("finish_reason", "identity", *BESIDE[:-1])  # few different values per segment
MOST_TOKENS = 2**31 - 1  # of one answer
_OLD = (*ANSWER, *ASKED)


class Answer(NamedTuple):
    """A stored answer. ``text`` is raw: parsing belongs to the prompt task."""

    key: str
    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int


def response_key(identity: str, request: str) -> str:
    """Return the key of ``request`` (canonical JSON) asked of the model ``identity``."""
    if "\n" in identity:
        raise ValueError(f"the identity {identity!r} holds a line break, which ends it in a key")
    return hashlib.sha256(f"{identity}\n{request}".encode()).hexdigest()


def answer_sum(key: bytes, text: bytes, finish: bytes, read: int, written: int) -> str:
    """Return the first half of a row's checksum."""
    head = b"%b %d %d %d " % (key, read, written, len(finish))
    return hashlib.sha256(head + finish + text).hexdigest()[:16]


def beside_sum(answer: str, created: int, beside: tuple[str | None, ...]) -> str:
    """Return the second half; ``created`` in microseconds, ``beside`` in the order of BESIDE."""
    parts = ["-" if part is None else f"{len(part)}:{part}" for part in beside]
    content = f"{answer} {created} {''.join(parts)}"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def row_checksum(row: Mapping[str, Any]) -> str:
    """Return the checksum of a whole row; ``created`` in microseconds."""
    first = answer_sum(
        row["key"].encode(), row["text"].encode(), row["finish_reason"].encode(),
        row["tokens_in"], row["tokens_out"],
    )  # fmt: skip
    return first + beside_sum(first, row["created"], tuple(row[name] for name in BESIDE))


def old_checksum(row: Mapping[str, Any]) -> str:
    """Return the checksum of a row of format 1."""
    parts = [str(row[name]) for name in _OLD]
    content = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def key_numbers(key: str) -> tuple[int, int]:
    """Return the first and the second 64 bits of a key."""
    return int(key[:16], 16), int(key[16:32], 16)


def storable(tokens: int) -> int:
    """Return a token count that a row can hold, the nearest one."""
    return min(max(int(tokens), 0), MOST_TOKENS)


def encodable(text: str) -> str:
    """Return ``text`` without lone surrogates, which UTF-8 and so Parquet cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
