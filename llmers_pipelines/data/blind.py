"""A log as a search for settings may see it."""

from __future__ import annotations

from .training import TEST, TrainingData
from .views import kept_rows


def without_test(data: TrainingData) -> TrainingData:
    """Return ``data`` without its TEST rows; ids, fields and every other row stay as they are."""
    return kept_rows(data, data.split != TEST)
