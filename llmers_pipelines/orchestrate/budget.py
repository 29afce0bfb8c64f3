"""What a training was allowed and used, as its cell records it: base and enhanced must agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..node import Component, Node


def settings_of(component: Component, prefix: str = "") -> dict[str, Any]:
    """Return the settings of a backbone as plain values, nested ones as ``fit.lr``."""
    out: dict[str, Any] = {} if prefix else {"kind": type(component).__name__}
    for f in dataclasses.fields(component):
        value = getattr(component, f.name)
        if not f.compare:
            continue  # how, not what: no part of an identity
        if isinstance(value, Component):
            out |= settings_of(value, f"{prefix}{f.name}.")
        elif isinstance(value, Node):
            out[prefix + f.name] = value.name
        else:
            plain = value is None or isinstance(value, (bool, int, float, str))
            out[prefix + f.name] = value if plain else repr(value)
    return out


def budgets(
    base: Sequence[Mapping[str, Any]], enhanced: Sequence[Mapping[str, Any]], log: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the records of two arms' cells say of their budgets, in comparable form.

    ``log`` is the name of the log's asset. What not every record tells (cells of an earlier
    version kept no settings) is left out on both sides.
    """
    both = [*base, *enhanced]
    told = all("backbone" in r for r in both)
    made = all(log in r.get("made_from", {}).get("inputs", {}) for r in both)

    def of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {
            "trainings": len(records), "seeds": sorted(r["seed"] for r in records),
        }  # fmt: skip
        if made:
            out["log"] = _one(r["made_from"]["inputs"][log] for r in records)
        if told:
            names = sorted({n for r in records for n in r["backbone"]})
            out |= {n: _one(r["backbone"].get(n) for r in records) for n in names}
            out["trainings beyond the bound on epochs"] = sum(
                r["epochs"] > r["backbone"].get("fit.epochs", r["epochs"]) for r in records
            )
        return out

    return of(base), of(enhanced)


def _one(values: Iterable[Any]) -> Any:
    """Return what all trainings of an arm share, or the list of what they have."""
    distinct = sorted(set(values), key=repr)
    return distinct[0] if len(distinct) == 1 else distinct
