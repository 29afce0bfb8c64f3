"""How weights are fitted: one settings object shared by all trained backbones."""

from __future__ import annotations

from dataclasses import dataclass

from ..plan import Component, PlanError, later

PRECISIONS = ("float32", "bfloat16")
WEIGHS = ("batch", "target")


@dataclass(frozen=True)
class Fit(Component):
    """Optimizer and stopping rule. Selection is on the validation split, never on test.

    ``weigh`` says what counts alike in a training over histories. Their batches hold like lengths:
    under "target" each target of an epoch counts alike, as where lengths are mixed; under "batch"
    a target of a short history moves the weights more than one of a long history. What a part adds
    per window or batch (``extra_loss``) is not weighed. ``clip`` bounds a batch as it is weighed.
    """

    lr: float = 1e-3
    batch: int = 128  # users (sequence), pairs (collaborative) or rows (ctr) per step
    epochs: int = 200  # upper bound
    min_epochs: int = 5  # no stop before
    patience: int = 10  # evaluations without improvement
    eval_every: int = 1  # epochs between evaluations
    weight_decay: float = 0.0
    schedule: str = "constant"  # or "cosine"
    metric: str = "ndcg@10"  # "auc" for ctr
    clip: float = later(0.0)  # the gradient's norm is bounded by it; 0 = no bound
    precision: str = later("float32")  # of the loss; "bfloat16" where a device is faster in it
    # or "batch", the default before: backbones over histories raised their revisions for it
    weigh: str = later("target")

    def __post_init__(self) -> None:
        if self.weigh not in WEIGHS:
            raise PlanError(f"fit.weigh is {self.weigh!r}; use one of {', '.join(WEIGHS)}")
        if self.precision not in PRECISIONS:
            raise PlanError(
                f"fit.precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}"
            )
        if self.clip < 0:
            raise PlanError(f"fit.clip is {self.clip}; a norm above 0, or 0 for no bound")
