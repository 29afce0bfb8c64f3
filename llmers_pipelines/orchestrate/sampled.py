"""Metrics against sampled negatives, to hold a training beside the table of a paper.

They do not keep the order of models, so they are made when asked for, carry the sample in their
names, and are part of no evaluation, comparison or gate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..plan import Evaluate, Train
from .cell_tables import against_sample
from .cells import MAIN, Cell, cell_key
from .context import StepContext, StepError
from .steps.evaluate import arms_of

METRICS = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "mrr@10")
CAUTION = (
    "Sampled metrics do not keep the order of models (Krichene and Rendle, KDD 2020): they are for "
    "the tables of papers, not for a choice."
)


def read_sample(text: str) -> tuple[int, str]:
    """Return how many negatives ``100u`` or ``100p`` draws, and how."""
    found = re.fullmatch(r"([1-9][0-9]*)([up])", text.strip())
    if found is None:
        raise StepError(f"--sampled {text!r}: write 100u (uniform) or 100p (by popularity)")
    return int(found[1]), {"u": "uniform", "p": "popularity"}[found[2]]


def sampled_rows(
    evaluations: Iterable[Evaluate], ctx: StepContext, sample: str, task: str | None = None
) -> list[dict[str, Any]]:
    """Return method, task, arm, users and the sampled metrics of each ranking that is trained.

    Trainings are those of the first seed, on test. Nothing is trained: an arm without a stored
    training on the current inputs is told to ``ctx.log`` and left out.
    """
    negatives, draw = read_sample(sample)
    out = []
    for node in evaluations:
        if task is not None and node.model.log.task != task:
            continue
        arms = [(name, train) for name, train, arm in arms_of(node) if arm == MAIN]
        for name, train in arms:
            cell = _stored(train, ctx)
            data = ctx.load(train.log) if cell is not None else None
            if cell is None or data is None:
                ctx.log(f"{node.model.slug}: arm {name} is not trained on the current inputs; "
                        f"`llmers run {node.model.slug}` trains it")  # fmt: skip
            elif data.label is None and data.task != "rating":
                values = _values(cell, train, data, negatives, draw)
                row = {"method": node.model.slug, "task": train.log.task, "arm": name}
                out.append(row | values)
    return out


def _stored(train: Train, ctx: StepContext) -> Cell | None:
    if any(ctx.manifests.current(ctx.dataset, n.name) is None for n in train.inputs):
        return None
    folder = ctx.root / "cells" / ctx.dataset / cell_key(train, MAIN, 0, ctx)
    path = folder / "cell.json"
    return Cell(folder, json.loads(path.read_text()), False) if path.is_file() else None


def _values(
    cell: Cell, train: Train, data: Any, negatives: int, draw: str
) -> dict[str, int | float | None]:
    from ..evaluate.ranking import user_values
    from ..evaluate.sampled import expected_hit

    found = user_values(against_sample(cell, train, data, negatives, draw), METRICS)
    out: dict[str, int | float | None] = {"users": len(found.users), **found.means()}
    full = cell.table("test")
    if draw == "uniform" and full.num_rows == len(found.users):  # one target each
        rank, candidates = (full[c].to_numpy() for c in ("rank", "n_candidates"))
        for k in (5, 10):
            hit = expected_hit(rank, candidates, negatives, k)
            out[f"expected hr@{k}_{negatives}u"] = float(np.mean(hit))
    return out
