"""A log as a search for settings may see it."""

from __future__ import annotations

import dataclasses

import numpy as np

from .training import TEST, TrainingData


def without_test(data: TrainingData) -> TrainingData:
    """Return ``data`` without its TEST rows; ids, fields and every other row stay as they are."""
    keep = data.split != TEST

    def kept(rows: np.ndarray | None) -> np.ndarray | None:
        return None if rows is None else rows[keep]

    scenario = data.scenario
    if scenario is not None:
        scenario = dataclasses.replace(scenario, codes=scenario.codes[keep])
    return dataclasses.replace(
        data, user=data.user[keep], item=data.item[keep], time=data.time[keep],
        split=data.split[keep], rating=kept(data.rating), label=kept(data.label),
        impression=kept(data.impression), scenario=scenario,
    )  # fmt: skip
