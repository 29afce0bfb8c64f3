"""Values of loosely typed records: text, numbers, moments; ``None`` where there is none."""

from __future__ import annotations

import html
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

_TAG = re.compile(r"</?[A-Za-z][^<>]{0,2000}>")
_MONTHS = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip
_FLAGS = {"true": True, "false": False}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = 631_152_000  # 1990: before any of these sites
LATEST = 4_102_444_800  # 2100


def text(value: Any, separator: str = " ") -> str | None:
    """Return ``value`` as one line of text without entities; lists are joined, "" is ``None``."""
    if isinstance(value, (list, tuple)):
        parts = [t for v in value if (t := text(v)) is not None]
        return separator.join(parts) or None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    plain = value if isinstance(value, str) else str(value)
    if "&" in plain:
        plain = html.unescape(plain)
    return sound(" ".join(plain.split())) or None


def sound(value: str) -> str:
    """Return ``value`` with half characters, which JSON escapes can hold, as question marks."""
    if value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")


def words(value: Any) -> str | None:
    """Return a list of names joined by "|"; a bar inside of a name becomes a slash."""
    if not isinstance(value, (list, tuple)):
        value = [value]
    names = [t.replace("|", "/") for v in value if (t := text(v))]
    return "|".join(dict.fromkeys(names)) or None


def without_tags(value: str | None) -> str | None:
    """Return ``value`` without html tags."""
    if value is None or "<" not in value:
        return value
    return " ".join(_TAG.sub(" ", value).split()) or None


def identifier(value: Any) -> str | None:
    """Return an id as text; only text and whole numbers can be one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    return sound(value.strip()) or None if isinstance(value, str) else None


def number(value: Any) -> float | None:
    """Return a finite number, also from text such as "$1,299.00"; ``None`` for anything else."""
    if isinstance(value, str):
        try:
            value = float(value.strip().removeprefix("$").replace(",", ""))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """Return a number without its fraction; ``None`` too where 53 bits do not hold it."""
    found = number(value)
    return int(found) if found is not None and abs(found) < 2**53 else None


def flag(value: Any) -> bool | None:
    """Return a truth value, also from the strings "true" and "false"."""
    if isinstance(value, bool):
        return value
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None


def seconds(value: Any, *, unit: int = 1) -> int | None:
    """Return whole seconds since 1970 from a count of 1/``unit`` seconds."""
    found = whole(value)
    return None if found is None else found // unit


def plausible(moment: int | None) -> bool:
    """Say whether ``moment`` (seconds) can be one of these sites' events."""
    return moment is not None and EARLIEST <= moment <= LATEST


def iso_seconds(value: Any) -> int | None:
    """Return seconds from "2018-07-07" or "2018-07-07 22:09:11", read as UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return _since(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def us_seconds(value: str) -> int | None:
    """Return seconds from "11/15/2019 8:55:22 AM", read as UTC."""
    try:
        return _since(datetime.strptime(value.strip(), "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC))
    except ValueError:
        return None


def ruby_seconds(value: Any) -> int | None:
    """Return seconds from "Fri Apr 19 08:15:15 -0700 2013"; without strptime, which is slow."""
    if not isinstance(value, str):
        return None
    parts = value.split()
    if len(parts) != 6 or len(parts[4]) != 5:
        return None
    try:
        hour, minute, second = parts[3].split(":")
        zone = int(parts[4][1:3]) * 60 + int(parts[4][3:5])
        moment = datetime(
            int(parts[5]), _MONTHS[parts[1]], int(parts[2]), int(hour), int(minute), int(second),
            tzinfo=UTC,
        )  # fmt: skip
    except (KeyError, ValueError):
        return None
    return _since(moment) - 60 * (-zone if parts[4][0] == "-" else zone)


def _since(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)
