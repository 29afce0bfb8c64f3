"""The raw files of a public data set: a local copy first, else a download; checked either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..schema import DataError
from .archives import local_file
from .describe import PublicSet, RawFile
from .download import Download, Missing, digest, published_checksum

_WEB_PAGE = (b"<!do", b"<htm", b"<?xm", b"<HTM", b"<!DO")


@dataclass
class Obtained:
    """What was found or fetched. ``warnings`` are for a person, ``files`` for the manifest."""

    files: list[dict[str, object]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def missing_files(source: PublicSet, raw: Path) -> list[RawFile]:
    """Return the files of which ``raw`` has no copy."""
    return [f for f in source.files if local_file(raw, f.name) is None]


def obtain(source: PublicSet, raw: Path, download: Download, agree: Callable[[], bool]) -> Obtained:
    """Make sure that ``raw`` holds every file of ``source``, and check them.

    ``agree`` is asked once, before the first download, whether the terms are accepted. A file that
    fails its check is moved to ``raw/quarantine``. Raises ``DataError`` with what a person must do.
    """
    missing = missing_files(source, raw)
    if missing and (source.manual or not all(f.urls for f in missing)):
        raise DataError(_by_hand(source, raw, missing))
    if missing and not agree():
        raise DataError(
            f"the terms of {source.title} were not accepted, so nothing was downloaded; read them "
            f"({source.terms_url}) and add --accept-terms"
        )
    raw.mkdir(parents=True, exist_ok=True)
    found = Obtained()
    fetched = {f.name for f in missing}
    for file in missing:
        try:
            download.fetch(file, raw)
        except Missing as fault:
            raise DataError(
                f"{fault}. Look for the file at {source.page}, and put it into {raw} as {file.name}"
            ) from None
    for file in source.files:
        _check(source, file, raw, found, fresh=file.name in fetched)
        if file.name in download.unchecked and not found.files[-1]["checked"]:
            found.warnings.append(
                f"{file.name}: its length could not be checked: the server announced none, and no "
                f"{'such size' if file.size else 'size'} or checksum is published. If the "
                f"connection broke off, it is cut; compare with {source.page}"
            )
    return found


def _by_hand(source: PublicSet, raw: Path, missing: list[RawFile]) -> str:
    names = " and ".join(f.name for f in missing)
    how = (source.manual or f"Get {names} from {source.page}.").replace("{files}", names)
    return (
        f"{source.title} must be downloaded by a person. {how} Put "
        f"{'them' if len(missing) > 1 else 'it'} into {raw}, then run this again. "
        f"Terms: {source.terms} ({source.terms_url})"
    )


def _check(
    source: PublicSet, file: RawFile, raw: Path, found: Obtained, *, fresh: bool
) -> None:  # fmt: skip
    path = local_file(raw, file.name)
    assert path is not None  # it was there or was fetched
    if path.is_dir() or path.name != file.name:
        found.warnings.append(f"{path} is not the published file itself: it could not be checked")
        found.files.append({"name": str(path.name), "checked": False})
        return
    _refuse_web_page(path, file, source)
    algorithm, wanted = file.checksum()
    published = file.published
    if fresh and not wanted and file.checksum_url:
        algorithm, wanted, published = "md5", published_checksum(file.checksum_url), True
        if not wanted:
            found.warnings.append(f"{file.checksum_url} has no checksum: {file.name} is unchecked")
    sha256 = digest(path, "sha256")
    actual = sha256 if algorithm == "sha256" else digest(path, algorithm) if wanted else ""
    if wanted and actual != wanted and published:
        place = _quarantine(path, actual)
        raise DataError(
            f"{file.name} has the {algorithm} {actual}, but its publisher gives {wanted}: it is "
            f"damaged, changed or not the real one. It was moved to {place}; fetch it again, or "
            f"compare with {source.page}"
        )
    if wanted and actual != wanted:
        found.warnings.append(
            f"{file.name} has the {algorithm} {actual}; others recorded {wanted}. Its publisher "
            "gives none, so it is used: it may be another edition"
        )
    found.files.append(
        {"name": file.name, "size": path.stat().st_size, "sha256": sha256,
         "checked": bool(wanted) and actual == wanted}
    )  # fmt: skip


def _refuse_web_page(path: Path, file: RawFile, source: PublicSet) -> None:
    """Some servers answer with a page (a login, a notice) where a file should be."""
    with path.open("rb") as stream:
        head = stream.read(4)
    if head in _WEB_PAGE or not head:
        place = _quarantine(path, "page")
        what = "empty" if not head else "a web page"
        raise DataError(
            f"{file.name} is {what}, not the file. It was moved to {place}; get the file from "
            f"{source.page} and put it into {path.parent}"
        )


def _quarantine(path: Path, mark: str) -> Path:
    folder = path.parent / "quarantine"
    folder.mkdir(exist_ok=True)
    place = folder / f"{path.name}.{mark[:12]}"
    path.replace(place)
    return place
