"""Each blocking check of derived tables and tuned models passes on a right one and fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from llmers_pipelines.data.training import TEST, TRAIN, TrainingData
from llmers_pipelines.derive.reasoning_graphs import ORIGINAL
from llmers_pipelines.orchestrate.steps import tune
from llmers_pipelines.orchestrate.steps.derive_checks import CHECKS
from llmers_pipelines.testing.planted import planted_rings

LOG = planted_rings(12, 10, length=(5, 7)).data
FIRST = np.flatnonzero(LOG.split == TRAIN)
HELD = int(np.flatnonzero(LOG.split == TEST)[0])  # a row of the test split


def pair(row: int) -> dict[str, str]:
    return {
        "user_id": LOG.users.ids[LOG.user[row] - 1],
        "item_id": LOG.items.ids[LOG.item[row] - 1],
    }


def _strange_pair(row: int) -> dict[str, str]:
    """Return the user of ``row`` with an item that the user never met."""
    met = set(LOG.item[LOG.user == LOG.user[row]].tolist())
    other = next(i for i in range(1, LOG.n_items + 1) if i not in met)
    return {**pair(row), "item_id": LOG.items.ids[other - 1]}


A, B = pair(FIRST[0]), pair(FIRST[1])
NEW = _strange_pair(FIRST[0])
EDGE = {**A, "aspect": "plot"}
GRAPH = {
    "user_id": A["user_id"], "round": 0, "kind": ORIGINAL, "cut": 1,
    "nodes": [f"item:{A['item_id']}", "text:x"], "sources": [0], "targets": [1],
}  # fmt: skip
SHOWN = {"example_id": "a", "user_id": A["user_id"], "shown": [A["item_id"]]}
LATE = pair(HELD)

# kind of rows: (a right table, {check: rows that it must refuse})
CASES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, list[dict[str, Any]]]]]] = {
    "entities": ([{"item_id": A["item_id"]}], [
        ("row_identity", [{"item_id": A["item_id"]}] * 2),
        ("row_identity", [{"item_id": "nobody"}]),
    ]),
    "positions": ([{**A, "position": 0}], [
        ("row_identity", [{**A, "position": 0}] * 2),
        ("row_identity", [{**A, "position": 99}]),
        ("row_identity", [{**NEW, "position": 0}]),
    ]),
    "pairs": ([A, NEW], [("row_identity", [A, A]), ("row_identity", [{**A, "user_id": "no"}])]),
    "samples": ([A, NEW], [("row_identity", [A, A])]),
    "interactions": ([NEW], [("row_identity", [A]), ("row_identity", [NEW, NEW])]),
    "edges": ([EDGE, {**EDGE, "aspect": "cast"}], [
        ("row_identity", [EDGE, EDGE]), ("no_leakage", [{**EDGE, **LATE}]),
        ("no_leakage", [{**EDGE, **NEW}]),
    ]),
    "graphs": ([GRAPH], [
        ("row_identity", [GRAPH, GRAPH]), ("row_identity", [{**GRAPH, "targets": [2]}]),
        ("no_leakage", [{**GRAPH, "nodes": [f"item:{NEW['item_id']}", "text:x"]}]),
    ]),
    "examples": ([SHOWN], [
        ("row_identity", [SHOWN, SHOWN]),
        ("no_leakage", [{**SHOWN, "user_id": LATE["user_id"], "shown": [LATE["item_id"]]}]),
        ("no_leakage", [{**SHOWN, "shown": None}]),
    ]),
}  # fmt: skip


def outcomes(kind: str, rows: list[dict[str, Any]], log: TrainingData = LOG) -> dict[str, bool]:
    return {c.name: c.passed for c in CHECKS[kind](pa.Table.from_pylist(rows), log)}


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(CHECKS)


@pytest.mark.parametrize("kind", CASES)
def test_a_right_table_passes(kind: str) -> None:
    assert all(outcomes(kind, CASES[kind][0]).values())


@pytest.mark.parametrize(
    ("kind", "check", "rows"),
    [(kind, check, rows) for kind, (_, wrong) in CASES.items() for check, rows in wrong],
)
def test_a_wrong_one_fails(kind: str, check: str, rows: list[dict[str, Any]]) -> None:
    assert not outcomes(kind, rows)[check]


def test_a_row_that_moved_to_the_test_split_is_a_leak() -> None:
    """The same edge is right while its rows are trained on, and wrong once they are held out."""
    split = LOG.split.copy()
    split[(LOG.user == LOG.user[FIRST[0]]) & (LOG.item == LOG.item[FIRST[0]])] = TEST
    assert not outcomes("edges", [EDGE], dataclasses.replace(LOG, split=split))["no_leakage"]


def test_nothing_is_tuned_on_what_must_not_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "log_of", lambda sources: SimpleNamespace(name="log"))
    node: Any = SimpleNamespace(examples=SimpleNamespace(name="features/examples"))
    ctx: Any = SimpleNamespace(load=lambda node: LOG)
    for kept, right in ((SHOWN, True), (CASES["examples"][1][1][1][0], False)):
        assert tune._no_leakage(node, pa.Table.from_pylist([kept]), ctx).passed is right


def test_an_adapter_with_a_wrong_number_is_refused(tmp_path: Path) -> None:
    for value, right in ((0.5, True), (np.nan, False), (np.inf, False)):
        weights = np.full((2, 2), value, np.float32)
        save_file({"a": weights}, tmp_path / "adapter_model.safetensors")
        assert tune._finite(tmp_path).passed is right
    assert not tune._finite(tmp_path / "nothing").passed
