"""implicit's ALS, BPR and item neighbours on a given split: fit, CPU seconds, scores."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from measure import TEST, VALID, Job
from scipy.sparse import csr_matrix


def make(name: str, options: dict[str, Any]) -> Any:
    if name == "ALS":
        from implicit.cpu.als import AlternatingLeastSquares

        return AlternatingLeastSquares(num_threads=1, **options)
    if name == "BPR":
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        return BayesianPersonalizedRanking(num_threads=1, **options)
    from implicit.nearest_neighbours import CosineRecommender

    return CosineRecommender(num_threads=1, **options)


def main() -> None:
    job = Job()
    log = job.log()
    shape = (int(log["n_users"]) + 1, int(log["n_items"]) + 1)

    def matrix(split: int) -> csr_matrix:
        rows = log["split"] < split
        ones = np.ones(int(rows.sum()), np.float32)
        return csr_matrix((ones, (log["user"][rows], log["item"][rows])), shape)

    seen = matrix(VALID)
    config = dict(job.get("config", {}))
    if "random_state" in config:
        config["random_state"] = job.get("seed", 0)
    model = make(job["model"], config)
    start = time.process_time()
    model.fit(seen, show_progress=False)
    job.result["cpu_total"] = time.process_time() - start
    for code in (VALID, TEST):
        past = matrix(code)
        if hasattr(model, "similarity"):
            scores = (past @ model.similarity).toarray()
        elif job.get("fold_in"):  # user factors anew from all that is known then
            users = model.recalculate_user(np.arange(shape[0]), past)
            scores = users @ model.item_factors.T
        else:
            scores = model.user_factors @ model.item_factors.T
        job.scores(code, np.asarray(scores, np.float32))
    job.write("implicit", "numpy")


if __name__ == "__main__":
    main()
