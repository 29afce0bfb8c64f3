"""Both sides of a comparison: one split as files, one process per side, one metric code.

Each side runs alone, with one thread, so that its CPU seconds and its peak memory are its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from install import python_of

from llmers_pipelines.data.catalog import Catalog, load_catalog
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.data.spans import history_spans
from llmers_pipelines.data.splits import build_training_data
from llmers_pipelines.data.training import TEST, VALID, TrainingData
from llmers_pipelines.evaluate.ctr import auc
from llmers_pipelines.evaluate.predict import rank_table
from llmers_pipelines.evaluate.ranking import user_values
from llmers_pipelines.evaluate.sampled import Draw, sampled_rank_table
from llmers_pipelines.models.knowledge_net import join_triples

RUNNERS = Path(__file__).resolve().parent / "runners"
ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {n: "1" for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                               "NUMEXPR_NUM_THREADS")}  # fmt: skip
SPLITS = {"valid": VALID, "test": TEST}


class Finished:
    """A model whose scores are known: float32[U + 1, N + 1] by position."""

    def __init__(self, scores: np.ndarray) -> None:
        self.table = scores

    def scores(self, users: np.ndarray, histories: Any) -> np.ndarray:
        return self.table[users]


@dataclass(frozen=True)
class Split:
    """A log as both sides read it: ``TrainingData`` files and ``split.npz`` of plain arrays.

    ``facts.npz`` beside them holds the data set's knowledge graph where it has one.
    """

    data: TrainingData
    folder: Path

    def values(self, folder: Path, split: str = "test", metric: str = "ndcg@10") -> np.ndarray:
        """Return a metric per user, sorted by user, of the scores that a side left."""
        scores = np.load(folder / f"scores_{split}.npy")
        table = rank_table(Finished(scores), self.data, SPLITS[split])
        return user_values(table, [metric]).values[metric]

    def sampled(self, folder: Path, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Return HR@10 and NDCG@10 per user of the test targets among 100 drawn negatives."""
        scores = np.load(folder / "scores_test.npy")
        table = sampled_rank_table(Finished(scores), self.data, TEST, draw=draw)
        values = user_values(table, ["hr@10", "ndcg@10"]).values
        hits, gain = (values[f"{metric}@10_100{draw[0]}"] for metric in ("hr", "ndcg"))
        return hits, gain

    def auc(self, folder: Path, split: str = "test") -> float:
        assert self.data.label is not None
        here = self.data.split == SPLITS[split]
        return auc(self.data.label[here], np.load(folder / f"scores_{split}.npy")) or 0.0

    def misses(self, folder: Path, split: str = "test") -> np.ndarray:
        """Return prediction - rating of each row of a split, in the log's order."""
        assert self.data.rating is not None
        here = self.data.split == SPLITS[split]
        return np.load(folder / f"scores_{split}.npy") - self.data.rating[here]


def open_split(name: str, task: str, folder: Path) -> Split:
    """Write the split ``task`` of the data set ``name`` into ``folder``."""
    description = find_dataset(name)
    catalog = load_catalog(description, os.environ.get("LLMERS_DATA_ROOT"))
    if task == "rating":  # the fold of the clicks, with what they were made of
        data = build_training_data(catalog, description, "ctr")
        return write_split(dataclasses.replace(data, task="rating", label=None), folder)
    split = write_split(build_training_data(catalog, description, task), folder)
    if "kg" in catalog.extras:
        write_facts(catalog, split)
    return split


def write_facts(catalog: Catalog, split: Split) -> None:
    """Write ``facts.npz``: triples as our models join them to the log, for all sides.

    head, relation, tail: int64[T], entities 1..N are the items of the log, others come after them;
    linked: bool[N + 1], items that some triple speaks of.
    """
    tables = catalog.extras["kg"], catalog.extras["kg_link"]
    triples = join_triples(*tables, split.data.items, "kg")
    arrays = {n: getattr(triples, n) for n in ("head", "relation", "tail", "linked")}
    np.savez(split.folder / "facts.npz", **arrays)


def write_split(data: TrainingData, folder: Path) -> Split:
    data.save(folder)
    arrays = {"user": data.user, "item": data.item, "split": data.split,
              "n_users": np.array(data.n_users), "n_items": np.array(data.n_items)}  # fmt: skip
    if data.label is not None:
        # what the user liked before row r, by our loader's rule: liked[begin[r] : end[r]]
        seen, begin, end = history_spans(data, data.label > 0)
        arrays |= {"label": data.label, "liked": data.item[seen], "begin": begin, "end": end}
    if data.task == "rating":
        arrays["rating"] = data.rating
    if data.scenario is not None:
        arrays["scenario"] = data.scenario.codes
    for side, fields in (("user", data.user_fields), ("item", data.item_fields)):
        arrays |= {f"{side}_field.{name}": f.codes for name, f in fields.items()}
    np.savez(folder / "split.npz", **arrays)
    return Split(data, folder)


def run(side: str, job: dict[str, Any], split: Split, out: Path) -> dict[str, Any]:
    """Run one side, the name of a runner, and return its result.

    What it prints goes to ``out/log.txt``; SystemExit with the end of that file where it fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    given = out / "job.json"
    given.write_text(json.dumps({**job, "split": str(split.folder), "out": str(out)}))
    python = Path(sys.executable) if side == "ours" else python_of()
    env = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT) if side == "ours" else ""}
    with open(out / "log.txt", "w") as log:
        done = subprocess.run(
            [python, RUNNERS / f"run_{side}.py", given], stdout=log, stderr=subprocess.STDOUT,
            env=env, cwd=out,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side} failed; the end of {out / 'log.txt'}:\n"
                         + (out / "log.txt").read_text()[-2000:])  # fmt: skip
    return json.loads((out / "result.json").read_text())


def place(given: Path | None, name: str) -> Path:
    """Return the folder where a benchmark leaves its files: ``given/name`` or a temporary one."""
    return given / name if given else Path(tempfile.mkdtemp(prefix=f"peers-{name}-"))
