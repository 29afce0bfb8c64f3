"""What a ``Tune`` node runs: an objective over a table of examples, and the adapter it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..plan import Component, PlanError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCHEDULES = ("constant", "linear", "cosine")
Report = Callable[[Mapping[str, Any]], None]


class TuneError(RuntimeError):
    """A model cannot be tuned as asked; the message names what is wrong and the mend."""


@dataclass(frozen=True)
class Lora(Component):
    """A low-rank adapter (Hu et al., ICLR 2022): ``W x + (alpha / rank) B A dropout(x)``.

    ``targets`` are names of linear layers; none takes those that PEFT knows for the architecture
    (queries and values, mostly), ``("all",)`` every linear layer but the output head. B starts at
    zero, so step 0 is the base model.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise PlanError(
                f"Lora(rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}): rank is at "
                "least 1, alpha above 0, dropout a share in [0, 1)"
            )


@dataclass(frozen=True)
class Tuner(Component):
    """Settings that every objective shares; a subclass adds its own and ``objective``.

    ``base`` says what is tuned: the language model or the encoder. ``columns`` are those of the
    examples that the objective reads; each row has an ``example_id`` as well. The learning rate
    rises over the first ``warmup`` share of the steps and then follows ``schedule`` down to zero.
    ``clip`` bounds the norm of a step's gradient; 0 leaves it as it is.
    """

    base: ClassVar[Literal["llm", "encoder"]] = "llm"
    columns: ClassVar[tuple[str, ...]] = ()
    partial: ClassVar[bool] = False  # the adapter fits a part of the model, not the whole

    lora: Lora = field(default_factory=Lora)
    lr: float = 1e-4
    batch: int = 16
    epochs: int = 3
    warmup: float = 0.03
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = 0.0
    clip: float = 1.0
    max_tokens: int = 1024  # of one example
    seed: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.schedule not in SCHEDULES:
            raise PlanError(f"{name}: schedule is {self.schedule!r}; use one of {SCHEDULES}")
        for setting, least in (("batch", 1), ("epochs", 1), ("max_tokens", 2)):
            if getattr(self, setting) < least:
                raise PlanError(f"{name}({setting}={getattr(self, setting)}): at least {least}")
        if self.lr <= 0 or not 0 <= self.warmup < 1 or self.weight_decay < 0 or self.clip < 0:
            raise PlanError(
                f"{name}(lr={self.lr}, warmup={self.warmup}, weight_decay={self.weight_decay}, "
                f"clip={self.clip}): lr above 0, warmup a share in [0, 1), the others at least 0"
            )

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter over the model is published; else other weights alone."""
        return True

    def objective(self, base: Base, examples: pa.Table, *sources: Any) -> Any:
        """Return the model with its adapter and the loss over ``examples`` (``loop_net.Task``).

        ``sources`` are what the node names beside its examples.
        """
        raise NotImplementedError

    def reader(self, base: Base, home: Path, vectors: Any) -> Any:
        """Return the tuned model of the version at ``home`` as a function of rows of vectors.

        Rows are tensors (L, W); the result has the states (B, E) of each row's last token, of what
        enters and after each layer, and ``device`` says where. ``vectors`` is the table of item
        vectors. Objectives whose model reads no vectors raise ``TuneError``.
        """
        raise TuneError(f"{type(self).__name__} tunes a model that reads no vectors")

    def states(self, base: Base, home: Path, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 (n, E): what the tuned model makes of sequences of vectors (L, W)."""
        raise TuneError(f"{type(self).__name__} tunes a model that reads no vectors")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of ``step`` (from 0) of ``steps``."""
        import math

        rising = max(1, round(self.warmup * steps)) if self.warmup else 0
        if step < rising:
            return self.lr * (step + 1) / rising
        left = 1 - (step - rising) / max(1, steps - rising)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 - math.cos(math.pi * left))
        return self.lr * (left if self.schedule == "linear" else 1.0)


@dataclass(frozen=True)
class Base:
    """The model that is tuned, and where: settings outside of any identity.

    ``batch_tokens`` bounds the tokens of one forward pass; 0 leaves it to the device.
    """

    folder: Path
    device: str = "cpu"
    dtype: str = "float32"
    batch_tokens: int = 0
    pooling: str = "mean"  # this and the next ones: of an encoder
    max_length: int = 256
    prefix: str = ""
    layer: int = -1
    normalize: bool = False

    @property
    def tokens(self) -> int:
        return self.batch_tokens or (65_536 if self.device.startswith("cuda") else 16_384)
