"""DeepCTR-Torch's own click models and training on a given split; see ``measure.Job``.

Fields are the ids and the declared columns, where an entity has several values their mean. Its MMOE
and PLE know tasks of which every row has all labels: here each scenario is a task, and a row counts
in the loss of its own task alone.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from measure import TEST, VALID, Job, train_until_best
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

sys.modules["requests"] = ModuleType("requests")  # importing it asks for its newest version by this
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat  # noqa: E402
from deepctr_torch.models import FiBiNET  # noqa: E402
from deepctr_torch.models.multitask import MMOE, PLE  # noqa: E402

CLICKS = {"FiBiNET": FiBiNET}
SCENARIOS = {"MMOE": MMOE, "PLE": PLE}
BATCH = 256  # the default of its ``fit``


def inputs(log: dict[str, np.ndarray], dim: int) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Return the feature columns and the values of each, (R,) or (R, M) with 0 for none."""
    columns, values = [], {}
    for side in ("user", "item"):
        columns.append(SparseFeat(side, int(log[f"n_{side}s"]) + 1, dim))
        values[side] = log[side]
        for name in (n for n in log if n.startswith(f"{side}_field.")):
            codes, own = log[name], name.replace(".", "_")
            column: Any = SparseFeat(own, int(codes.max()) + 1, dim)
            if codes.ndim == 2:
                column = VarLenSparseFeat(column, maxlen=codes.shape[1], combiner="mean")
            columns.append(column)
            values[own] = codes[log[side]]
    return columns, values


def own_task(p: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
    """Return the cross-entropy of the entries of ``y`` (B, T) that are a label, not -1."""
    here = y >= 0
    return F.binary_cross_entropy(p[here], y[here], reduction=reduction)


def main() -> None:
    torch.set_num_threads(1)
    job = Job()
    log, config, seed = job.log(), dict(job.get("config", {})), job.get("seed", 1024)
    columns, values = inputs(log, config.pop("dim", 16))
    label, loss, scenarios = log["label"], "binary_crossentropy", log.get("scenario")
    by_scenario = job["model"] in SCENARIOS
    if by_scenario:
        count = int(scenarios.max())
        config |= {"task_types": ["binary"] * count, "task_names": list(map(str, range(count)))}
        model = SCENARIOS[job["model"]](columns, seed=seed, **config)
        loss = own_task
        target = np.where(scenarios[:, None] == np.arange(1, count + 1), label[:, None], -1)
    else:
        model = CLICKS[job["model"]](columns, columns, seed=seed, **config)
        target = label
    model.compile("adam", loss)
    job.result["parameters"] = sum(p.numel() for p in model.parameters())

    def predicted(code: int) -> np.ndarray:
        here = log["split"] == code
        p = model.predict({n: v[here] for n, v in values.items()}, 4096)
        if not by_scenario:
            return p[:, 0]
        own = scenarios[here]
        return np.where(own > 0, p[np.arange(len(p)), own - 1], p.mean(1))  # 0: unknown

    def improved() -> None:
        for code in (VALID, TEST):
            job.scores(code, predicted(code))
        job.write("deepctr-torch", "torch")

    train, valid = log["split"] == 0, log["split"] == VALID
    known = {n: v[train] for n, v in values.items()}
    train_until_best(
        job, lambda _: model.fit(known, target[train], BATCH, epochs=1, verbose=0),
        lambda: float(roc_auc_score(label[valid], predicted(VALID))), improved,
    )  # fmt: skip
    job.write("deepctr-torch", "torch")


if __name__ == "__main__":
    main()
