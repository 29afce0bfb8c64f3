"""Every case of docs/incremental.md under Dagster's daemon, with counted calls and trainings.

LLMERS_WRITE_DOCS=1 pytest tests/integration/test_refresh_daemon.py     renews the table
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from daemon import Daemon
from loopback import Loopback
from notes_shop import CATALOG, ROOT, NotesShop, note
from refresh_cases import OF_CODE, OF_DATA, Case

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
PAGE = ROOT / "docs" / "incremental.md"


@dataclass
class Shift:
    """A shop under the daemon, with the server that counts what it is asked."""

    shop: NotesShop
    daemon: Daemon
    server: Loopback

    def work(self, case: Case) -> dict[str, Any]:
        """Make one edit and return what followed from it."""
        before, cells = len(self.daemon.runs()), self._cells()
        self.server.asked.clear()
        start = time.time()
        case.edit(self.shop)
        if not case.runs:
            time.sleep(2.5)  # until the file counts as written
            self.daemon.quiet()
            assert len(self.daemon.runs()) == before
            return {"calls": len(self.server.asked), "made": set(), "did": {}, "seconds": 0.0,
                    "work": 0.0, "trained": 0, "extended": 0}  # fmt: skip
        run = self.daemon.done(before, 600)
        record = self.daemon.instance.get_run_record_by_id(run.run_id)
        assert record is not None and record.start_time and record.end_time
        did = self._did(run)
        new = [c for key, c in self._cells().items() if key not in cells]
        self.daemon.quiet(1)
        assert len(self.daemon.runs()) == before + 1, "one run is enough"
        return {
            "run": run, "calls": len(self.server.asked), "did": did,
            "made": {name for name, what in did.items() if what == "materialized"},
            "seconds": record.end_time - start, "work": record.end_time - record.start_time,
            "trained": sum("extended_from" not in c for c in new if not _solved(c)),
            "extended": sum("extended_from" in c for c in new),
        }  # fmt: skip

    def _did(self, run: dg.DagsterRun) -> dict[str, str]:
        events = self.daemon.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        found = [e.dagster_event.step_materialization_data.materialization for e in events]
        return {"/".join(m.asset_key.path): str(m.metadata["status"].value) for m in found}

    def _cells(self) -> dict[str, dict[str, Any]]:
        folder = self.shop.home / "data/llmers/cells/shop"
        found = (json.loads(p.read_text()) for p in folder.glob("*/cell.json"))
        return {c["key"]: c for c in found}

    def told(self, case: Case) -> None:
        """Wait until the table of what is stale says what it must."""
        self.daemon.wait(lambda: _as_told(case, self.status()), "the table tells it", 240)

    def status(self) -> str:
        """Return the table of what is stale as the sensor reported it last."""
        key = dg.AssetKey(["catalog", "status"])
        event = self.daemon.instance.get_latest_materialization_event(key)
        return str(event.asset_materialization.metadata["status"].value) if event else ""


def _solved(cell: dict[str, Any]) -> bool:
    """Say whether a cell is of a model in closed form: it is solved, not trained."""
    return cell["model"] in ("knnblend", "itemknn")


@pytest.fixture
def shift(tmp_path: Path) -> Iterator[Shift]:
    home = tmp_path / "home"
    with Loopback(answer=note) as server:
        shop = NotesShop.make(home, server.url)
        made = subprocess.run(shop.command("run", "all", "--json"), env=shop.environment, cwd=home,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        assert len(server.asked) == CATALOG
        with Daemon(shop.environment, home) as daemon:
            daemon.wait(daemon.ticks, "the sensor looks by itself", 60)
            yield Shift(shop, daemon, server)


@pytest.mark.parametrize(("name", "cases"), [("data", OF_DATA), ("code", OF_CODE)])
def test_every_case_costs_what_it_must_and_no_more(
    shift: Shift, name: str, cases: tuple[Case, ...]
) -> None:
    rows, faults = [], []
    for case in cases:
        found = shift.work(case)
        rows.append((case, found))
        faults += [f"{case.name}: {fault}" for fault in _faults(case, found)]
        print(f"{case.name}: {found['calls']} calls, {len(found['made'])} made, "
              f"{found['seconds']:.0f} s", flush=True)  # fmt: skip
        shift.told(case)
        _write(name, rows)
    assert faults == []


def _faults(case: Case, found: dict[str, Any]) -> Iterator[str]:
    """Yield what a case did that it must not, and what it left undone."""
    if found["calls"] != case.calls:
        yield f"{found['calls']} calls, expected {case.calls}"
    if lacking := set(case.made) - found["made"]:
        yield f"not made: {sorted(lacking)}"
    if much := set(case.kept) & found["made"]:
        yield f"made, though nothing of it changed: {sorted(much)}"
    if case.trained is not None and found["trained"] != case.trained:
        yield f"{found['trained']} trainings, expected {case.trained}"
    if case.runs and (found["run"].status == dg.DagsterRunStatus.SUCCESS) is bool(case.held):
        yield f"the run ended as {found['run'].status.value}"


def _as_told(case: Case, table: str) -> bool:
    if case.held:
        champion = next((r for r in table.splitlines() if "champion__sequential" in r), "")
        return case.held in champion
    return "fresh" in table


def _write(name: str, rows: list[tuple[Case, dict[str, Any]]]) -> None:
    """Put the measured table into the page, where that is asked for."""
    head = ("change", "LLM calls", "assets made", "re-published", "trained", "extended",
            "seconds to the end", "of these in the run")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case, found in rows:
        again = len(found["did"]) - len(found["made"])
        if not case.runs:
            lines.append(f"| {case.name} | 0 | 0 | 0 | 0 | 0 | no run | |")
            continue
        end = f"{found['seconds']:.0f}"
        held = "; the rest is held" if case.held else ""
        lines.append(
            f"| {case.name} | {found['calls']} | {len(found['made'])}{held} | {again} | "
            f"{found['trained']} | {found['extended']} | {end} | {found['work']:.0f} |"
        )
    if os.environ.get("LLMERS_WRITE_DOCS"):
        _between(PAGE, name, "\n".join(lines))


def _between(page: Path, name: str, text: str) -> None:
    mark = f"<!-- {name} -->"
    body = page.read_text(encoding="utf-8")
    assert body.count(mark) == 2, f"{page} needs {mark} twice"
    told = re.sub(f"{mark}.*?{mark}", f"{mark}\n{text}\n{mark}", body, flags=re.DOTALL)
    page.write_text(told, encoding="utf-8")
