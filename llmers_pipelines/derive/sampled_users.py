"""A sample of users, for what is too dear to be asked about all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ..data.training import TRAIN, TrainingData
from .derivation import Derivation


@dataclass(frozen=True)
class SampledUsers(Derivation):
    """At most ``n`` users with at least ``least`` training rows, drawn uniformly by ``seed``.

    Sources: the users and the splits. The rows of the table of users stay in their order.
    """

    output: ClassVar[Literal["vectors", "table"]] = "table"
    rows: ClassVar[str] = "entities"

    n: int = 500
    least: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.least < 1:
            raise ValueError(f"SampledUsers(n={self.n}, least={self.least}): at least 1 of each")

    @property
    def needs_log(self) -> bool:
        return True

    def apply(
        self,
        sources: Sequence[Any],
        *,
        log: TrainingData | None = None,
        state_folder: Path | None = None,
    ) -> tuple[pa.Table, dict[str, Any]]:
        users = next(s for s in sources if isinstance(s, pa.Table))
        data = self.log_in(sources, log)
        rows = np.bincount(data.user[data.split == TRAIN], minlength=data.n_users + 1)
        rows[0] = 0
        able = np.flatnonzero(rows[data.users.index(users["user_id"].to_pylist())] >= self.least)
        drawn = np.random.default_rng([self.seed, 13]).permutation(able)[: self.n]
        return users.take(np.sort(drawn)), {"able": len(able), "drawn": len(drawn)}
