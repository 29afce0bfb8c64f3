"""Our models and the peers' own on one split: CPU seconds, memory, metric, ratios.

    python benchmarks/peers/compare.py sasrec [--train] [--peer-budget 600] [--keep FOLDER]

Cases: sasrec, gru4rec, bert4rec, lightgcn (NDCG@10, leave-one-out, all items), deepfm, dcnv2,
autoint (AUC). Each side is a process of its own with one thread; an epoch is the least over repeats
of whole epochs of ours and of RecTools, and of ``--steps`` real training steps of RecBole times its
steps in an epoch. ``--train`` trains every side with early stopping on its own validation and
compares metrics by one code; a peer stops at ``--peer-budget`` CPU seconds. Needs the environment
that ``install.py`` makes and ml100k below LLMERS_DATA_ROOT.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sides import Split, open_split, place, run


@dataclass(frozen=True)
class Entry:
    """One side of a case."""

    label: str
    side: str  # a runner
    model: str
    config: dict[str, Any] = field(default_factory=dict)
    time: bool = True
    train: bool = True
    epochs: int = 300
    patience: int = 10
    eval_every: int = 1
    fold_in: bool = False  # implicit: factors of users anew from what is known at scoring

    def more(self) -> dict[str, Any]:
        return {"fold_in": True} if self.fold_in else {}


def ours(model: str, label: str = "ours", train: bool = True, **config: Any) -> Entry:
    return Entry(label, "ours", model, config, train=train)


def recbole(model: str, **more: Any) -> Entry:
    return Entry("RecBole", "recbole", model, **more)


# The fastest found of each click model whose validation AUC is at RecBole's, or below by .0005.
LEAN = {"grouped": True, "dim": 8, "mlp": (64,), "act": "relu", "max_len": 10}
# RecBole's own sizes; ours has five fields more, the means of what was liked, here of one row.
SAME = {"grouped": True, "act": "relu", "dropout": 0.2, "max_len": 1, "fit": {"batch": 2048}}
HALF = {"precision": "bfloat16"}  # of products; sums and the optimizer stay in float32
ALS = {"factors": 64, "random_state": 0}
RECTOOLS = {"n_factors": 64, "n_blocks": 2, "n_heads": 2, "session_max_len": 50}
CASES: dict[str, tuple[str, list[Entry]]] = {
    "sasrec": ("sequential", [
        recbole("SASRec"),
        Entry("RecTools", "rectools", "SASRec", RECTOOLS, epochs=200, patience=10, eval_every=2),
        ours("SASRec"),
        ours("SASRec", "ours, 2 blocks, 2 heads", train=False, layers=2, heads=2,
             positions="right"),
        ours("SASRec", "ours, 2 blocks, 2 heads, bfloat16", train=False, layers=2, heads=2,
             positions="right", fit=HALF),
        ours("SASRec", "ours, bfloat16", fit=HALF),
        ours("SASRec", "ours, quick", fit={"lr": 0.003}),
    ]),
    "gru4rec": ("sequential", [
        recbole("GRU4Rec"), ours("GRU4Rec"), ours("GRU4Rec", "ours, bfloat16", fit=HALF),
        ours("GRU4Rec", "ours, lean", hidden=64, dim=32, fit={"batch": 256, "lr": 0.004}),
    ]),
    "bert4rec": ("sequential", [
        recbole("BERT4Rec"),
        Entry("RecTools", "rectools", "BERT4Rec", RECTOOLS, epochs=400, patience=15, eval_every=4),
        ours("BERT4Rec"), ours("BERT4Rec", "ours, bfloat16", fit=HALF),
    ]),
    "lightgcn": ("sequential", [
        recbole("LightGCN", epochs=40, patience=40),
        Entry("implicit ALS", "implicit", "ALS", ALS, time=False),
        Entry("implicit ALS, users anew", "implicit", "ALS", ALS, time=False, fold_in=True),
        ours("LightGCN", "ours, BPR, same steps", train=False, loss="bpr", layers=2,
             fit={"batch": 2048}),
        ours("LightGCN"),
        ours("LightGCN", "ours, quick", fit={"batch": 4096, "lr": 0.02, "epochs": 60,
                                             "min_epochs": 10, "patience": 10}),
    ]),
    "deepfm": ("ctr", [
        recbole("DeepFM"), ours("DeepFM"),
        ours("DeepFM", "ours, RecBole's sizes", **SAME, dim=10),
        ours("DeepFM", "ours, lean", **LEAN | {"dim": 6, "mlp": (48,)},
             fit={"batch": 8192, "lr": 0.01}),
    ]),
    "dcnv2": ("ctr", [
        recbole("DCNV2"), ours("DCNv2"),
        ours("DCNv2", "ours, RecBole's sizes", **SAME, mlp=(768, 768), structure="stacked"),
        ours("DCNv2", "ours, lean", **LEAN, crosses=2, fit={"batch": 4096, "lr": 0.008}),
    ]),
    "autoint": ("ctr", [
        recbole("AutoInt"), ours("AutoInt"),
        ours("AutoInt", "ours, RecBole's sizes", **SAME, dim=10, mlp=(128, 128), attention=16),
        ours("AutoInt", "ours, lean", **LEAN | {"act": "dice", "max_len": 15}, layers=1, heads=1,
             attention=4, fit={"batch": 8192, "lr": 0.012}),
    ]),
}  # fmt: skip


def measure(entry: Entry, split: Split, args: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Return one row: time of an epoch and, with ``--train``, the metric of a whole training."""
    row: dict[str, Any] = {"label": entry.label}
    name = entry.side + "-" + re.sub("[ ']", "", entry.label).replace(",", "-")
    job = {"model": entry.model, "config": entry.config, "repeats": args.repeats,
           "time_steps": args.steps, "seed": args.seed, **entry.more()}  # fmt: skip
    if entry.time and not args.no_time:
        row |= run(entry.side, {**job, "mode": "time"}, split, home / f"{name}-time")
    if args.train and entry.train:
        job |= {"mode": "train", "epochs": entry.epochs, "patience": entry.patience,
                "eval_every": entry.eval_every}  # fmt: skip
        if entry.side != "ours":
            job["cpu_budget"] = args.peer_budget
        out = home / f"{name}-train"
        row["training"] = run(entry.side, job, split, out)
        if split.data.label is None:
            row["test"], row["valid"] = split.values(out), split.values(out, "valid")
        else:
            row["auc"] = split.auc(out)
    return row


def targets_of(split: Split) -> int:
    """Training rows with something before them; all training rows of a click log."""
    train = split.data.user[split.data.split == 0]
    first = len(np.unique(train)) if split.data.task == "sequential" else 0
    return len(train) - first


def reached(row: dict[str, Any], value: float) -> float | None:
    """Return the CPU seconds after which a training's validation first reached ``value``."""
    return next((s for _, s, v in row["training"]["history"] if v >= value), None)


def table(case: str, rows: list[dict[str, Any]], targets: int) -> list[str]:
    """Return the lines of the result; ratios are peer / ours (default)."""
    lines, unit = [], "row" if case == "bert4rec" else "target"  # a mask hides a part of the rows
    best = next((r for r in rows if r["label"] == "ours" and "cpu_per_epoch" in r), None)
    peer = next((r for r in rows if r["label"] == "RecBole" and "cpu_per_epoch" in r), None)
    for r in rows:
        if "cpu_per_epoch" not in r:
            continue
        own = r.get("samples", targets) if r["label"] == "RecTools" else targets
        line = f"{r['label']:<26} {r['cpu_per_epoch']:9.3f} CPU-s/epoch  {own:7,} {unit}s"
        line += f"  {1e6 * r['cpu_per_epoch'] / own:9.1f} us/{unit}  {r['peak_mb']:6.0f} MB"
        if best is not None:
            ratio = (r["cpu_per_epoch"] / own) / (best["cpu_per_epoch"] / targets)
            line += f"  x{ratio:.1f} per {unit}"
        if peer is not None and r["label"].startswith("ours"):
            line += f"  RecBole x{peer['cpu_per_epoch'] / r['cpu_per_epoch']:.1f}"
        if "timed_steps" in r:
            line += f"  ({r['timed_steps']} of {r['steps']} steps)"
        lines.append(line)
    mine = next((r for r in rows if r["label"] == "ours" and "training" in r), None)
    for r in rows:
        if "training" not in r:
            continue
        t = r["training"]
        line = f"{r['label']:<26} {t['cpu_total']:9.1f} CPU-s in all"
        if t.get("stopped") == "budget":
            line += " (budget used up)"
        if "auc" in r:
            line += f"  test AUC {r['auc']:.4f}"
        else:
            v = r["test"]
            line += f"  test NDCG@10 {v.mean():.4f} +- {v.std() / len(v) ** 0.5:.4f}"
            line += f"  validation {r['valid'].mean():.4f}"
            if mine is not None and mine is not r:
                gap = mine["test"] - v
                line += f"  ours - theirs {gap.mean():+.4f} +- {gap.std() / len(v) ** 0.5:.4f}"
        if mine is not None and mine is not r and t["history"]:
            value = t["auc"] if "auc" in t else t["valid"]
            ahead = reached(mine, value)
            if ahead is not None and t.get("cpu_to_best"):
                line += f"  their best validation: {t['cpu_to_best']:.1f} s, ours {ahead:.1f} s"
                line += f" (x{t['cpu_to_best'] / ahead:.1f})"
        lines.append(line)
    for r in (r for r in rows if "training" in r and r["label"].startswith("ours, ")):
        for peer in (p for p in rows if "training" in p and not p["label"].startswith("ours")):
            t = peer["training"]
            ahead = reached(r, t["auc"] if "auc" in t else t["valid"])
            if ahead is not None and t.get("cpu_to_best"):
                lines.append(
                    f"{r['label']:<26} {peer['label']}'s best validation after {ahead:.2f} "
                    f"of {t['cpu_to_best']:.1f} s (x{t['cpu_to_best'] / ahead:.1f})"
                )
    return lines


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return ``row`` without the values of users."""
    return {k: float(v.mean()) if isinstance(v, np.ndarray) else v for k, v in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--dataset", default="ml100k")
    parser.add_argument("--train", action="store_true", help="train all sides to convergence")
    parser.add_argument("--no-time", action="store_true", help="leave the timing of epochs out")
    parser.add_argument("--steps", type=int, default=4, help="steps of RecBole that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-budget", type=float, default=1200.0, help="CPU-s of a training")
    parser.add_argument("--only", help="labels of sides, separated by ;")
    parser.add_argument("--keep", type=Path, help="folder for files of both sides")
    args = parser.parse_args()
    home = place(args.keep and args.keep.resolve(), f"{args.case}-{args.dataset}")
    task, entries = CASES[args.case]
    split = open_split(args.dataset, task, home / "split")
    wanted = args.only.split(";") if args.only else [e.label for e in entries]
    rows = [measure(e, split, args, home) for e in entries if e.label in wanted]
    (home / "rows.json").write_text(json.dumps([plain(r) for r in rows], indent=1))
    print(f"{args.case} on {args.dataset}: {split.data.n_users} users, {split.data.n_items} items")
    print("\n".join(table(args.case, rows, targets_of(split))))


if __name__ == "__main__":
    main()
