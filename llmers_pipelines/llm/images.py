"""From a cell of an image column to a picture, or to the reason why there is none.

A cell is a path below the data set's folder, or an address of the web. What was fetched is kept by
content below ``images/files``; a later run reads it from there without the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..images import ImageSettings
from .image_fetch import Fetched, FetchError, checked, fetch
from .image_index import Address, ImageIndex, Pixels
from .pictures import Picture, PictureError, decoded, decoder, pixels_sha256, read_bounded

Fetch = Callable[..., Fetched]
_DAY = 86_400.0
_FETCHES = 8  # at once


@dataclass(frozen=True)
class NoPicture:
    """A cell without a usable picture; ``reason`` says why."""

    reason: str


class ImageReader:
    """Reads the pictures of one data set. ``folder``: its own; ``cache``: where files are kept.

    Never raises for a cell: a fault is that cell's ``NoPicture``. Each cell is looked at once.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        settings: ImageSettings = ImageSettings(),
        *,
        offline: bool = True,
        fetch: Fetch = fetch,
    ) -> None:
        self.folder = folder
        self.cache = cache
        self.settings = settings
        self.offline = offline
        self.index = ImageIndex(cache / "index.sqlite")
        self._fetch = fetch
        self._seen: dict[str, Picture | NoPicture] = {}

    def look(self, cell: Any) -> Picture | NoPicture:
        """Return the picture that a cell names, or why there is none."""
        name = "" if cell is None or cell != cell else str(cell).strip()
        if not name:
            return NoPicture("the row names none")
        if name not in self._seen:
            try:
                self._seen[name] = self._picture(name)
            except (PictureError, FetchError) as error:
                self._seen[name] = NoPicture(f"{_shown(name)}: {error}")
        return self._seen[name]

    def warm(self, cells: Iterable[Any]) -> None:
        """Look at the addresses among ``cells``, several at once."""
        names = {str(c).strip() for c in cells if c is not None and _is_address(str(c).strip())}
        if names and self.settings.fetch and not self.offline:
            with ThreadPoolExecutor(_FETCHES) as pool:
                list(pool.map(self.look, sorted(names)))

    def version(self, cells: Iterable[Any]) -> str:
        """Return a hash of the files that ``cells`` name, as far as it is known without a fetch.

        It changes with a file's content, and where an address gave other content, or none, since.
        """
        digest = hashlib.sha256(self.settings.seen.encode())
        names = {str(c).strip() for c in cells if c is not None and c == c}
        for name in sorted(names):
            if _is_address(name):
                found = self.index.address(name)
                state = "" if found is None else "failed" if found.error else str(found.changes)
                state = "" if state == "0" else state
            else:
                try:
                    state = self._source(self._local(name))
                except PictureError:
                    state = "none"
            digest.update(f"{name}\n{state}\n".encode("utf-8", "replace"))
        return digest.hexdigest()[:16]

    def _picture(self, name: str) -> Picture:
        if _is_address(name):
            source, path = self._fetched(name)
        else:
            path = self._local(name)
            source = self._source(path)
        how = f"{self.settings.seen},{decoder()}"
        known = self.index.pixels(source, how)
        if known is None:
            known = self._decoded(path)
            self.index.put_pixels(source, how, known)
        if known.error:
            raise PictureError(known.error)
        return Picture(known.sha256, known.width, known.height, name, path, self.settings)

    def _decoded(self, path: Path) -> Pixels:
        try:
            image = decoded(read_bounded(path, self.settings), self.settings)
        except PictureError as error:
            return Pixels("", 0, 0, str(error))
        return Pixels(pixels_sha256(image), *image.size)

    def _local(self, name: str) -> Path:
        """Return the file below the data set's folder; ``PictureError`` for any other."""
        if "\0" in name or Path(name).is_absolute() or "://" in name:
            raise PictureError("pictures are paths below the data set's folder, or http addresses")
        root = self.folder.resolve()
        try:
            path = (root / name).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise PictureError("there is no such file in the data set's folder") from error
        if not path.is_relative_to(root):
            raise PictureError("the path leads out of the data set's folder")
        if not path.is_file():
            raise PictureError("it is no file")
        return path

    def _source(self, path: Path) -> str:
        """Return the hash of a file's bytes, remembered by its size and time."""
        try:
            state = path.stat()
            if known := self.index.file(str(path), state.st_size, state.st_mtime_ns):
                return known
        except OSError as error:
            raise PictureError(f"the file cannot be read ({error.strerror})") from error
        found = hashlib.sha256(read_bounded(path, self.settings)).hexdigest()
        self.index.put_file(str(path), state.st_size, state.st_mtime_ns, found)
        return found

    def _fetched(self, url: str) -> tuple[str, Path]:
        """Return hash and place of what an address holds, from the cache or from the web."""
        checked(url)
        known = self.index.address(url)
        have = known is not None and known.sha256 and self._kept(known.sha256).is_file()
        due = self.settings.refresh_days and known is not None and (
            time.time() - known.fetched > self.settings.refresh_days * _DAY
        )  # fmt: skip
        may = self.settings.fetch and not self.offline
        if known is not None and have and not (due and may):
            return known.sha256, self._kept(known.sha256)
        if not may:
            raise FetchError(
                "it was not fetched before, and nothing is fetched now; set llmers.offline = false "
                "and images.fetch = true"
            )
        try:
            found = self._fetch(url, self.settings, etag=known.etag if known and have else "")
            return self._keep(url, known if have else None, found)
        except (FetchError, PictureError) as error:
            if known is not None and have:  # the web is away; what was there still stands
                return known.sha256, self._kept(known.sha256)
            self.index.put_address(url, Address("", error=str(error)))
            raise

    def _keep(self, url: str, known: Address | None, found: Fetched) -> tuple[str, Path]:
        if found.data is None and known is not None:
            sha, changes = known.sha256, known.changes
        else:
            data = found.data or b""
            decoded(data, self.settings)  # what is no picture is not kept
            sha = hashlib.sha256(data).hexdigest()
            changes = known.changes + (sha != known.sha256) if known else 0
            _write(self._kept(sha), data)
        self.index.put_address(url, Address(sha, found.etag, time.time(), changes))
        return sha, self._kept(sha)

    def _kept(self, sha256: str) -> Path:
        return self.cache / "files" / sha256[:2] / sha256


def _shown(name: str) -> str:
    """Return a cell for a message: an address without the user and the password that it holds."""
    if "://" not in name or "@" not in name:
        return name[:200]
    scheme, _, rest = name.partition("://")
    place = re.match(r"[^/?#]*", rest)[0]  # type: ignore[index]
    if "@" not in place and ":" in place and not place.rpartition(":")[2].isdigit():
        place = rest  # a slash in a password: what stands before the last @ is not shown
    hidden = place.rpartition("@")[0]
    shown = f"[hidden]{rest[len(hidden):]}" if hidden else rest
    return f"{scheme}://{shown}"[:200]


def _is_address(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def _write(path: Path, data: bytes) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)
