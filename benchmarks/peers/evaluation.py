"""Full-ranking evaluation of a factor model: ours against ``Trainer.evaluate`` of RecBole.

    python benchmarks/peers/evaluation.py [--users 50000] [--items 20000] [--events 1000000]

Both sides score every user of a drawn log against all items from 64 factors, mask what was seen and
give NDCG@10 on the test row. RecBole's weights are as drawn, which does not change its time; ours
are trained for ``--epochs``, because ``validate`` (what the training loop calls each epoch) looks
no further once ten items are above the target, and a model that knows nothing would make that easy.
``rank_table`` is what is stored per user: the rank of every target. Both have to give one NDCG@10.
The metric code is checked against the peers' where both rank the same scores (``calibration.py``),
so here time and memory alone are compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sides import place, run, write_split

from llmers_pipelines.testing.planted import leave_one_out


def drawn(users: int, items: int, events: int, seed: int = 0) -> list[np.ndarray]:
    """Return each user's distinct items, popular ones more often (exponent .8)."""
    rng = np.random.default_rng(seed)
    weight = 1 / (np.arange(1, items + 1) ** 0.8)
    places = rng.permutation(items) + 1
    each = max(5, round(events / users))
    draws = places[rng.choice(items, (users, each + each // 2), p=weight / weight.sum())]
    walks = []
    for row in draws:
        _, first = np.unique(row, return_index=True)
        walks.append(row[np.sort(first)][:each])
    return walks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10, help="of our training")
    parser.add_argument("--keep", type=Path, help="folder for files of both sides")
    args = parser.parse_args()
    home = place(args.keep and args.keep.resolve(), "evaluation")
    data = leave_one_out(drawn(args.users, args.items, args.events), args.items)
    split = write_split(data, home / "split")
    job = {"repeats": args.repeats, "mode": "evaluate", "epochs": args.epochs}
    ours = run("ours", {**job, "model": "BPRMF"}, split, home / "ours")
    theirs = run("recbole", {**job, "model": "BPR"}, split, home / "recbole")
    print(f"{args.users:,} users x {args.items:,} items, {len(data.user):,} events")
    base = theirs["cpu_evaluate"]
    first, full = ours["ndcg@10"]
    print(f"NDCG@10 after {args.epochs} epochs: validate {first:.6f}, rank_table {full:.6f}")
    print(f"RecBole Trainer.evaluate {base:8.2f} CPU-s  {theirs['peak_mb']:6.0f} MB")
    for name in ("validate", "rank_table"):
        seconds = ours[f"cpu_{name}"]
        print(f"ours, {name:<18} {seconds:8.2f} CPU-s  {ours['peak_mb']:6.0f} MB  "
              f"x{base / seconds:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
