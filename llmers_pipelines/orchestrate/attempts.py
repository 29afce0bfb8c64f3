"""What failed: one small record per asset and data set, so that nothing is tried twice by itself.

A record names the combination of code, inputs and sources that failed. It counts as long as the
asset would be made from just that; whoever changes anything of it, or runs the asset by hand, tries
again. A success removes it.

What a run was asked for and could not make behind a failure is kept as well: it was wished for, so
it is made once the failure is mended, though no version of it was ever there.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import Settings
from ..plan import Generate, Node, Teach, sha

_BUDGET = ("budget_calls", "budget_tokens", "budget_money", "budget_calls_per_day",
           "budget_tokens_per_day", "budget_money_per_day")  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """One failed attempt: its combination, what was said, and the state (a budget was reached)."""

    key: str
    error: str
    state: str = "failed"
    when: str = ""


def attempt_key(node: Node, want: dict[str, Any], settings: Settings) -> str:
    """Return the identity of making ``node`` from ``want``.

    Of a node that asks a model the budgets are part of it: a raised bound is a reason to go on, and
    so is the next day where a bound is one per day.
    """
    if not isinstance(node, (Generate, Teach)):
        return sha(want)
    bounds = [getattr(settings, name) for name in _BUDGET]
    day = datetime.now(UTC).date().isoformat() if any(bounds[3:]) else ""
    return sha([want, bounds, day])


class Failures:
    """Records below ``<data>/refresh/<data set>/<prefix>/<slug>.json``."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.data / "refresh"

    def _path(self, dataset: str, name: str) -> Path:
        return self.root / dataset / f"{name}.json"

    def get(self, dataset: str, name: str) -> Failure | None:
        """Return the record of an asset; one that cannot be read counts as none."""
        try:
            return Failure(**json.loads(self._path(dataset, name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def note(self, dataset: str, name: str, key: str, error: BaseException) -> None:
        """Record that making ``name`` from ``key`` failed."""
        state = getattr(error, "report", {}).get("state", "failed")
        text = str(error).strip() or type(error).__name__
        record = Failure(key, text[:2000], str(state), datetime.now(UTC).isoformat("T", "seconds"))
        _write(self._path(dataset, name), asdict(record))

    def clear(self, dataset: str, name: str) -> None:
        self._path(dataset, name).unlink(missing_ok=True)


class Wishes:
    """What waits behind each asset: ``<data>/refresh/<data set>/wishes/<prefix>__<slug>.json``."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.data / "refresh"

    def note(self, dataset: str, behind: str, names: Iterable[str]) -> None:
        """Record that a run was asked for ``names`` and could not make them behind an asset."""
        path = self.root / dataset / "wishes" / f"{behind.replace('/', '__')}.json"
        if set(names) - (known := _names(path)):
            _write(path, sorted({*known, *names}))

    def names(self, dataset: str) -> set[str]:
        """Return the assets that were asked for and could not be made then."""
        found = (_names(path) for path in (self.root / dataset / "wishes").glob("*.json"))
        return set().union(*found)

    def datasets(self) -> set[str]:
        """Return the data sets of which something was asked for in vain."""
        return {path.parent.name for path in self.root.glob("*/wishes")}


def _names(path: Path) -> set[str]:
    try:
        return {str(name) for name in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        return set()


def _write(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(record, out, ensure_ascii=False)
    os.replace(temporary, path)
