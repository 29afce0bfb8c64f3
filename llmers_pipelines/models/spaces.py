"""Numbers of a training: what is allowed (``FIT``) and where a search looks (``searched``).

The run-config form, experiments and ``llmers tune`` read them here alone. A component of a plug-in
names its own ranges as a class attribute, ``space = {"gate": "0.01..1:log"}``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..plan import Component, snake
from .fit import WEIGHS

WIDTHS = ("dim", "inner", "layers", "heads", "max_len")  # whole numbers above zero, in any part
MOST = 100_000


@dataclass(frozen=True)
class Limit:
    """The range of one number that decides a training; what lies outside is refused."""

    kind: type
    low: float
    high: float
    what: str

    @property
    def about(self) -> str:
        return f"{self.what}, {self.low:,} to {self.high:,}."


FIT = {
    "epochs": Limit(int, 1, 100_000, "Most epochs"),
    "min_epochs": Limit(int, 0, 100_000, "No stop before this epoch"),
    "patience": Limit(int, 1, 100_000, "Evaluations without improvement before the stop"),
    "eval_every": Limit(int, 1, 10_000, "Epochs between evaluations"),
    "lr": Limit(float, 1e-8, 10.0, "Learning rate"),
    "batch": Limit(int, 1, 1_000_000, "Users, pairs or rows of one step"),
    "weight_decay": Limit(float, 0.0, 10.0, "Weight decay"),
    "clip": Limit(float, 0.0, 1e6, "Bound on the norm of the gradient, 0 = none"),
    "seed": Limit(int, 0, 2**31 - 1, "Seed; the published model has 0"),
}


@dataclass(frozen=True)
class Span:
    """Numbers from ``low`` to ``high``, both included. ``log``: drawn evenly by magnitude."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def holds(self, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ",".join(map(str, self.values))


Dimension = Span | Choice

# By the name of a setting, in whatever component has it. Widths are not searched unless asked: a
# wider model costs more than it tells, and vectors are reduced to the width of the tables.
_BY_NAME: dict[str, str] = {
    "fit.lr": "1e-4..1e-2:log", "dropout": "0..0.7", "temperature": "0.05..0.5:log",
}  # fmt: skip
_OF_HISTORIES = ("sequence", "cloze")  # loaders whose batches differ in targets
# By component, over the names above.
_BY_COMPONENT: dict[str, dict[str, str]] = {
    "als": {"alpha": "0.01..10:log", "l2": "3e-4..0.3:log", "power": "0..1"},
    "autoint": {"layers": "1..4"},
    "bert4rec": {"mask": "0.1..0.6", "last": "0..0.5", "layers": "1,2"},
    "bprmf": {"l2": "1e-6..1e-2:log"},
    "caser": {"length": "3..9", "targets": "1..4"},
    "cfkg": {"l2": "1e-6..1e-2:log", "weight": "0.03..3:log"},
    "cke": {"l2": "1e-6..1e-2:log", "weight": "0.03..3:log"},
    "comirec": {"interests": "2..8"},
    "dcnv2": {"crosses": "1..5"},
    "dien": {"auxiliary": "0.1..3:log"},
    "ease": {"l2": "5..5000:log"},
    "gru4rec": {"hidden": "64,128,256"},
    "hgcf": {"fit.lr": "0.5..10:log", "margin": "0.3..3:log", "layers": "2..4",
             "negatives": "1..10"},
    "hstu": {"layers": "1..3", "temperature": "0.02..0.2:log"},
    "itemknn": {"k": "10..1000:log", "shrink": "0.1..300:log"},
    "knnblend": {"k": "10..1000:log", "shrink": "0.1..300:log", "centre": "true,false"},
    "lightgcn": {"layers": "1..4", "l2": "1e-6..1e-2:log"},
    "mmoe": {"experts": "2..8"},
    "ple": {"private": "1..4", "shared": "1..4"},
    "sasrec": {"layers": "1,2"},
    "sgl": {"layers": "1..4", "l2": "1e-6..1e-2:log", "drop": "0.05..0.5",
            "tau": "0.1..0.5:log", "contrast": "0.01..1:log"},
    "srgnn": {"steps": "1..3"},
    "textknn": {"centre": "true,false"},
    # parts
    "augmented_pairs": {"share": "0.02..0.5:log", "weight": "0.1..3:log"},
    "dual_view": {},
    "hyperbolic_alignment": {"weight": "0.003..1:log"},
    "neighbour_distillation": {"weight": "0.01..1:log"},
    "ranking_distillation": {"weight": "0.1..2:log", "beta": "0.3..3:log"},
    "side_features": {"c_text": "0.01..1:log", "c_profile": "0.01..1:log",
                      "c_attribute": "0.01..1:log"},
    "text_offset": {"weight": "0.02..1:log"},
}  # fmt: skip


def searched(component: Component) -> dict[str, Dimension]:
    """Return the ranges that a search of ``component`` takes unless told otherwise, by setting.

    Weight decay is searched around its default, where that is not zero.
    """
    own = getattr(type(component), "space", _BY_COMPONENT.get(snake(type(component).__name__), {}))
    found: dict[str, Dimension] = {}
    settings = flat(component)
    for name, text in {**_BY_NAME, **own}.items():
        if name in settings:
            found[name] = dimension(text, settings[name])
    if getattr(type(component), "loader", "") in _OF_HISTORIES:
        found["fit.weigh"] = Choice(WEIGHS)
    if decay := settings.get("fit.weight_decay"):
        found["fit.weight_decay"] = Span(decay / 10, min(10.0, decay * 10), log=True)
    return found


def flat(component: Component, prefix: str = "") -> dict[str, Any]:
    """Return the settings of ``component`` by name, those of a component inside as ``fit.lr``."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(component):
        value = getattr(component, f.name)
        if isinstance(value, Component):
            out |= flat(value, f"{prefix}{f.name}.")
        elif isinstance(value, (bool, int, float, str)):
            out[prefix + f.name] = value
    return out


def dimension(told: Any, default: Any) -> Dimension:
    """Return the range that ``told`` means for a setting like ``default``.

    ``"1e-4..1e-2:log"``, ``"1..4"``, ``"32,64"``, one value, a list, or a table ``{low, high,
    log}``. Raises ValueError that says what is wrong with it.
    """
    if isinstance(told, Mapping):
        unknown = sorted(set(told) - {"low", "high", "log"})
        if unknown or not {"low", "high"} <= set(told):
            raise ValueError(f"{dict(told)}: a range is a table of low, high and, if wanted, log")
        return _span(told["low"], told["high"], bool(told.get("log", False)), default)
    if isinstance(told, str) and ".." in told:
        bounds, _, how = told.partition(":")
        if how not in ("", "log"):
            raise ValueError(f"{told!r}: after the range may stand :log, not :{how}")
        low, _, high = bounds.partition("..")
        return _span(low, high, how == "log", default)
    values = told.split(",") if isinstance(told, str) else told
    values = values if isinstance(values, (list, tuple)) else [values]
    read = tuple(_value(v, default) for v in values)
    if not read or len(set(read)) < len(read):
        raise ValueError(f"{told!r}: give values that differ, such as 32,64")
    return Choice(read)


def _span(low: Any, high: Any, log: bool, default: Any) -> Span:
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        raise ValueError(f"{low}..{high}: the default {default!r} is no number; list values: a,b")
    whole = isinstance(default, int)
    a, b = float(_value(low, default)), float(_value(high, default))
    if not a < b:
        raise ValueError(f"{low}..{high}: the first bound must be below the second")
    if log and a <= 0:
        raise ValueError(f"{low}..{high}:log: a range by magnitude begins above 0")
    return Span(int(a) if whole else a, int(b) if whole else b, log, whole)


def _value(told: Any, default: Any) -> Any:
    """Return ``told`` as a value of the type of ``default``."""
    kind = type(default)
    text = told.strip() if isinstance(told, str) else told
    try:
        if kind is bool:
            named = {"true": True, "false": False}
            return text if isinstance(text, bool) else named[str(text).lower()]
        if kind is str:
            return str(text)
        number = float(text)
        if isinstance(text, bool) or not math.isfinite(number):
            raise ValueError
        if kind is int and number != int(number):
            raise ValueError
        return int(number) if kind is int else number
    except (KeyError, TypeError, ValueError):
        what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{told!r} is not like the default {default!r}: {what}") from None
