"""docs/coverage.md speaks of what is there: names, counts and steps, against the package."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import llmers_pipelines
from llmers_pipelines import api
from llmers_pipelines.models.seams import SEAMS, Backbone, Enhancement
from llmers_pipelines.recipe import FAMILIES, Recipe, discover

PACKAGE = Path(llmers_pipelines.__file__).parent
PAGE = PACKAGE.parent / "docs" / "coverage.md"
BEING_BUILT = "being built"
NAME = re.compile(r"`([^`]+)`")
Row = dict[str, str]


@cache
def section(title: str) -> str:
    """The text below the heading ``title``, up to the next one."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def rows_of(title: str) -> list[Row]:
    """The rows of the section's table, by column."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    head, _, *body = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, cells, strict=True)) for cells in body]


def names(cell: str) -> list[str]:
    return NAME.findall(cell)


def exists(name: str) -> bool:
    """Whether ``name`` is importable from api, a module of the package, or a seam."""
    if "/" in name:
        return (PACKAGE / name).is_file()
    return name in api.__all__ or name in SEAMS


def packaged() -> list[Recipe]:
    return [r for r in discover().values() if r.module.startswith("llmers_pipelines.")]


def plain(word: str) -> str:
    """A name as it is compared: LLM-Rec and LLMRec are two systems."""
    return re.sub(r"[ _-]+", "-", word.strip().lower())


@pytest.mark.parametrize("title", ["Built", "Remaining"])
def test_components_exist(title):
    for row in rows_of(title):
        unknown = [n for n in names(row["components"]) if not exists(n)]
        assert not unknown, f"{row['method']}: {unknown}"


def test_an_invented_component_is_not_taken_for_one():
    assert not exists("TextContrastive") and not exists("enhance/none.py")


def test_every_recipe_is_listed_as_built():
    rows, text = rows_of("Built"), section("Built")
    for r in packaged():
        path = f"{r.module.removeprefix('llmers_pipelines.').replace('.', '/')}.py"
        if r.is_baseline:
            assert f"`{r.slug}`" in text, f"baseline {r.slug} is not listed"
        else:
            named = [row for row in rows if path in names(row["recipe"])]
            assert [row["method"] for row in named] == [r.name], f"{r.name}: no row of {path}"
            assert named[0]["paper"] == r.paper, r.name


def test_built_rows_name_what_their_recipe_imports():
    for row in rows_of("Built"):
        if row["recipe"] == BEING_BUILT:
            assert not names(row["components"]), row["method"]
            continue
        source = (PACKAGE / names(row["recipe"])[0]).read_text(encoding="utf-8")
        absent = [n for n in names(row["components"]) if not re.search(rf"\b{n}\b", source)]
        assert not absent, f"{row['method']} does not use {absent}"


def test_no_remaining_method_is_a_recipe():
    known = {plain(w) for r in packaged() for w in (r.name, r.slug) if not r.is_baseline}
    known |= {plain(row["method"]) for row in rows_of("Built")}
    methods = [row["method"] for row in rows_of("Remaining")]
    assert len(set(methods)) == len(methods) and not any("," in m for m in methods)
    assert not [m for m in methods if plain(re.sub(r"\(.*\)", "", m)) in known]
    assert section("Remaining").split()[0] == str(len(methods))


def test_families_and_tasks_are_those_of_the_project():
    tasks = {t for n in api.__all__ for t in getattr(getattr(api, n), "tasks", ())}
    for row in rows_of("Remaining"):
        assert row["family"] in FAMILIES, row["method"]
        for task in row["task"].split(", "):
            assert task in tasks | {"collaborative_cold"}, f"{row['method']}: {task}"


def test_parts_fit_a_backbone_of_their_row():
    for row in rows_of("Remaining"):
        kinds = [getattr(api, n) for n in names(row["components"]) if hasattr(api, n)]
        kinds = [k for k in kinds if isinstance(k, type)]
        backbones = [k for k in kinds if issubclass(k, Backbone)]
        for part in (k for k in kinds if issubclass(k, Enhancement)):
            # Where an initializer's table is set by its side, its needs are no plain set.
            needs = part.needs if isinstance(part.needs, frozenset) else {"item_table"}
            assert any(needs <= b.seams for b in backbones), f"{row['method']}: {part.__name__}"


def test_recorded_answers_are_described():
    described: dict[str, set[str]] = {}
    for file in (PACKAGE / "data" / "datasets").glob("*.toml"):
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
        tables = {*raw.get("recorded", {}), *raw.get("extras", {}), *({"kg", "kg_link"} & set(raw))}
        described[raw["name"]] = tables
    for row in rows_of("Remaining"):
        for name in names(row["language model's part"]):
            dataset, _, table = name.partition("/")
            assert table in described.get(dataset, ()), f"{row['method']}: {name}"


def test_missing_components_agree_with_the_rows():
    waiting: dict[str, list[str]] = {}
    for row in rows_of("Remaining"):
        for name in names(row["still missing"]):
            waiting.setdefault(name, []).append(row["method"])
    table = rows_of("Missing components")
    told = {names(row["component"])[0]: row for row in table}
    assert set(told) == set(waiting) and len(told) == len(table)
    for name, methods in waiting.items():
        assert not exists(name), f"{name} exists by now; move it to the components"
        assert told[name]["waiting"] == ", ".join(methods), name
        assert int(told[name]["methods"]) == len(methods), name
    counts = [int(row["methods"]) for row in table]
    assert counts == sorted(counts, reverse=True)


def test_each_step_completes_what_it_says():
    needs = {r["method"]: set(names(r["still missing"])) for r in rows_of("Remaining")}
    there: set[str] = set()
    for number, row in enumerate(rows_of("Order of work"), 1):
        step = names(row["components"])
        assert row["step"] == str(number) and not there & set(step)
        there |= set(step)
        done = [m for m, wants in needs.items() if wants <= there]
        assert row["methods then complete"] == ", ".join(done), number
        for method in done:
            del needs[method]
    assert not needs
    assert there == {names(r["component"])[0] for r in rows_of("Missing components")}
