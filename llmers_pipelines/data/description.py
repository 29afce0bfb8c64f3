"""The description of one data set: a toml file, parsed to frozen values with clear errors."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .ranking_spec import RankingSpec, parse_ranking
from .schema import KINDS, TITLE, DataError
from .split_spec import SplitSpec, parse_split
from .strict_toml import Section

FORMATS = ("csv", "parquet", "jsonl", "duckdb", "sqlite", "openai_batch")
_SUFFIX = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".dat": "csv", ".data": "csv",
    ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".duckdb": "duckdb", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite",
}  # fmt: skip
EXTRAS = ("reviews", "kg", "kg_link", "impressions")
EXTRACTS = ("year", "title_year")
NO_CUTOFF, UNKNOWN_CUTOFF, WHOLE_LOG = "none", "unknown", "all"
DATA_ROOT = "$data"


@dataclass(frozen=True)
class FieldSpec:
    """A described column: its kind and how its values are read."""

    name: str  # becomes a column of the table where ``column`` is another one
    kind: str
    column: str = ""  # column that is read; the field's own name when empty
    separator: str = ""  # of several values in one cell; tables hold them joined by "|"
    extract: str = ""  # "year" from dates, "title_year" from "Name (1995)"
    missing: tuple[str, ...] = ()  # values that mean "not known"
    buckets: int = 10  # quantile buckets of a number in ctr
    coded: bool = False  # values are codes, not words: no part of texts and prompts


@dataclass(frozen=True)
class Source:
    """One table of the data set and where it lies."""

    name: str
    path: str
    format: str
    table: str = ""  # of a database
    columns: Mapping[str, str] = field(default_factory=dict)  # our name -> column of the file
    fields: Mapping[str, FieldSpec] = field(default_factory=dict)
    encoding: str = "utf-8"
    delimiter: str = ""  # of a csv; guessed from its first line when empty
    names: tuple[str, ...] = ()  # column names of a csv without header
    ids: str = "text"  # "integer" reads 7, 7.0 and 007 as one id
    time: str = "auto"  # seconds, milliseconds, iso, order or a strptime format
    rating: tuple[float, float] | None = None  # lowest and highest valid rating
    unknown_items: str = "quarantine"  # or "keep": the catalog grows
    max_chars: int = 100_000  # longer texts are cleared
    data_cutoff: str = NO_CUTOFF  # of an extra table: what its author saw
    labels_seen: bool = False


@dataclass(frozen=True)
class Recorded:
    """Recorded answers to one prompt task and what their prompts saw."""

    prompt_task: str
    variant: str
    path: str
    format: str
    entity: str  # "item" or "user"
    id_column: str
    text_columns: tuple[str, ...]
    table: str = ""
    filter: Mapping[str, str] = field(default_factory=dict)
    data_cutoff: str = UNKNOWN_CUTOFF
    labels_seen: bool = False
    model: str = ""
    source: str = ""

    @property
    def key(self) -> str:
        return f"{self.prompt_task}.{self.variant}" if self.variant else self.prompt_task


@dataclass(frozen=True)
class Description:
    """Everything that is known about a data set before its files are opened."""

    name: str
    file: Path
    items: Source
    interactions: Source
    users: Source | None = None
    extras: Mapping[str, Source] = field(default_factory=dict)
    splits: Mapping[str, SplitSpec] = field(default_factory=dict)
    recorded: Mapping[str, Recorded] = field(default_factory=dict)
    rankings: Mapping[str, RankingSpec] = field(default_factory=dict)  # of teachers
    root: str = "."
    default_task: str = ""
    requires: tuple[str, ...] = ()
    about: str = ""
    domain: str = ""  # what an item is called in prompts: movies, books, beauty, ...
    terms: str = ""
    obtain: str = ""  # where the files come from, shown when they are missing
    quarantine_share: float | None = None  # of the rows; None = the limit of llmers.toml

    @property
    def sources(self) -> dict[str, Source]:
        """All tables by name: items, interactions, users, then the extras."""
        own = {"items": self.items, "interactions": self.interactions}
        if self.users is not None:
            own["users"] = self.users
        return own | dict(self.extras)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the declared splits; a variant such as ``ctr_time`` counts as one."""
        return tuple(self.splits)

    def folder(self, data_root: Path | str | None = None) -> Path:
        """Return the folder that relative paths start from.

        Raises ``DataError`` when the description lies under the data root and none is given.
        """
        if not (self.root == DATA_ROOT or self.root.startswith(DATA_ROOT + "/")):
            return (self.file.parent / self.root).resolve()
        if data_root is None:
            raise DataError(
                f"data set {self.name!r} is read from the data root, which is not set; set the "
                f"environment variable LLMERS_DATA_ROOT to the folder that holds "
                f"{self.root.removeprefix(DATA_ROOT).strip('/') or self.items.path}"
                + (f" ({self.obtain})" if self.obtain else "")
            )
        return Path(data_root) / self.root.removeprefix(DATA_ROOT).strip("/")

    def split(self, name: str) -> SplitSpec:
        """Return the split called ``name`` or raise ``DataError`` with the declared ones."""
        if name in self.splits:
            return self.splits[name]
        raise DataError(
            f"data set {self.name!r} declares no split {name!r}; it has "
            f"{', '.join(self.splits) or 'none'}; add [splits.{name}] to {self.file}"
        )

    def recorded_for(self, prompt_task: str, variant: str = "") -> Recorded | None:
        """Return the recorded answers of ``prompt_task``, the first variant when none is named."""
        for answers in self.recorded.values():
            if answers.prompt_task == prompt_task and variant in ("", answers.variant):
                return answers
        return None

    def table_digest(self) -> str:
        """Hash of what decides how the tables are read, not of their content."""
        return _digest({name: asdict(s) for name, s in self.sources.items()})

    def split_digest(self, name: str) -> str:
        """Hash of one split's settings and of the fields that it turns into codes."""
        sides = [self.items, self.users]
        fields = [{k: asdict(f) for k, f in s.fields.items()} for s in sides if s]
        return _digest([self.split(name).identity(), fields])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def load_description(path: Path | str) -> Description:
    """Read and check one toml file; every error names the file, the section and the mend."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no data-set description at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"{path} is not valid toml: {fault}") from None
    return parse_description(raw, path)


def parse_description(raw: Mapping[str, Any], path: Path) -> Description:
    """Return the checked description of ``raw``, the content of the toml file ``path``."""
    top = Section(raw, "", path)
    name = top.text("name", required=True)
    if not name.replace("_", "").isalnum() or name != name.lower():
        raise top.fault("name", f"is {name!r}; use lower case letters, digits and _")
    extras = {key: _source(top.section(key), key) for key in EXTRAS if key in raw}
    extras |= {key: _source(sub, key) for key, sub in top.sections("extras")}
    description = Description(
        name=name,
        file=path,
        items=_source(top.section("items", required=True), "items"),
        interactions=_source(top.section("interactions", required=True), "interactions"),
        users=_source(top.section("users"), "users") if "users" in raw else None,
        extras=extras,
        splits={key: parse_split(sub, key) for key, sub in top.sections("splits")},
        recorded=_recorded(top),
        rankings={key: _ranking(sub, key) for key, sub in top.sections("rankings")},
        root=top.text("root", "."),
        default_task=top.text("default_task"),
        requires=top.texts("requires"),
        about=top.text("about"),
        domain=top.text("domain"),
        terms=top.text("terms"),
        obtain=top.text("obtain"),
        quarantine_share=(
            top.share("quarantine_share", 0.0) if "quarantine_share" in raw else None
        ),
    )
    top.finish()
    _check(description, top)
    return description


def guess_format(path: str) -> str:
    """Return the format that the suffix of ``path`` stands for, "" when it stands for none."""
    return _SUFFIX.get(Path(path.removesuffix(".gz")).suffix.lower(), "")


def _format(section: Section, path: str) -> str:
    kind = section.text("format") or guess_format(path)
    if not kind:
        raise section.fault("format", f"cannot be guessed from {path!r}; set one of {FORMATS}")
    return section.choice("format", kind, FORMATS)


def _source(section: Section, name: str) -> Source:
    path = section.text("path", required=True)
    kind = _format(section, path)
    title = section.text("title") if name == "items" else ""
    columns = section.table_of_texts("columns")
    if title:
        columns = columns | {TITLE: title}
    rating = section.numbers("rating") if name == "interactions" else ()
    if rating and (len(rating) != 2 or rating[0] >= rating[1]):
        raise section.fault("rating", f"is {list(rating)}; give [lowest, highest]")
    source = Source(
        name=name, path=path, format=kind, columns=columns,
        table=section.text("table"),
        fields={k: _field(v, k, section) for k, v in section.mapping("fields").items()},
        encoding=section.text("encoding", "utf-8"),
        delimiter=section.text("delimiter"),
        names=section.texts("names"),
        ids=section.choice("ids", section.text("ids", "text"), ("text", "integer")),
        time=section.text("time", "auto") if name != "items" else "auto",
        rating=(rating[0], rating[1]) if rating else None,
        unknown_items=section.choice(
            "unknown_items", section.text("unknown_items", "quarantine"), ("quarantine", "keep")
        ) if name == "interactions" else "quarantine",
        max_chars=section.integer("max_chars", 100_000, low=1),
        data_cutoff=section.text("data_cutoff", NO_CUTOFF),
        labels_seen=section.flag("labels_seen"),
    )  # fmt: skip
    if kind in ("duckdb", "sqlite") and not source.table:
        raise section.fault("table", f"is missing; {path} is a database, name the table in it")
    if source.time != "auto" and "%" not in source.time:
        section.choice("time", source.time, ("seconds", "milliseconds", "iso", "order"))
    section.finish()
    return source


def _field(value: Any, name: str, owner: Section) -> FieldSpec:
    if isinstance(value, str):
        value = {"kind": value}
    section = owner.child(value, f"fields.{name}")
    spec = FieldSpec(
        name=name,
        kind=section.choice("kind", section.text("kind", required=True), tuple(KINDS)),
        column=section.text("column") or name,
        separator=section.text("separator"),
        extract=section.choice("extract", section.text("extract"), ("", *EXTRACTS)),
        missing=section.texts("missing"),
        buckets=section.integer("buckets", 10, low=2),
        coded=section.flag("coded"),
    )
    section.finish()
    return spec


def _ranking(section: Section, name: str) -> RankingSpec:
    path = section.text("path", required=True)
    return parse_ranking(section, name, path, _format(section, path))


def _recorded(top: Section) -> dict[str, Recorded]:
    found = {}
    for task, sub in top.sections("recorded"):
        direct = isinstance(sub.raw.get("path"), str)
        variants = [("", sub)] if direct else sub.children()
        for variant, section in variants:
            path = section.text("path", required=True)
            kind = _format(section, path)
            entity = "user" if task.startswith("user") else "item"
            entity = section.choice("entity", section.text("entity", entity), ("item", "user"))
            default_id = "custom_id" if kind == "openai_batch" else f"{entity}_id"
            answers = Recorded(
                prompt_task=task, variant=variant, path=path, format=kind, entity=entity,
                id_column=section.text("id", default_id),
                text_columns=section.texts("text", ("text",)),
                table=section.text("table"),
                filter=section.table_of_texts("filter"),
                data_cutoff=section.text("data_cutoff", UNKNOWN_CUTOFF),
                labels_seen=section.flag("labels_seen"),
                model=section.text("model"),
                source=section.text("source"),
            )  # fmt: skip
            section.finish()
            found[answers.key] = answers
    return found


def cutoff_names(description: Description) -> set[str]:
    """Names that a ``data_cutoff`` may have: a split, a column that gives one, or a mark."""
    columns = {s.column for s in description.splits.values() if s.column}
    return {NO_CUTOFF, UNKNOWN_CUTOFF, WHOLE_LOG, *description.splits, *columns}


def _check(description: Description, top: Section) -> None:
    if description.default_task and description.default_task not in description.splits:
        raise top.fault(
            "default_task", f"is {description.default_task!r}, which has no section under [splits]"
        )
    known = tuple(sorted(cutoff_names(description)))
    for answers in description.recorded.values():
        top.choice(f"recorded.{answers.key}.data_cutoff", answers.data_cutoff, known)
    for ranking in description.rankings.values():
        top.choice(f"rankings.{ranking.name}.data_cutoff", ranking.data_cutoff, known)
    for extra in description.extras.values():
        top.choice(f"{extra.name}.data_cutoff", extra.data_cutoff, known)
