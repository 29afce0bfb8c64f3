"""Content-addressed vectors: what was encoded once is never encoded again.

A *space* holds the vectors of one encoder identity. Inside it, immutable segments are folders
``seg-<time>-<content hash>/{keys,vectors}.npy``, written under a temporary name and renamed, so any
number of processes may append and a killed writer leaves nothing half-written. Reads are
memory-mapped. Where two segments hold one key, the older one wins: an answer never changes.

``sums.npy`` holds a CRC-32 of each row with its key; a row that fails it, and a segment that cannot
be read, count as absent and are encoded again. Older segments have the hash in their name alone,
which is checked when they are opened.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from .formats import StoreError
from .salvage import set_aside
from .vector_form import KEY, content_hash, read_space, row_sums, space_form, text_keys

__all__ = ["KEY", "VectorSpace", "VectorStore", "publish_once", "text_keys"]
_log = logging.getLogger(__name__)
# What a damaged array may raise: numpy reads its header as Python literals.
_BROKEN = (OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError, TypeError,
           KeyError, TokenError)  # fmt: skip


@dataclass(frozen=True)
class VectorFault:
    """A segment that does not hold what its name says."""

    path: Path
    problem: str
    rows: int = 0  # vectors to encode again, as far as it is known

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


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
            publish_once(meta, space_form(identity, dim))
        stored = read_space(meta)
        if stored["dim"] != dim:
            raise ValueError(
                f"{folder}: the space of {identity!r} holds {stored['dim']} columns, asked for "
                f"{dim}; an encoder identity has one width, so this encoder's identity is wrong"
            )
        return VectorSpace(folder, dim)

    def spaces(self) -> Iterator[tuple[str, VectorSpace]]:
        """Yield (identity, space), in folder order."""
        for meta in sorted(self.root.glob("*/space.json")):
            yield self.open(meta)

    @staticmethod
    def open(meta: Path) -> tuple[str, VectorSpace]:
        """Return (identity, space) of one ``space.json``."""
        stored = read_space(meta)
        return stored["identity"], VectorSpace(meta.parent, stored["dim"])

    def stats(self) -> list[dict[str, object]]:
        """Return one row per space: identity, dim, vectors, segments, bytes, leftovers."""
        return [{"identity": identity, **space.stats()} for identity, space in self.spaces()]

    def verify(self, *, mend: bool = False, into: Path | None = None) -> list[VectorFault]:
        """Re-hash every segment; ``mend`` sets faulty ones aside so that they are encoded again."""
        return [f for _, space in self.spaces() for f in space.verify(mend=mend, into=into)]


class VectorSpace:
    """Vectors float32[*, dim] of one encoder identity."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim
        self._segments: list[str] = []
        self._vectors: list[np.ndarray] = []
        self._sums: list[np.ndarray | None] = []
        self._own: list[np.ndarray] = []  # keys of each segment
        self._dead: set[tuple[str, int]] = set()  # rows that fail their checksums
        self._bad: dict[str, str] = {}  # what was told about a segment
        self._keys = np.empty(0, KEY)  # sorted; segment and row of each
        self._place = np.empty((0, 2), np.int64)

    def lookup(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (bool[n] found, float32[n, dim]); rows not found are zero."""
        self._refresh()
        keys = np.asarray(keys, KEY)
        while True:
            found, out, bad = self._read(keys)
            if not bad:
                return found, out
            self._dead |= bad  # a later segment may hold these rows whole
            self._index()

    def _read(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, set[tuple[str, int]]]:
        """Return found, vectors, and the (segment, row) that fail their checksums."""
        out = np.zeros((len(keys), self.dim), np.float32)
        bad: set[tuple[str, int]] = set()
        if not len(self._keys) or not len(keys):
            return np.zeros(len(keys), bool), out, bad
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = self._keys[at] == keys
        segment, row = self._place[at].T
        for s in np.unique(segment[found]):
            wanted = np.flatnonzero(found & (segment == s))
            wanted = wanted[np.argsort(row[wanted], kind="stable")]  # read the map in file order
            out[wanted] = self._vectors[s][row[wanted]]
            sums = self._sums[s]
            if sums is not None:
                fails = row_sums(self._keys[at[wanted]], out[wanted]) != sums[row[wanted]]
                bad |= {(self._segments[s], int(r)) for r in row[wanted[fails]]}
                if fails.any():
                    self._tell(self._segments[s], f"{fails.sum()} rows fail their checksums")
        return found, out, bad

    def _tell(self, name: str, problem: str) -> None:
        if self._bad.get(name) != problem:
            self._bad[name] = problem
            _log.warning("%s is damaged (%s); its texts are encoded again; see `llmers store "
                         "verify`", self.folder / name, problem)  # fmt: skip

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
        name = f"seg-{time.time_ns():020d}-{content_hash(keys, vectors)}"
        return self._publish(name, keys, vectors)

    def compact(self) -> int:
        """Merge all segments into one and return how many there were.

        The merged segment takes the oldest one's place before the others go, so readers and
        writers may go on meanwhile. A killed compaction leaves copies, never losses. Damaged
        segments stay for ``verify``.
        """
        self._refresh()
        whole = [s for s, name in enumerate(self._segments) if not self._problem(name)]
        if len(whole) < 2:
            return len(whole)
        self._rewrite(whole, np.isin(self._place[:, 0], whole))
        return len(whole)

    def unneeded(self, keys: np.ndarray) -> int:
        """Return how many vectors have a key that is not among ``keys``."""
        self._refresh()
        return int((~np.isin(self._keys, np.asarray(keys, KEY))).sum())

    def keep_only(self, keys: np.ndarray) -> None:
        """Drop every vector whose key is not among ``keys``; damaged segments stay."""
        self._refresh()
        whole = [s for s, name in enumerate(self._segments) if not self._problem(name)]
        mine = np.isin(self._place[:, 0], whole)
        self._rewrite(whole, mine & np.isin(self._keys, np.asarray(keys, KEY)))

    def _rewrite(self, segments: list[int], keep: np.ndarray) -> None:
        """Put the rows ``keep`` of the index into one segment in the place of ``segments``."""
        keys, place = self._keys[keep], self._place[keep]
        vectors = np.empty((len(keys), self.dim), np.float32)
        for s in segments:
            mine = place[:, 0] == s
            vectors[mine] = self._vectors[s][place[mine, 1]]
        old = [self._segments[s] for s in segments]
        merged = ""
        if len(keys):
            stamp = old[0].split("-")[1]
            merged = self._publish(f"seg-{stamp}-{content_hash(keys, vectors)}", keys, vectors).name
        for name in old:
            if name != merged:  # an interrupted compaction may have left the merged one
                self._remove(name)

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

    def verify(self, *, mend: bool = False, into: Path | None = None) -> list[VectorFault]:
        """Return the segments whose content does not match their name, width or finiteness.

        ``mend`` sets them aside (below ``into``, else beside the others) and keeps the rows that
        match their checksums.
        """
        faults = []
        for path in sorted(self.folder.glob("seg-*")):
            problem = self._problem(path.name)
            if problem:
                keys, vectors = self._good_rows(path)
                known = len(self._part(path, "keys", ()))
                faults.append(VectorFault(path, problem, max(known - len(keys), 0)))
                if mend:
                    self._set_aside(path, problem, into)
                    if len(keys):
                        stamp = path.name.split("-")[1]
                        self._publish(f"seg-{stamp}-{content_hash(keys, vectors)}", keys, vectors)
        return faults

    def _set_aside(self, path: Path, problem: str, into: Path | None) -> None:
        if into is None:
            os.replace(path, path.with_name(f".bad-{path.name}"))
        else:
            set_aside(path, into, {"path": path, "problem": problem})

    def _good_rows(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return what of a faulty segment its row checksums prove; nothing where it has none."""
        keys, sums = self._part(path, "keys", ()), self._part(path, "sums", ())
        vectors = self._part(path, "vectors", (self.dim,))
        if not len(keys) == len(vectors) == len(sums) or keys.dtype != KEY:
            return np.empty(0, KEY), np.empty((0, self.dim), np.float32)
        good = (row_sums(keys, vectors) == sums) & np.isfinite(vectors).all(1)
        keys, first = np.unique(keys[good], return_index=True)
        return keys, np.ascontiguousarray(vectors[good][first])

    def _part(self, path: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of a faulty segment; empty where it cannot be read or is another one."""
        kind = {"keys": KEY, "vectors": np.dtype(np.float32), "sums": np.dtype(np.uint32)}[name]
        try:
            found = np.load(path / f"{name}.npy", allow_pickle=False)
        except _BROKEN:
            return np.empty((0, *shape), kind)
        fits = found.dtype == kind and found.shape[1:] == shape and found.ndim == 1 + len(shape)
        return found if fits else np.empty((0, *shape), kind)

    def _problem(self, name: str) -> str:
        path = self.folder / name
        try:
            keys = np.load(path / "keys.npy", allow_pickle=False)
            vectors = np.load(path / "vectors.npy", allow_pickle=False)
            if keys.dtype != KEY or vectors.shape != (len(keys), self.dim):
                return f"keys {keys.dtype}[{len(keys)}], vectors {vectors.shape}, width {self.dim}"
            if content_hash(keys, vectors) != name.split("-")[2]:
                return "the content is not what was written"
            if (path / "sums.npy").is_file():
                sums = np.load(path / "sums.npy", allow_pickle=False)
                if not np.array_equal(sums, row_sums(keys, vectors)):
                    return "the row checksums are not what was written"
        except _BROKEN as error:
            return f"cannot be read: {error}"
        return "" if np.isfinite(vectors).all() else "NaN or infinity"

    def _publish(self, name: str, keys: np.ndarray, vectors: np.ndarray) -> Path:
        temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".tmp-"))
        parts = {"keys": keys, "vectors": vectors, "sums": row_sums(keys, vectors)}
        for part, array in parts.items():
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
        raise StoreError(f"{missing.filename} is missing; `llmers store verify` sets it aside")

    def _open(self, names: list[str]) -> None:
        old = {n: (v, s) for n, v, s in zip(self._segments, self._vectors, self._sums, strict=True)}
        keys: list[np.ndarray] = []
        parts: list[tuple[np.ndarray, np.ndarray | None]] = []
        for name in names:
            own, part = np.empty(0, KEY), (np.empty((0, self.dim), np.float32), None)
            try:
                own = np.load(self.folder / name / "keys.npy", allow_pickle=False)
                part = old[name] if name in old else self._mapped(name)
                if own.dtype != KEY or part[0].shape != (len(own), self.dim):
                    raise ValueError(f"keys {own.dtype}[{len(own)}], vectors {part[0].shape}")
                if part[1] is not None and part[1].shape != own.shape:
                    raise ValueError(f"{len(own)} keys, checksums {part[1].shape}")
            except FileNotFoundError:
                if (self.folder / name).is_dir():
                    self._tell(name, "a file is missing")
                    own, part = np.empty(0, KEY), (np.empty((0, self.dim), np.float32), None)
                else:
                    raise
            except _BROKEN as error:
                self._tell(name, str(error))
                own, part = np.empty(0, KEY), (np.empty((0, self.dim), np.float32), None)
            keys.append(own)
            parts.append(part)
        self._segments = names
        self._vectors, self._sums = [p[0] for p in parts], [p[1] for p in parts]
        self._own = keys
        self._index()

    def _mapped(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return vectors, mapped, and their checksums; a segment without is hashed now."""
        folder = self.folder / name
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        if (folder / "sums.npy").is_file():
            return vectors, np.load(folder / "sums.npy", allow_pickle=False)
        if problem := self._problem(name):
            raise ValueError(problem)
        return vectors, None

    def _index(self) -> None:
        every = np.concatenate([np.empty(0, KEY), *self._own])
        sizes = [len(k) for k in self._own]
        segment = np.repeat(np.arange(len(sizes)), sizes)
        row = np.concatenate([np.empty(0, np.int64), *(np.arange(n) for n in sizes)])
        dead = [(s, r) for s, name in enumerate(self._segments) for n, r in self._dead if n == name]
        if dead:
            start = np.concatenate([[0], np.cumsum(sizes)])
            live = np.ones(len(every), bool)
            live[[start[s] + r for s, r in dead]] = False
            every, segment, row = every[live], segment[live], row[live]
        self._keys, first = np.unique(every, return_index=True)  # the oldest segment's row
        self._place = np.stack([segment[first], row[first]], axis=1)
