"""Our models at published settings beside published values, where a public log is at hand.

    python benchmarks/peers/published.py [CASE ...] --keep FOLDER

Leave-one-out, all unseen items ranked. Trains this project's models, and a peer's where a case has
one beside it; what is in FOLDER already is not trained again. Prints HR@10 and NDCG@10 with their
standard error over users, the published value and the ratio. Two differences hold for every row
and belong beside it: the ML-1M at hand is implicit and holds the 932,293 of 1,000,209 rows whose
films have a DBpedia link (2,983 films of 3,706; the catalog that is ranked has 900 more, without a
row), so fewer films with rows compete; and published runs differ in length, seed and stopping. A
row is for the counts printed above it. A case that learns from the newest rows of each user alone
chooses its epoch on a validation that masks no more than these, and may draw an older row as a
negative; its metrics mask all rows, as every other's.
``--thin SEED`` trains on ML-1M once more less the share of films and rows again that it lacks
already, drawn so that rarer films go first, and prints what that changes: what the lack is worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from calibration import error, trained
from compare import Entry
from compare import ours as mine
from sides import Split, open_split, write_split

from llmers_pipelines.data.training import TEST, TRAIN, VALID, TrainingData
from llmers_pipelines.evaluate.sampled import Draw

# Each batch alike, as the rows of docs/performance.md were measured; "target" is the default since.
SHORT = {"epochs": 100, "min_epochs": 10, "patience": 10, "batch": 128, "lr": 1e-3,
         "weigh": "batch"}  # fmt: skip
ALIKE = {**SHORT, "weigh": "target"}
SLOW = {"lr": 2e-3, "schedule": "cosine", "batch": 64, "epochs": 120, "min_epochs": 120,
        "eval_every": 5}  # fmt: skip
REPLICATED: dict[Draw, tuple[float, float]] = {
    "popularity": (0.6975, 0.4751), "uniform": (0.8039, 0.6008),
}  # fmt: skip
LACKING = (1 - 2983 / 3706, 1 - 932293 / 1000209)  # films and rows of ML-1M without a DBpedia link
SHORT_COSINE = {**ALIKE, "lr": 2e-3, "schedule": "cosine", "epochs": 24, "min_epochs": 24,
                "eval_every": 4}  # fmt: skip
SMALL: dict[str, Any] = {  # the sizes of the paper's code
    "loss": "bce", "layers": 2, "heads": 1, "dim": 50, "inner": 50, "dropout": 0.2, "max_len": 50,
    "positions": "right", "fit": {**ALIKE, "epochs": 200, "eval_every": 4},
}  # fmt: skip
LONG = {**SHORT, "epochs": 60}  # ends while validation still rises slowly: half an hour a row


@dataclass(frozen=True)
class Case:
    dataset: str
    name: str
    entry: Entry
    values: tuple[float, float]  # HR@10, NDCG@10 as published
    source: str
    # Of the same model against 100 negatives: by popularity ("100p") or uniform ("100u").
    sampled: dict[Draw, tuple[float, float]] = field(default_factory=dict)
    peers: tuple[Entry, ...] = ()  # other implementations on the same split
    newest: int = 0  # > 0: learned from so many newest training rows of each user alone


CASES = {
    "beauty-sasrec": Case(
        "amazon_beauty", "SASRec, sampled softmax, 256 negatives",
        mine("SASRec", loss="ssm", negatives=256, layers=2, heads=2, dropout=0.2, fit=SHORT),
        (0.0921, 0.0531), "recomputed on the S3-Rec version"),
    "beauty-sasrec-softmax": Case(
        "amazon_beauty", "SASRec, softmax over all items, each target alike, cosine rate",
        mine("SASRec", dropout=0.3, fit={
            "lr": 2e-3, "epochs": 14, "min_epochs": 14, "schedule": "cosine"}),
        (0.0921, 0.0531), "recomputed on the S3-Rec version"),
    "beauty-sasrec-cosine": Case(
        "amazon_beauty", "SASRec, sampled softmax, 512 negatives, cosine scores over .05",
        mine("SASRec", loss="ssm", negatives=512, layers=2, heads=1, dropout=0.2, inner=64,
             head="cosine", tau=0.05, positions="right", fit=SHORT),
        (0.0921, 0.0531), "recomputed on the S3-Rec version"),
    "beauty-sasrec-wide": Case(
        "amazon_beauty", "SASRec, sampled softmax, 256 negatives, 256 wide, 1 block",
        mine("SASRec", loss="ssm", negatives=256, dim=256, inner=256, layers=1, heads=1,
             dropout=0.2, positions="right", fit={**SHORT, "epochs": 200}),
        (0.0921, 0.0531), "recomputed on the S3-Rec version"),
    "beauty-hstu": Case(
        "amazon_beauty", "HSTU",
        mine("HSTU", loss="ssm", negatives=512, fit=SHORT), (0.0788, 0.0439),
        "recomputed on the S3-Rec version"),
    "beauty-hstu-alike": Case(
        "amazon_beauty", "HSTU, each target alike",
        mine("HSTU", loss="ssm", negatives=512, fit=ALIKE),
        (0.0788, 0.0439), "recomputed on the S3-Rec version"),
    "ml1m-bprmf": Case(
        "ml1m", "BPR-MF",
        mine("BPRMF", loss="bpr", fit={"patience": 10}), (0.0740, 0.0377), "replication study",
        {"popularity": (0.5134, 0.2736)}),
    "ml1m-bprmf-popular": Case(
        "ml1m", "BPR-MF, negatives by popularity",
        mine("BPRMF", loss="bpr", draw="popularity", fit={"patience": 10}), (0.0740, 0.0377),
        "replication study", {"popularity": (0.5134, 0.2736)},
        # it draws its negatives so too
        (Entry("implicit's BPR", "implicit", "BPR", {"factors": 64, "random_state": 0}),)),
    "ml1m-sasrec": Case(
        "ml1m", "SASRec, softmax, 200 newest items",
        mine("SASRec", layers=2, heads=1, dropout=0.2, max_len=200, fit=LONG),
        (0.3058, 0.1779), "RecTools", {"popularity": (0.7041, 0.4951)}),
    "ml1m-sasrec-short": Case(
        "ml1m", "SASRec, softmax, 200 newest items, each target alike, cosine rate, 24 epochs",
        mine("SASRec", layers=2, heads=1, dropout=0.2, max_len=200,
             fit=SHORT_COSINE),
        (0.3058, 0.1779), "RecTools", {"popularity": (0.7041, 0.4951)}),
    "ml1m-sasrec-bce": Case(
        "ml1m", "SASRec, one negative (BCE), 200 newest items, each target alike, 80 epochs",
        mine("SASRec", loss="bce", layers=2, heads=1, dropout=0.2, max_len=200,
             fit={**ALIKE, "epochs": 80, "eval_every": 4}),
        (0.1993, 0.1078), "replication study", {"popularity": (0.6370, 0.4033)}),
    "ml1m-sasrec-bce-newest": Case(  # the study's code learns 50 targets of each user
        "ml1m", "SASRec, one negative (BCE), small, the 51 newest rows of each user",
        mine("SASRec", **SMALL), (0.1993, 0.1078), "replication study",
        {"popularity": (0.6370, 0.4033)}, newest=51),
    "ml1m-sasrec-bce-small": Case(
        "ml1m", "SASRec, one negative (BCE), small, all rows",
        mine("SASRec", **{**SMALL, "fit": {**SMALL["fit"], "epochs": 100}}), (0.1993, 0.1078),
        "replication study", {"popularity": (0.6370, 0.4033)}),
    "ml1m-gru4rec": Case(
        "ml1m", "GRU4Rec, softmax, 200 newest items",
        mine("GRU4Rec", max_len=200, dropout=0.2, fit=LONG), (0.2811, 0.1648),
        "replication study"),
    "ml1m-gru4rec-short": Case(
        "ml1m", "GRU4Rec, softmax, 200 newest items, each target alike, cosine rate, 24 epochs",
        mine("GRU4Rec", max_len=200, dropout=0.2, fit=SHORT_COSINE), (0.2811, 0.1648),
        "replication study"),
    "ml1m-hstu": Case(
        "ml1m", "HSTU small, 200 newest items",
        mine("HSTU", max_len=200, loss="ssm", negatives=128, fit=LONG), (0.3097, 0.1720),
        "released code"),
    "ml1m-hstu-softmax": Case(
        "ml1m", "HSTU small, softmax over all items, 200 newest items",
        mine("HSTU", max_len=200, fit={**SHORT, "lr": 2e-3, "schedule": "cosine", "epochs": 40,
                                       "min_epochs": 40}),
        (0.3097, 0.1720), "released code"),
    "ml1m-hstu-large": Case(
        "ml1m", "HSTU large, softmax over all items, 200 newest items, each target alike, "
        "cosine rate, 28 epochs",
        mine("HSTU", max_len=200, dim=50, layers=8, heads=2, inner=50, attention=50,
             fit={**SHORT_COSINE, "epochs": 28, "min_epochs": 28}),
        (0.3294, 0.1893), "released code"),
    "ml1m-bert4rec": Case(
        "ml1m", "BERT4Rec, 200 newest items",
        mine("BERT4Rec", max_len=200, fit={**SHORT, **SLOW}),
        (0.2821, 0.1516), "replication study", REPLICATED),
    "ml1m-bert4rec-alike": Case(
        "ml1m", "BERT4Rec, 200 newest items, each target alike",
        mine("BERT4Rec", max_len=200, fit={**ALIKE, **SLOW}),
        (0.2821, 0.1516), "replication study", REPLICATED),
}  # fmt: skip


def in_precision(entry: Entry, precision: str) -> Entry:
    if precision == "float32":
        return entry
    fit = {**entry.config["fit"], "precision": precision}
    return replace(entry, config={**entry.config, "fit": fit})


def thinned(data: TrainingData, films: float, rows: float, seed: int) -> TrainingData:
    """Return ``data`` less a share of its films that holds a share of its rows, split anew.

    Films are drawn without replacement with weights ``count ** -a``, a such that the rows fit; the
    catalog stays. The newest row of a user is its test row, the one before its validation row.
    """
    count = np.bincount(data.item, minlength=data.n_items + 1)
    some = np.flatnonzero(count)
    noise = np.random.default_rng(seed).gumbel(size=len(some))
    low, high = 0.0, 4.0
    for _ in range(30):  # the share of rows falls with a
        a = (low + high) / 2
        gone = some[np.argsort(a * np.log(count[some]) - noise)[: round(films * len(some))]]
        low, high = (a, high) if count[gone].sum() > rows * len(data.item) else (low, a)
    kept = ~np.isin(data.item, gone)
    return newest_out(with_rows(data, kept))


def with_rows(data: TrainingData, kept: np.ndarray) -> TrainingData:
    """Return ``data`` with the rows where ``kept`` (bool[R]) is true."""
    return replace(
        data, user=data.user[kept], item=data.item[kept], time=data.time[kept],
        split=data.split[kept], rating=None if data.rating is None else data.rating[kept],
    )  # fmt: skip


def newest_rows(data: TrainingData, count: int) -> TrainingData:
    """Return ``data`` with the ``count`` newest training rows of each user, and the held-out."""
    after = data.user_start[data.user + 1] - np.arange(len(data.user))  # 1 for a user's newest row
    return with_rows(data, (data.split != TRAIN) | (after <= count + 2))


def newest_out(data: TrainingData) -> TrainingData:
    """Return ``data`` with each user's newest row in TEST, the one before it in VALID."""
    ends = data.user_start[2:]
    assert (np.diff(data.user_start)[1:] > 2).all(), "a user has fewer than three rows"
    split = np.full(len(data.user), TRAIN, np.int8)
    split[ends - 1], split[ends - 2] = TEST, VALID
    return replace(data, split=split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-budget", type=float, default=1200.0, help="CPU seconds")
    parser.add_argument("--precision", default="float32", help="or bfloat16, where the CPU has it")
    parser.add_argument("--thin", type=int, metavar="SEED", help="also without more films (ml1m)")
    args = parser.parse_args()
    print("| set | model | CPU-s | epoch | HR@10 | NDCG@10 | published | ratio of NDCG |")
    print("|---|---|---|---|---|---|---|---|")
    for key in args.cases:
        case = CASES[key]
        home = args.keep.resolve() / case.dataset
        split = open_split(case.dataset, "sequential", home / "split-sequential")
        folder = home / key
        thin = args.thin is not None
        if thin and (case.dataset != "ml1m" or case.newest):
            raise SystemExit(f"{key}: --thin is for cases of ml1m that learn from all rows")
        assert not thin or np.array_equal(newest_out(split.data).split, split.data.split)
        tell(split, case)
        entry = in_precision(case.entry, args.precision)
        learned = split
        if case.newest:
            less = newest_rows(split.data, case.newest)
            learned = write_split(less, home / f"split-newest-{case.newest}")
            print(f"<!-- learned from {(less.split == TRAIN).sum()} rows -->")
        result = trained(entry, learned, folder, args)
        rows(case, case.name, result, split, folder)
        for peer in case.peers:
            beside = home / f"{key}-{peer.side}"
            rows(case, peer.label, trained(peer, split, beside, args), split, beside)
        if thin:
            less = thinned(split.data, *LACKING, args.thin)
            fewer = write_split(less, home / f"split-thin-{args.thin}")
            tell(fewer, case)
            after = home / f"{key}-thin-{args.thin}"
            result = trained(entry, fewer, after, args)
            values = [fewer.values(after, metric=m) for m in ("hr@10", "ndcg@10")]
            row(case, f"the same, films thinned ({args.thin})", result, values, case.values)
            gain = values[1] - split.values(folder)  # the same users, another target for some
            share = gain.mean() / split.values(folder).mean()
            print(f"<!-- NDCG@10 {gain.mean():+.4f} ± {error(gain):.4f}, {share:+.1%} -->")


def tell(split: Split, case: Case) -> None:
    data = split.data
    known = len(np.unique(data.item))
    print(f"<!-- {case.dataset}: {data.n_users} users, {data.n_items} items, {known} with a row, "
          f"{len(data.user)} interactions -->")  # fmt: skip


def rows(case: Case, name: str, result: dict[str, Any], split: Split, folder: Path) -> None:
    values = [split.values(folder, metric=m) for m in ("hr@10", "ndcg@10")]
    row(case, name, result, values, case.values)
    for draw, told in case.sampled.items():
        values = split.sampled(folder, draw)
        row(case, f"the same, 100 negatives ({draw})", result, values, told)


def row(
    case: Case, name: str, result: dict[str, Any], values: Sequence[np.ndarray],
    told: tuple[float, float],
) -> None:  # fmt: skip
    hits, gain = values
    print(
        f"| {case.dataset} | {name} | {result['cpu_total']:.0f} | {result.get('best_epoch', '')} "
        f"| {hits.mean():.4f} ± {error(hits):.4f} | {gain.mean():.4f} ± {error(gain):.4f} "
        f"| {told[0]:.4f} / {told[1]:.4f}, {case.source} | {gain.mean() / told[1]:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
