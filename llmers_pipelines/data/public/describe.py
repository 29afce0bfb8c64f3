"""The description of a public data set: terms, address, checksums, published counts, tables."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..schema import DataError
from ..strict_toml import Section, near

FOLDER = Path(__file__).parent / "sets"
PARSERS = (
    "amazon", "bookcrossing", "goodreads", "lastfm", "mind", "movielens", "movielens_dat", "steam",
    "yelp",
)  # fmt: skip
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([KM]?)")
_UNIT = {"": 1, "K": 1_000, "M": 1_000_000}


@dataclass(frozen=True)
class Count:
    """A published count; ``slack`` is the half unit of a rounded one such as "701.5K"."""

    text: str
    value: float
    slack: float

    def matches(self, found: int) -> bool:
        return abs(found - self.value) <= self.slack


def read_count(value: int | str) -> Count:
    """Return the count written as 100000, "701.5K" or "2.5M"."""
    match = _COUNT.fullmatch(str(value))
    if not match:
        raise DataError(f"count {value!r}: expected a number, or one like 701.5K")
    number, unit = match.groups()
    scale = _UNIT[unit]
    exact = 0.0 if scale == 1 else scale * 10.0 ** -len(number.partition(".")[2]) / 2
    return Count(str(value), float(number) * scale, exact)


@dataclass(frozen=True)
class RawFile:
    """One file as its publisher gives it."""

    name: str
    urls: tuple[str, ...] = ()  # tried in order; none: a person must get it
    size: int = 0  # bytes, 0 where it is not known
    md5: str = ""
    sha256: str = ""
    published: bool = False  # the publisher gives the checksum; otherwise others recorded it
    checksum_url: str = ""  # where the publisher keeps the checksum of a file that changes

    def checksum(self) -> tuple[str, str]:
        """Return the strongest known checksum as (algorithm, hex digits), ("", "") without one."""
        if self.sha256:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 else ("", "")


@dataclass(frozen=True)
class PublicSet:
    """A public data set, or a family of them where ``categories`` are to choose from."""

    name: str
    title: str
    about: str
    domain: str
    page: str
    terms: str
    terms_url: str
    citation: str
    parser: str
    files: tuple[RawFile, ...]
    aliases: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)  # of the parser
    counts: Mapping[str, Count] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)
    unique: tuple[str, ...] = ()  # columns by which a repeated interaction is known
    manual: str = ""  # how a person gets the files, where no program may
    defects: tuple[str, ...] = ()  # known faults of the files and what is done about them
    dataset: Mapping[str, Any] = field(default_factory=dict)  # tables and splits, as in a toml
    category: str = ""

    @property
    def dataset_name(self) -> str:
        """Name of the prepared data set: the family's name with the category, if it has one."""
        tail = re.sub(r"[^a-z0-9]+", "_", self.category.lower()).strip("_")
        return f"{self.name}_{tail}" if tail else self.name

    def choose(self, category: str = "") -> PublicSet:
        """Return the member of the family for ``category``; others are returned as they are.

        Raises ``DataError`` when a category is missing, unknown, or given where there is none.
        """
        if not self.categories:
            if category:
                raise DataError(f"{self.name} has no categories; leave out --category {category!r}")
            return self
        if not category:
            raise DataError(
                f"{self.name} comes by category; choose one with --category: "
                f"{', '.join(self.categories)}"
            )
        by_plain = {_plain(c): c for c in self.categories}
        found = by_plain.get(_plain(category))
        if found is None:
            raise DataError(
                f"{self.name} has no category {category!r}"
                f"{near(category, list(self.categories)) or ';'} it has "
                f"{', '.join(self.categories)}"
            )
        files = tuple(
            replace(
                f,
                name=f.name.replace("{category}", found),
                urls=tuple(u.replace("{category}", found) for u in f.urls),
            )
            for f in self.files
        )
        return replace(
            self, category=found, files=files, counts=self.categories[found], categories={}
        )


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


@cache
def public_sets() -> dict[str, PublicSet]:
    """Return name -> every packaged public data set, by name."""
    found = [load_public(path) for path in sorted(FOLDER.glob("*.toml"))]
    return {source.name: source for source in found}


def find_public(name: str) -> PublicSet | None:
    """Return the public set called ``name`` or by one of its aliases such as "ml-100k"."""
    wanted = name.lower().replace("_", "-")
    for source in public_sets().values():
        if wanted in {n.replace("_", "-") for n in (source.name, *source.aliases)}:
            return source
    return None


def load_public(path: Path) -> PublicSet:
    """Read and check one toml file; faults name the file, the key and the mend."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"{path} cannot be read as toml: {fault}") from None
    top = Section(raw, "", path)
    files = tuple(_file(top.child(f, "files")) for f in _list(top, "files"))
    top = Section({k: v for k, v in raw.items() if k != "files"}, "", path)
    name = top.text("name", required=True)
    source = PublicSet(
        name=name,
        title=top.text("title", required=True),
        about=top.text("about", required=True),
        domain=top.text("domain", required=True),
        page=top.text("page", required=True),
        terms=top.text("terms", required=True),
        terms_url=top.text("terms_url", required=True),
        citation=top.text("citation", required=True),
        parser=top.choice("parser", top.text("parser", required=True), PARSERS),
        files=files,
        aliases=top.texts("aliases"),
        options=top.table_of_texts("options"),
        counts=_counts(top.mapping("counts")),
        categories={k: _counts(v) for k, v in top.mapping("categories").items()},
        unique=top.texts("unique"),
        manual=top.text("manual"),
        defects=top.texts("defects"),
        dataset=copy.deepcopy(dict(top.mapping("dataset"))),
    )
    top.finish()
    if path.stem != name:
        raise DataError(f"{path}: name is {name!r}; it must be {path.stem!r}")
    if not files:
        raise top.fault("files", "is empty; name at least one file")
    if not source.manual and not all(f.urls for f in files):
        raise top.fault("files", "has one without url; give it, or say how to get it (`manual`)")
    return source


def _list(section: Section, key: str) -> list[Any]:
    value = section.raw.get(key, [])
    if not isinstance(value, list):
        raise section.fault(key, f"must be a list of [[{key}]] tables")
    return value


def _file(section: Section) -> RawFile:
    file = RawFile(
        name=section.text("name", required=True),
        urls=section.texts("url"),
        size=section.integer("size", 0),
        md5=section.text("md5"),
        sha256=section.text("sha256"),
        published=section.flag("published"),
        checksum_url=section.text("checksum_url"),
    )
    section.finish()
    for key, digits in (("md5", 32), ("sha256", 64)):
        value = getattr(file, key)
        if value and not re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
            raise section.fault(key, f"is {value!r}; expected {digits} hex digits")
    return file


def _counts(raw: Mapping[str, Any]) -> dict[str, Count]:
    return {key: read_count(value) for key, value in raw.items()}
