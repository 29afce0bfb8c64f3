"""A sample of users, for what is too dear to be asked about all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..data.training import TRAIN
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class SampledUsers(DerivedTable):
    """At most ``n`` users with at least ``least`` training rows, drawn uniformly by ``seed``.

    Sources: the users and the splits. The rows of the table of users stay in their order.
    """

    rows: ClassVar[str] = "entities"

    n: int = 500
    least: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.least < 1:
            raise ValueError(f"SampledUsers(n={self.n}, least={self.least}): at least 1 of each")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        users = given.table()
        data = given.log
        rows = np.bincount(data.user[data.split == TRAIN], minlength=data.n_users + 1)
        rows[0] = 0
        able = np.flatnonzero(rows[data.users.index(users["user_id"].to_pylist())] >= self.least)
        drawn = np.random.default_rng([self.seed, 13]).permutation(able)[: self.n]
        return users.take(np.sort(drawn)), {"able": len(able), "drawn": len(drawn)}
