"""Content-addressed vectors: what was encoded once is never encoded again.

A *space* holds the vectors of one encoder identity. Inside it, immutable segments are folders
``seg-<time>-<content hash>/{keys,vectors}.npy``, written under a temporary name and renamed, so any
number of processes may append and a killed writer leaves nothing half-written. Reads are
memory-mapped. Where two segments hold one key, the older one wins: an answer never changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

KEY = np.dtype("S16")  # the first 16 bytes of a sha256


@dataclass(frozen=True)
class VectorFault:
    """A segment that does not hold what its name says."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def text_keys(identity: str, texts: Iterable[str]) -> np.ndarray:
    """Return S16[n]: the key of each text under an encoder identity."""
    start = hashlib.sha256(identity.encode() + b"\0")
    keys = []
    for text in texts:
        h = start.copy()
        h.update(text.encode("utf-8", "surrogatepass"))
        keys.append(h.digest()[:16])
    return np.frombuffer(b"".join(keys), KEY)


def publish_once(path: Path, data: bytes) -> None:
    """Write a file that is never changed: whole or not at all, and the first writer wins.

    On a file system without hard links the last writer wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.link(temporary, path)  # unlike a rename, fails where the file is there already
    except FileExistsError:
        pass
    except OSError:
        shutil.copyfile(temporary, f"{temporary}.copy")
        os.replace(f"{temporary}.copy", path)
    finally:
        os.unlink(temporary)


class VectorStore:
    """All spaces below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def space(self, identity: str, dim: int) -> VectorSpace:
        """Return the space of an encoder identity, made on first use; ``dim`` must agree."""
        folder = self.root / hashlib.sha256(identity.encode()).hexdigest()[:16]
        meta = folder / "space.json"
        if not meta.is_file():
            publish_once(meta, json.dumps({"identity": identity, "dim": dim}).encode())
        stored = json.loads(meta.read_text(encoding="utf-8"))
        if stored["dim"] != dim:
            raise ValueError(
                f"{folder}: the space of {identity!r} holds {stored['dim']} columns, asked for "
                f"{dim}; an encoder identity has one width, so this encoder's identity is wrong"
            )
        return VectorSpace(folder, dim)

    def spaces(self) -> Iterator[tuple[str, VectorSpace]]:
        """Yield (identity, space), in folder order."""
        for meta in sorted(self.root.glob("*/space.json")):
            stored = json.loads(meta.read_text(encoding="utf-8"))
            yield stored["identity"], VectorSpace(meta.parent, stored["dim"])

    def stats(self) -> list[dict[str, object]]:
        """Return one row per space: identity, dim, vectors, segments, bytes, leftovers."""
        return [{"identity": identity, **space.stats()} for identity, space in self.spaces()]

    def verify(self, *, mend: bool = False) -> list[VectorFault]:
        """Re-hash every segment; ``mend`` sets faulty ones aside so that they are encoded again."""
        return [fault for _, space in self.spaces() for fault in space.verify(mend=mend)]


class VectorSpace:
    """Vectors float32[*, dim] of one encoder identity."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim
        self._segments: list[str] = []
        self._vectors: list[np.ndarray] = []
        self._keys = np.empty(0, KEY)  # sorted; segment and row of each
        self._place = np.empty((0, 2), np.int64)

    def lookup(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (bool[n] found, float32[n, dim]); rows not found are zero."""
        self._refresh()
        keys = np.asarray(keys, KEY)
        out = np.zeros((len(keys), self.dim), np.float32)
        if not len(self._keys) or not len(keys):
            return np.zeros(len(keys), bool), out
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = self._keys[at] == keys
        segment, row = self._place[at].T
        for s in np.unique(segment[found]):
            wanted = np.flatnonzero(found & (segment == s))
            wanted = wanted[np.argsort(row[wanted], kind="stable")]  # read the map in file order
            out[wanted] = self._vectors[s][row[wanted]]
        return found, out

    def append(self, keys: np.ndarray, vectors: np.ndarray) -> Path | None:
        """Store new rows as one segment and return its folder; None where there are no rows.

        Raises ``ValueError`` for another width or a vector that is not finite.
        """
        keys, first = np.unique(np.asarray(keys, KEY), return_index=True)
        vectors = np.ascontiguousarray(np.asarray(vectors, np.float32)[first])
        if not len(keys):
            return None
        if vectors.shape != (len(keys), self.dim):
            raise ValueError(f"expected vectors of width {self.dim}, got shape {vectors.shape}")
        bad = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(bad):
            raise ValueError(
                f"{len(bad)} of {len(vectors)} vectors hold NaN or infinity; nothing was stored. "
                "The encoder is broken for these texts (try float32)"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"seg-{time.time_ns():020d}-{_hash(keys, vectors)}"
        return self._publish(name, keys, vectors)

    def compact(self) -> int:
        """Merge all segments into one and return how many there were.

        The merged segment takes the oldest one's place before the others go, so readers and
        writers may go on meanwhile. A killed compaction leaves copies, never losses.
        """
        self._refresh()
        old = list(self._segments)
        if len(old) < 2:
            return len(old)
        vectors = np.empty((len(self._keys), self.dim), np.float32)
        for s in range(len(old)):
            mine = self._place[:, 0] == s
            vectors[mine] = self._vectors[s][self._place[mine, 1]]
        stamp = old[0].split("-")[1]
        merged = self._publish(f"seg-{stamp}-{_hash(self._keys, vectors)}", self._keys, vectors)
        for name in old:
            if name != merged.name:  # an interrupted compaction may have left the merged one
                self._remove(name)
        return len(old)

    def stats(self) -> dict[str, object]:
        self._refresh()
        files = [f for s in self._segments for f in (self.folder / s).iterdir()]
        return {
            "dim": self.dim,
            "vectors": len(self._keys),
            "segments": len(self._segments),
            "bytes": sum(f.stat().st_size for f in files),
            "leftovers": len(list(self.folder.glob(".*-*"))),
        }

    def verify(self, *, mend: bool = False) -> list[VectorFault]:
        """Return the segments whose content does not match their name, width or finiteness."""
        faults = []
        for path in sorted(self.folder.glob("seg-*")):
            problem = self._problem(path)
            if problem:
                faults.append(VectorFault(path, problem))
                if mend:
                    os.replace(path, path.with_name(f".bad-{path.name}"))
        return faults

    def _problem(self, path: Path) -> str:
        try:
            keys = np.load(path / "keys.npy", allow_pickle=False)
            vectors = np.load(path / "vectors.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            return f"cannot be read: {error}"
        if keys.dtype != KEY or vectors.shape != (len(keys), self.dim):
            return f"keys {keys.dtype}[{len(keys)}], vectors {vectors.shape}, width {self.dim}"
        if _hash(keys, vectors) != path.name.split("-")[2]:
            return "the content is not what was written"
        return "" if np.isfinite(vectors).all() else "NaN or infinity"

    def _publish(self, name: str, keys: np.ndarray, vectors: np.ndarray) -> Path:
        temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".tmp-"))
        for part, array in (("keys", keys), ("vectors", vectors)):
            with (temporary / f"{part}.npy").open("wb") as out:
                np.save(out, array, allow_pickle=False)
                out.flush()
                os.fsync(out.fileno())
        target = self.folder / name
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(temporary)  # another process published the same content
        return target

    def _remove(self, name: str) -> None:
        aside = self.folder / f".old-{name}"
        try:
            os.replace(self.folder / name, aside)  # at once: no reader sees half a segment
        except FileNotFoundError:
            return  # another compaction was faster
        shutil.rmtree(aside, ignore_errors=True)

    def _refresh(self) -> None:
        for _ in range(5):
            names = sorted(p.name for p in self.folder.glob("seg-*"))
            if names == self._segments:
                return
            try:
                return self._open(names)
            except FileNotFoundError as error:  # compacted away since the listing: look again
                missing = error
        raise ValueError(f"{missing.filename} is missing; `llmers store verify` sets it aside")

    def _open(self, names: list[str]) -> None:
        maps = dict(zip(self._segments, self._vectors, strict=True))
        keys: list[np.ndarray] = []
        for name in names:
            try:
                keys.append(np.load(self.folder / name / "keys.npy", allow_pickle=False))
                if name not in maps:
                    maps[name] = _mapped(self.folder / name / "vectors.npy")
            except (ValueError, EOFError) as error:
                raise ValueError(
                    f"{self.folder / name}: {error}; `llmers store verify` sets it aside"
                ) from error
        self._segments, self._vectors = names, [maps[n] for n in names]
        self._index(keys)

    def _index(self, keys: Sequence[np.ndarray]) -> None:
        every = np.concatenate([np.empty(0, KEY), *keys])
        sizes = [len(k) for k in keys]
        segment = np.repeat(np.arange(len(keys)), sizes)
        row = np.concatenate([np.empty(0, np.int64), *(np.arange(n) for n in sizes)])
        self._keys, first = np.unique(every, return_index=True)  # the oldest segment's row
        self._place = np.stack([segment[first], row[first]], axis=1)


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _hash(keys: np.ndarray, vectors: np.ndarray) -> str:
    h = hashlib.sha256(f"{vectors.shape}".encode())
    h.update(np.ascontiguousarray(keys).tobytes())
    h.update(np.ascontiguousarray(vectors).tobytes())
    return h.hexdigest()[:16]
