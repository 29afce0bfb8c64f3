"""Teach by hidden states: what a tuned language model thinks at training positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ...data.training import TrainingData
from ...data.vectors import VectorTable
from ...plan import Teach, Tune, sha
from ...teach.teacher import Taught, positions_of
from ..context import StepContext, StepError
from ..tuned import log_of
from .tune import base_of


def tuned_states(node: Teach, ctx: StepContext, data: TrainingData) -> Taught:
    """Pass the training positions through the tuned model; a killed run goes on where it was."""
    tune = next((s for s in node.sources if isinstance(s, Tune)), None)
    if tune is None:
        raise StepError(f"{node.name}: name the tuned model among its sources")
    if (log := log_of([tune])) != node.log:
        raise StepError(
            f"{node.name}: {tune.name} was tuned on {log.name if log else 'no log'}, the student's "
            f"log is {node.log.name}; tune it on the same split"
        )
    loaded = [(s, ctx.load(s)) for s in node.sources if s is not tune]
    found = [(s, a) for s, a in loaded if isinstance(a, VectorTable)]
    reads = [s for s, _ in found if s in tune.context or getattr(s, "adapter", None) == tune]
    if len(found) != 1 or not reads:
        raise StepError(f"{node.name}: give it the item vectors that {tune.name} reads or makes")
    source, vectors = found[0]
    tuned = ctx.manifest(tune)
    base = base_of(tune, ctx)[0]
    versions = [ctx.manifest(n).data_version for n in (node.log, tune, source)]
    key = sha([node.code_version, *versions, tuned.info["base"], base.dtype], 20)

    def model() -> Any:
        return tune.how.reader(base, ctx.manifests.path(tuned), vectors)

    taught = node.how.teach(
        data, vectors, model, tune.how.most, ctx.settings.data / "teaching" / ctx.dataset / key,
        f"{tuned.info['base']}, tuned",
    )  # fmt: skip
    told = {"item_table": source.name, "item_table_version": versions[2]}
    return Taught(taught.rows, taught.label, {**taught.counts, **told}, shown=taught.shown)


def states_identity(table: pa.Table, data: TrainingData) -> tuple[bool, bool, dict[str, Any]]:
    """Return (passed, blocking, details): each layer once per training position, all finite."""
    user = data.users.index(table["user_id"].to_pylist())
    position, layer = table["position"].to_numpy(), table["layer"].to_numpy()
    real = set(zip(*(a.tolist() for a in positions_of(data)), strict=True))
    unknown = sum(p not in real for p in zip(user.tolist(), position.tolist(), strict=True))
    twice = len(user) - len(np.unique(np.stack([user, position, layer]), axis=1).T)
    values = table["vec"].combine_chunks().values.to_numpy(zero_copy_only=False)
    finite = bool(np.isfinite(values).all())
    details = {"unknown positions": unknown, "layers twice": twice, "states finite": finite}
    return not unknown and not twice and finite, True, details
