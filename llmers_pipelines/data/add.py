"""A new data set: columns and kinds are guessed, everything is validated, one toml is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checkup import check_dataset
from .description import FORMATS, Source, guess_format, parse_description
from .guess import ITEM_COLUMNS, LOG_COLUMNS, USER_COLUMNS, guess_columns, guess_fields
from .schema import POSITION, RATING, TIMESTAMP, TITLE, DataError
from .sources import read_source


def add_dataset(
    name: str,
    folder: Path | str,
    *,
    items: Path | str,
    interactions: Path | str,
    users: Path | str | None = None,
    mapping: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Describe a new data set: guess columns and kinds, validate, write ``folder/<name>.toml``.

    ``mapping`` fixes columns ("items.item_id" -> "ASIN", "interactions.timestamp" -> "when");
    ``options`` sets other keys ("interactions.encoding" -> "latin-1", "items.table" -> "books").
    Splits that the log is too small for, or that leave no row to select a model on, are left out
    with a warning. Returns file, guessed (table
    -> columns and fields) and the report of ``check_dataset``; nothing is written when validation
    fails. Raises ``DataError`` for a taken name or an id column that cannot be told.
    """
    target = Path(folder) / f"{name}.toml"
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists already; choose another name or overwrite it")
    given: dict[str, dict[str, str]] = {"items": {}, "interactions": {}, "users": {}}
    for key, column in (mapping or {}).items():
        table, _, ours = key.partition(".")
        if table not in given or not ours:
            raise DataError(f"mapping {key!r}: write TABLE.COLUMN, like items.item_id=ASIN")
        given[table][ours] = column
    extra: dict[str, dict[str, Any]] = {"items": {}, "interactions": {}, "users": {}}
    for key, value in (options or {}).items():
        table, _, option = key.partition(".")
        if table not in extra or not option:
            raise DataError(f"option {key!r}: write TABLE.OPTION, like items.encoding=latin-1")
        extra[table][option] = _option(option, value)
    raw: dict[str, Any] = {"name": name, "root": "."}
    wanted = {"items": (items, ITEM_COLUMNS), "interactions": (interactions, LOG_COLUMNS),
              "users": (users, USER_COLUMNS)}  # fmt: skip
    for table, (path, columns) in wanted.items():
        if path is not None:
            choice = given[table], extra[table]
            raw[table] = _guess_table(table, Path(path), target, columns, *choice)
    log = raw["interactions"]["columns"]
    raw["splits"] = _default_splits(log)
    raw["default_task"] = "sequential" if "sequential" in raw["splits"] else "collaborative"
    target.parent.mkdir(parents=True, exist_ok=True)
    report = check_dataset(parse_description(raw, target))
    unselected = [name for name, rows in report["splits"].items() if not rows["valid"]]
    left_out = [n for n in raw["splits"] if n not in report["splits"] or n in unselected]
    if report["counts"] and left_out:  # the tables are valid: keep the splits that they allow
        why = report["errors"] + [
            f"split {name!r} ({raw['splits'][name]['protocol']}) has no validation rows, so that "
            f"no model can be selected on it: add [splits.{name}] to {target} with another "
            "protocol, with other shares, or, for protocol 'time', with valid_from and test_from"
            for name in unselected
        ]
        raw["splits"] = {k: v for k, v in raw["splits"].items() if k not in left_out}
        raw["default_task"] = next(iter(raw["splits"]), "")
        report = check_dataset(parse_description(raw, target))
        report["warnings"] += [f"left out: {fault}" for fault in why]
    if not {TIMESTAMP, POSITION} & set(log):
        report["warnings"].append(
            "no column of the interactions could be told to be a time or an order, so they are "
            "split at random and no sequential method can run; name one with "
            "interactions.timestamp=COLUMN or interactions.position=COLUMN"
        )
    told = ("title", "columns", "fields")
    guessed = {t: {k: raw[t].get(k) for k in told} for t in given if t in raw}
    if report["ok"]:
        target.write_text(to_toml(raw), encoding="utf-8")
    return {"file": str(target) if report["ok"] else "", "guessed": guessed, "report": report}


def _option(name: str, value: Any) -> Any:
    """Return ``value`` in the type of the option; text comes from a command line."""
    if not isinstance(value, str):
        return value
    if name == "names":
        return [part.strip() for part in value.split(",")]
    try:
        if name == "rating":
            return [float(part) for part in value.strip("[] ").split(",")]
        return int(value) if name == "max_chars" else value
    except ValueError:
        raise DataError(f"option {name}={value!r}: expected numbers, like 1,5") from None


def _guess_table(
    table: str,
    path: Path,
    target: Path,
    wanted: Sequence[str],
    given: dict[str, str],
    options: dict[str, Any],
) -> dict[str, Any]:
    path = path.resolve()
    kind = str(options.get("format") or guess_format(str(path)))
    if kind not in FORMATS:
        raise DataError(f"{path}: the format cannot be told from its name; give {table}.format")
    known = {k: v for k, v in options.items() if k in ("encoding", "delimiter", "table")}
    names = tuple(options.get("names", ()))
    raw = read_source(Source(table, str(path), kind, names=names, **known), Path("/"))
    columns = guess_columns(raw.table.column_names, wanted, given)
    for ours in (c for c in wanted if c.endswith("_id")):
        if ours not in columns:
            raise DataError(
                f"{path}: no column could be told to be {ours}; name it with "
                f"{table}.{ours}=COLUMN; columns: {', '.join(raw.table.column_names)}"
            )
    title = columns.pop(TITLE, "")
    renamed = {theirs: ours for ours, theirs in columns.items()}
    base = target.parent.resolve()
    out: dict[str, Any] = {
        "path": path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
    }
    out |= {"format": kind} if guess_format(str(path)) != kind else {}
    out |= options | ({"title": title} if title else {})
    out["columns"] = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    if table != "interactions":
        fields: dict[str, Any] = {TITLE: "text"} if title else {}
        for column, guess in guess_fields(raw.table, [title, *renamed]).items():
            fields[column] = guess["kind"] if len(guess) == 1 else guess
        out["fields"] = fields
    else:
        out["columns"] = columns
    return out


def _default_splits(log: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    ordered = TIMESTAMP in log or POSITION in log
    splits: dict[str, dict[str, Any]] = {}
    if ordered:
        splits["sequential"] = {"protocol": "leave_one_out"}
        splits["collaborative"] = {"protocol": "leave_one_out"}
    else:
        splits["collaborative"] = {"protocol": "random"}
    if RATING in log and ordered:
        splits["ctr"] = {"protocol": "time", "label": "rating >= 4"}
    return splits


def to_toml(raw: Mapping[str, Any]) -> str:
    """Return plain nested data as toml: scalars first, then one table per section."""
    lines: list[str] = []

    def key(name: str) -> str:
        return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)

    def value(v: Any) -> str:
        if isinstance(v, Mapping):
            return "{ " + ", ".join(f"{key(k)} = {value(x)}" for k, x in v.items()) + " }"
        if isinstance(v, (list, tuple)):
            return "[" + ", ".join(value(x) for x in v) + "]"
        return json.dumps(v, ensure_ascii=False)

    def section(table: Mapping[str, Any], where: tuple[str, ...]) -> None:
        deep = {k: v for k, v in table.items() if isinstance(v, Mapping) and len(where) < 2}
        flat = {k: v for k, v in table.items() if k not in deep}
        if flat or (where and not deep):
            if where:
                lines.append(f"\n[{'.'.join(key(w) for w in where)}]")
            lines.extend(f"{key(k)} = {value(v)}" for k, v in flat.items())
        for name, sub in deep.items():
            if sub:
                section(sub, (*where, name))

    section(raw, ())
    return "\n".join(lines) + "\n"


def dataset_template(name: str) -> str:
    """Return an annotated description to fill in."""
    return _TEMPLATE.format(name=name)


_TEMPLATE = """\
# Paths start from this file's folder; root = "$data" starts from LLMERS_DATA_ROOT.
name = "{name}"
about = ""
root = "."
default_task = "sequential"

[items]
path = "items.csv"                    # csv, parquet, jsonl, duckdb or sqlite (then: table = "...")
title = "title"                       # column shown to people and models
columns = {{ item_id = "item_id" }}     # our name = column of the file
# encoding = "latin-1"                # of a csv that is not UTF-8
# ids = "integer"                     # read 7, 7.0 and 007 as one id

[items.fields]                        # text, category, number or image
title = "text"
# genres = {{ kind = "category", separator = "|" }}
# year = {{ kind = "category", column = "title", extract = "title_year" }}

[interactions]
path = "interactions.csv"
columns = {{ user_id = "user_id", item_id = "item_id", timestamp = "timestamp" }}
# rating = [1, 5]                     # valid range; other rows go to quarantine

# [users]                             # optional: users come from the interactions otherwise
# path = "users.csv"

[splits.sequential]
protocol = "leave_one_out"            # leave_one_out, time, given, random, cold_item, cold_user

[splits.collaborative]
protocol = "leave_one_out"

# [splits.ctr]
# protocol = "time"
# label = "rating >= 4"
# history = 30                        # rows that are told of a user and are never a label
"""
