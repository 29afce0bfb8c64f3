"""Rankings from a file that the data set declares: a teacher that ran elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.leakage import recorded_flags
from ..data.rankings import RankingSpec, read_rankings
from ..data.training import TrainingData
from .teacher import Taught, Teacher, positions_of


@dataclass(frozen=True)
class RecordedRanking(Teacher):
    """Rankings of ``[rankings.<name>]`` of the data set; without a name the first declared one.

    The file says what its teacher saw (``data_cutoff``): the split at hand, or the asset is
    refused. Rows without a position stand for the user's newest training position.
    """

    name: str = ""

    def teach(
        self, spec: RankingSpec, folder: Any, data: TrainingData, *, accept_contaminated: bool
    ) -> Taught:
        """Return the usable rankings; the others come back as refused rows with their reason.

        Raises LeakageError where the teacher saw more than the training rows, DataError where the
        file cannot be read or holds no usable ranking.
        """
        flags = recorded_flags(spec, data, accept_contaminated=accept_contaminated)
        user, position = positions_of(data)
        last = np.zeros(data.n_users + 1, np.int64)
        np.maximum.at(last, user, position)
        read = read_rankings(spec, folder, data, last, k=self.k, newest=self.newest)
        return Taught(
            read.rows, f"{spec.model or 'unnamed teacher'} (recorded)",
            counts={"records": read.records, "refused": read.refused.num_rows},
            flags=flags, refused=read.refused,
        )  # fmt: skip
