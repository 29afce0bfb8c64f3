"""The form of stored vectors: keys, the hash of a segment, row checksums, what names a space."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .formats import VECTORS, StoreError, check_format

KEY = np.dtype("S16")  # the first 16 bytes of a sha256


def text_keys(identity: str, texts: Iterable[str]) -> np.ndarray:
    """Return S16[n]: the key of each text under an encoder identity."""
    start = hashlib.sha256(identity.encode() + b"\0")
    keys = []
    for text in texts:
        h = start.copy()
        h.update(text.encode("utf-8", "surrogatepass"))
        keys.append(h.digest()[:16])
    return np.frombuffer(b"".join(keys), KEY)


def row_sums(keys: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return uint32[n]: the CRC-32 of each key followed by its vector."""
    out = np.empty(len(keys), np.uint32)
    for start in range(0, len(keys), 8192):
        part = slice(start, start + 8192)
        key = np.ascontiguousarray(keys[part]).view(np.uint8).reshape(-1, KEY.itemsize)
        row = np.ascontiguousarray(vectors[part], np.float32).view(np.uint8).reshape(len(key), -1)
        width = KEY.itemsize + row.shape[1]
        raw = memoryview(np.concatenate([key, row], axis=1).tobytes())
        out[part] = [zlib.crc32(raw[i : i + width]) for i in range(0, len(raw), width)]
    return out


def content_hash(keys: np.ndarray, vectors: np.ndarray) -> str:
    """Return the 16 hexadecimal digits that a segment of these rows carries in its name."""
    h = hashlib.sha256(f"{vectors.shape}".encode())
    h.update(np.ascontiguousarray(keys).tobytes())
    h.update(np.ascontiguousarray(vectors).tobytes())
    return h.hexdigest()[:16]


def read_space(path: Path) -> dict[str, Any]:
    """Return the description of a space; ``FormatError`` for a newer form, ``StoreError``."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        identity, dim = stored["identity"], stored["dim"]
        whole = hashlib.sha256(identity.encode()).hexdigest()[:16] == path.parent.name
        if not whole or not isinstance(dim, int):
            raise ValueError("its identity is not that of its folder")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: damaged ({error}); move the folder {path.parent} away and its texts are "
            "encoded again"
        ) from error
    check_format(path, "a vector space", stored.get("format", 1), VECTORS)
    return stored
