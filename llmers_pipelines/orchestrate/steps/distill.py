"""Distill: a Train whose targets come, in part, from a teacher; nothing else differs."""

from __future__ import annotations

from ...plan import Distill
from ..context import Outcome, StepContext
from . import train


def run(node: Distill, ctx: StepContext) -> Outcome:
    """Train the student (or read its cell back) and publish it like any recommender."""
    return train.run(node, ctx)
