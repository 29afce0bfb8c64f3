"""Ranges of a search: every default names a setting that exists, and every fault is told."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from llmers_pipelines import enhance
from llmers_pipelines.models import spaces
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.seams import Enhancement
from llmers_pipelines.models.spaces import FIT, Choice, Span, dimension, flat, searched
from llmers_pipelines.orchestrate.backbones import backbones
from llmers_pipelines.plan import Component, Table, snake


def parts() -> dict[str, type[Component]]:
    names = [m.name for m in pkgutil.iter_modules(enhance.__path__) if not m.name.endswith("_net")]
    modules = [importlib.import_module(f"{enhance.__name__}.{name}") for name in names]
    found = [v for m in modules for v in vars(m).values() if inspect.isclass(v)]
    return {snake(k.__name__): k for k in found if issubclass(k, Enhancement)}


def test_every_range_is_of_a_setting_and_holds_its_default() -> None:
    kinds: dict[str, Any] = {**parts(), **backbones()}
    assert set(spaces._BY_COMPONENT) <= set(kinds)
    for slug, ranges in spaces._BY_COMPONENT.items():
        takes = inspect.signature(kinds[slug]).parameters.values()
        needed = [p.name for p in takes if p.default in (None, inspect.Parameter.empty)]
        component = kinds[slug](**{name: Table("items") for name in needed})
        settings = flat(component)
        assert set(ranges) <= set(settings), slug
        for name, found in searched(component).items():
            assert found.holds(settings[name]), f"{slug}.{name}"


def test_ranges_lie_within_what_a_training_may_have() -> None:
    for kind in backbones().values():
        try:
            found = searched(kind())
        except TypeError:  # made by the recipe that names its tables
            continue
        for name, span in found.items():
            limit = FIT.get(name.removeprefix("fit."))
            if limit is not None and isinstance(span, Span):
                assert limit.low <= span.low < span.high <= limit.high, f"{kind.__name__}.{name}"


def test_a_component_of_others_names_its_own_ranges() -> None:
    @dataclass(frozen=True)
    class Gated(Component):
        space: ClassVar[dict[str, str]] = {"gate": "0.01..1:log", "dropout": "0.1,0.2"}
        gate: float = 0.1
        dropout: float = 0.1
        other: str = "x"

    assert searched(Gated()) == {
        "gate": Span(0.01, 1.0, log=True), "dropout": Choice((0.1, 0.2)),
    }  # fmt: skip


def test_names_reach_into_what_a_component_holds() -> None:
    found = flat(SASRec(dim=12))
    assert found["dim"] == 12 and found["fit.lr"] == 1e-3 and found["positions"] == "distance"


@pytest.mark.parametrize(
    ("told", "default", "means"),
    [
        ("1e-4..1e-2:log", 1e-3, Span(1e-4, 1e-2, log=True)),
        ("0..1", 0.5, Span(0.0, 1.0)),
        ("1..4", 2, Span(1, 4, whole=True)),
        ("32, 64", 64, Choice((32, 64))),
        ("0.3", 0.5, Choice((0.3,))),
        (0.3, 0.5, Choice((0.3,))),
        ([1, 2.0], 0.5, Choice((1.0, 2.0))),
        ("true,false", True, Choice((True, False))),
        ("ce,bpr", "ce", Choice(("ce", "bpr"))),
        ({"low": 1, "high": 8, "log": True}, 2, Span(1, 8, log=True, whole=True)),
    ],
)
def test_a_range_is_read(told: Any, default: Any, means: Any) -> None:
    assert dimension(told, default) == means
    assert dimension(str(means), default) == means


@pytest.mark.parametrize(
    ("told", "default", "why"),
    [
        ("2..1", 0.5, "the first bound must be below the second"),
        ("0..1:log", 0.5, "begins above 0"),
        ("0..1:lin", 0.5, "may stand :log, not :lin"),
        ("1..2.5", 2, "'2.5' is not like the default 2: a whole number"),
        ("a..b", 0.5, "'a' is not like the default 0.5: a number"),
        ("nan..1", 0.5, "'nan' is not like the default"),
        ("1..2", "ce", "the default 'ce' is no number; list values"),
        ("1..2", True, "the default True is no number"),
        ("yes", True, "'yes' is not like the default True: true or false"),
        ("1,1", 2, "give values that differ"),
        ("", 2, "'' is not like the default"),
        ({"low": 1}, 2, "a table of low, high"),
        ({"low": 1, "high": 2, "step": 3}, 2, "a table of low, high"),
    ],
)
def test_a_wrong_range_says_what_is_wrong(told: Any, default: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        dimension(told, default)
