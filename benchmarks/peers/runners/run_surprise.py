"""Surprise's SVD (biased matrix factorization) on a given split: fit, CPU seconds, ratings."""

from __future__ import annotations

import time

import numpy as np
from measure import TEST, VALID, Job
from surprise import SVD, Dataset, Reader, Trainset


def trainset(log: dict[str, np.ndarray]) -> Trainset:
    """Return the training rows under the log's own positions."""
    rows = log["split"] == 0
    rating = log["rating"][rows]
    reader = Reader(rating_scale=(float(rating.min()), float(rating.max())))
    given = zip(log["user"][rows], log["item"][rows], rating.astype(float), strict=True)
    folds = Dataset.load_from_folds([], reader)
    return folds.construct_trainset([(int(u), int(i), r, None) for u, i, r in given])


def main() -> None:
    job = Job()
    log = job.log()
    known = trainset(log)
    model = SVD(random_state=job.get("seed", 0), **job.get("config", {}))
    start = time.process_time()
    model.fit(known)
    job.result["cpu_total"] = time.process_time() - start
    for code in (VALID, TEST):
        here = log["split"] == code
        pairs = zip(log["user"][here].tolist(), log["item"][here].tolist(), strict=True)
        job.scores(code, np.array([model.predict(u, i).est for u, i in pairs]))
    job.write("scikit-surprise", "numpy")


if __name__ == "__main__":
    main()
