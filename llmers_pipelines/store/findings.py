"""What a look at the store found: faults, what was checked, what making it again costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..prices import Price

NEWER = "install the version that wrote it; it stays where it is"


@dataclass(frozen=True)
class Fault:
    """One damaged thing.

    ``store``: answers, batches, spending, vectors, manifests, warehouse, cells, models.
    """

    store: str
    path: str
    problem: str
    mend: str
    assets: tuple[str, ...] = ()  # "data set: asset" that read it
    aside: str = ""  # where it was moved to


@dataclass
class Report:
    """What an audit found. ``regeneration``: calls, tokens and money of lost answers, and more."""

    faults: list[Fault] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    no_checksum: dict[str, int] = field(default_factory=dict)
    regeneration: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {"ok": not self.faults, **asdict(self)}

    def count(self, what: str, *, listed: bool = True) -> None:
        self.checked[what] = self.checked.get(what, 0) + 1
        if not listed:
            self.no_checksum[what] = self.no_checksum.get(what, 0) + 1

    def newer(self, store: str, path: Path, problem: object) -> None:
        """Add what a newer version wrote: it is not checked, not touched, and ends nothing."""
        self.faults.append(Fault(store, str(path), str(problem), NEWER))


@dataclass(frozen=True)
class Look:
    """One audit: the data folder, prices, the report, and where damaged things are moved to.

    ``aside`` is None where nothing is to be moved.
    """

    data: Path
    prices: Mapping[str, Price]
    report: Report
    aside: Path | None = None
