"""The form of stored vectors: keys, the hash of a segment, row checksums, what names a space."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .formats import VECTORS, StoreError, sealed, unsealed

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


def space_form(identity: str, dim: int) -> bytes:
    """Return the content of ``space.json``."""
    return json.dumps(sealed({"identity": identity, "dim": dim}, VECTORS)).encode()


def read_space(path: Path) -> dict[str, Any]:
    """Return identity, dim and format of a space; ``FormatError`` for a newer form, ``StoreError``.

    Its folder's name proves the identity; since format 3 a checksum proves the rest.
    """
    try:
        return parsed_space(path, path.read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: damaged ({error}); `llmers store verify --quarantine` restores it where it "
            f"can, else it moves the folder {path.parent} away and its texts are encoded again"
        ) from error


def parsed_space(path: Path, raw: bytes) -> dict[str, Any]:
    """Return what ``raw`` says of the space at ``path``; ``ValueError`` and its like if damaged."""
    version, body = unsealed(path, "a vector space", json.loads(raw), known=VECTORS, bare=2)
    if set(body) != {"identity", "dim"} or type(body["dim"]) is not int or body["dim"] < 1:
        raise ValueError("it does not name an identity and a width")
    if hashlib.sha256(body["identity"].encode()).hexdigest()[:16] != path.parent.name:
        raise ValueError("its identity is not that of its folder")
    return {**body, "format": version}
