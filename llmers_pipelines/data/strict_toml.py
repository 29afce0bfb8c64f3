"""Typed reading of a toml section: an unknown key or a wrong type names the file and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .schema import DataError


def near(word: str, choices: Sequence[str]) -> str:
    """Return "; did you mean 'x'?" for the choice closest to ``word``, or ""."""
    by_lower = {c.lower(): c for c in choices}
    found = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[found[0]]!r}?" if found else ""


class Section:
    """One table of a toml file. Keys are taken one by one; ``finish`` refuses what is left."""

    def __init__(self, raw: Mapping[str, Any], where: str, file: Path) -> None:
        self.raw, self.where, self.file = raw, where, file
        self._known: list[str] = []
        if not isinstance(raw, Mapping):
            raise DataError(f"{file}: [{where}] must be a table, found {raw!r}")

    def fault(self, key: str, what: str) -> DataError:
        place = f"{self.where}.{key}" if self.where else key
        return DataError(f"{self.file}: {place} {what}")

    def _take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        self._known.append(key)
        value = self.raw.get(key)
        wrong_bool = isinstance(value, bool) and kind is not bool
        if value is not None and (wrong_bool or not isinstance(value, kind)):
            raise self.fault(key, f"is {value!r}; expected {expected}")
        return value

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        value = self._take(key, str, "a string")
        if value is None and required:
            left = [k for k in self.raw if k not in self._known]
            raise self.fault(key, "is missing; add it" + near(key, left))
        return default if value is None else value

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return a list of strings; a single string counts as a list of one."""
        value = self._take(key, (str, list), "a string or a list of strings")
        if value is None:
            return default
        values = [value] if isinstance(value, str) else value
        if not all(isinstance(v, str) for v in values):
            raise self.fault(key, f"is {value!r}; expected strings only")
        return tuple(values)

    def numbers(self, key: str, default: tuple[float, ...] = ()) -> tuple[float, ...]:
        value = self._take(key, list, "a list of numbers")
        if value is None:
            return default
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
            raise self.fault(key, f"is {value!r}; expected numbers only")
        return tuple(float(v) for v in value)

    def integer(self, key: str, default: int, *, low: int = 0) -> int:
        value = self._take(key, int, "a whole number")
        if value is not None and value < low:
            raise self.fault(key, f"is {value}; expected {low} or more")
        return default if value is None else value

    def share(self, key: str, default: float) -> float:
        value = self._take(key, (int, float), "a number from 0 to 1")
        if value is not None and not 0 <= value < 1:
            raise self.fault(key, f"is {value}; expected a share from 0 to below 1")
        return default if value is None else float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._take(key, bool, "true or false")
        return default if value is None else value

    def choice(self, key: str, value: str, choices: Sequence[str]) -> str:
        if value not in choices:
            listed = ", ".join(repr(c) for c in choices if c)
            raise self.fault(key, f"is {value!r}; expected one of {listed}{near(value, choices)}")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        return self._take(key, dict, "a table") or {}

    def table_of_texts(self, key: str) -> dict[str, str]:
        found = self.mapping(key)
        for name, value in found.items():
            if not isinstance(value, str):
                raise self.fault(f"{key}.{name}", f"is {value!r}; expected a string")
        return dict(found)

    def child(self, raw: Any, key: str) -> Section:
        return Section(raw, f"{self.where}.{key}" if self.where else key, self.file)

    def section(self, key: str, *, required: bool = False) -> Section:
        self._known.append(key)
        if key not in self.raw:
            if required:
                raise self.fault(f"[{key}]", "is missing; it needs at least a path")
            return self.child({}, key)
        return self.child(self.raw[key], key)

    def sections(self, key: str) -> list[tuple[str, Section]]:
        """Return the named tables below ``key``: ``[key.<name>]``."""
        return self.section(key).children()

    def children(self) -> list[tuple[str, Section]]:
        self._known += list(self.raw)
        return [(name, self.child(raw, name)) for name, raw in self.raw.items()]

    def finish(self) -> None:
        for key in self.raw:
            if key not in self._known:
                listed = ", ".join(sorted(set(self._known)))
                hint = near(key, self._known) or ";"
                raise self.fault(key, f"is not a known setting{hint} known here: {listed}")
