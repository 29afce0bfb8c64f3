"""What methods of each task are measured against."""

from __future__ import annotations

from ..config import Settings
from ..data.tasks import TASKS

# Conventional baselines that a base must not fall behind, where they are loaded (the first always).
REFERENCES = {
    "sequential": ("itemknn", "ease"),
    "collaborative": ("itemknn", "ease"),
    "ctr": ("deepfm", "din"),
    "multi_scenario": ("deepfm", "din"),
}
# The same texts used without any training: a method must beat it like any other control.
UNTRAINED = {"sequential": "knnblend", "collaborative": "knnblend"}
# What no champion may be below on validation.
FIXED_REFERENCE = {**UNTRAINED, "ctr": "deepfm", "multi_scenario": "deepfm"}


def task_of(protocol: str) -> str:
    """Return the task of a named split: ``ctr_time`` is a variant of ``ctr``."""
    found = (t for t in TASKS if protocol == t or protocol.startswith(f"{t}_"))
    return next(found, protocol.split("_")[0])


def wanted(settings: Settings) -> set[str] | None:
    """Return the slugs that a plan reads: the chosen ones and what they are measured against."""
    beside = {*(s for group in REFERENCES.values() for s in group), *FIXED_REFERENCE.values()}
    return {m.recipe for m in settings.methods} | beside if settings.methods else None
