"""The table of mechanisms in docs/architecture.md names those methods that use a component."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import llmers_pipelines.api as api
from llmers_pipelines.recipe import discover

DOC = Path(__file__).parents[2] / "docs" / "architecture.md"
EVERY = ("all", "any")  # a row of what many use names none


def used() -> dict[str, set[str]]:
    """Return the components that the module of each packaged method calls, by the method's name."""
    found = {}
    for recipe in discover().values():
        if recipe.is_baseline or not recipe.module.startswith("llmers_pipelines."):
            continue
        source = inspect.getsource(inspect.getmodule(recipe.build)).split('"""', 2)[2]
        called = set(re.findall(r"\b([A-Z]\w+)\b(?=[(),.=])", source))
        found[recipe.name] = called & set(api.__all__)
    return found


def rows() -> list[tuple[str, list[str], list[str]]]:
    """Return (mechanism, components, methods) of each row that names a component."""
    table = DOC.read_text(encoding="utf-8").split("## Mechanisms")[1]
    out = []
    for line in table.splitlines():
        cells = [c.strip() for c in line.strip("|").split(" | ")]
        if not line.startswith("| ") or len(cells) != 3 or cells[0] == "mechanism":
            continue
        told = re.findall(r"`(?:Tune\()?([A-Z]\w+)(?:\([^`]*)?\)?`", cells[1])
        methods = [re.sub(r"\s*\(.*\)", "", m) for m in re.split(r"[,;] ", cells[2])]
        out.append((cells[0], [t for t in told if t in api.__all__], methods))
    return out


VERBS = {"Generate", "Embed", "Derive", "Tune", "Teach", "Train", "Distill", "SASRec"}


def faults(table: list[tuple[str, list[str], list[str]]], uses: dict[str, set[str]]) -> list[str]:
    """Return what the table leaves out and what it names wrongly."""
    out = []
    for what, components, methods in table:
        own = set(components) - VERBS
        if not own or any(m.startswith(EVERY) for m in methods):
            continue
        there = {name for name, called in uses.items() if called & own}
        out += [f"{what}: {name} uses it as well" for name in sorted(there - set(methods))]
        packaged = [m for m in methods if m in uses]
        if there:
            out += [f"{what}: {name} does not use it" for name in packaged if name not in there]
    return out


def test_the_table_names_who_uses_a_component() -> None:
    found = rows()
    assert len(found) > 60 and sum(bool(c) for _, c, _ in found) > 40
    assert faults(found, used()) == []


@pytest.mark.parametrize(
    ("methods", "fault"),
    [(["LLM4DSR", "SLIM"], "GaCLLM uses it"), (["LLM4DSR", "SLIM", "GaCLLM", "KAR"], "KAR does")],
)
def test_a_row_that_drifted_is_found(methods: list[str], fault: str) -> None:
    uses = {"LLM4DSR": {"Sft"}, "SLIM": {"Sft"}, "GaCLLM": {"Sft"}, "KAR": {"HybridExperts"}}
    assert any(fault in told for told in faults([("tuning", ["Sft"], methods)], uses))
