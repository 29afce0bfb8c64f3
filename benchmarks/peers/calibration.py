"""Our metric beside that of the peers' own implementations, on one split and by one code.

    python benchmarks/peers/calibration.py [MODEL ...] --keep FOLDER [--peer-budget 600]

Every side trains with early stopping on validation (Surprise its own twenty epochs); what is in
FOLDER already is not trained again, so an interrupted run goes on. Prints a table in Markdown:
NDCG@10 over all unseen items (AUC for click models, RMSE for ratings, where less is better) on test
and on validation, the paired difference over users with its standard error, and whether ours is
worse by more than one standard error; CPU seconds and memory are those of the whole process. At
validation all sides know the training rows alone; at test, models that read histories read the
validation row as well, the peers' factor models do not.
``*`` marks a peer that its CPU budget stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from compare import RECTOOLS, Entry, recbole
from compare import ours as mine
from sides import Split, open_split, run

from llmers_pipelines import api

ALS = {"factors": 64, "regularization": 0.01, "iterations": 15, "random_state": 0}
# Our sizes and temperature of the cosines; times, which ours does not read either, left out.
HSTU = {**RECTOOLS, "n_heads": 1, "relative_time_attention": False,
        "lightning_module_kwargs": {"logits_t": 0.05}}  # fmt: skip
NEWEST = "MAX_ITEM_LIST_LENGTH"
CASER = {NEWEST: 5, "nh": 16}  # our sizes; RecBole's own length of 50 makes 50 heights of filters
LAST = {"MAX_ITEM_LIST_LENGTH": 30}  # as much of a history as our models read
ONE_ROW = "ours, one row of history"  # RecBole's models of fields and DeepCTR-Torch's read none
BY_BATCH = "ours, each batch alike"  # the default before
MORE = "ours, 50 rows of history"
# RecTools trains on the rows that it reads: the newest 50 are 40 % of the targets of ML-100K.
ALL, WHOLE = {"session_max_len": 200}, "RecTools, 200 newest"


def deepctr(model: str) -> Entry:
    return Entry("DeepCTR-Torch", "deepctr", model)


def rectools(model: str, config: dict[str, Any], label: str = "RecTools", **more: int) -> Entry:
    how = {"epochs": 200, "patience": 8, "eval_every": 3} | more
    return Entry(label, "rectools", model, config, **how)


def fields(model: str, *peers: Entry) -> tuple[str, list[Entry]]:
    return "ctr", [mine(model), *peers, mine(model, ONE_ROW, max_len=1)]


def histories(model: str, *peers: Entry) -> tuple[str, list[Entry]]:
    return "sequential", [mine(model), *peers, mine(model, BY_BATCH, fit={"weigh": "batch"})]


MODELS: dict[str, tuple[str, list[Entry]]] = {
    "Popularity": ("sequential", [mine("Popularity"), recbole("Pop", epochs=1)]),
    "ItemKNN": ("sequential", [
        mine("ItemKNN"), mine("ItemKNN", "ours, unweighted", decay="mean", shrink=0.0),
        recbole("ItemKNN", epochs=1),
        Entry("implicit", "implicit", "Cosine", {"K": 100}),
    ]),
    "EASE": ("sequential", [
        mine("EASE"), mine("EASE", "ours, unweighted", decay="mean"), recbole("EASE", epochs=1),
    ]),
    "ALS": ("sequential", [
        mine("ALS"), mine("ALS", "ours, unweighted", decay="mean"),
        Entry("implicit", "implicit", "ALS", ALS),
        Entry("implicit, users anew", "implicit", "ALS", ALS, fold_in=True),
        Entry("implicit, alpha 10", "implicit", "ALS", {**ALS, "alpha": 10.0}),
    ]),
    "BPR-MF": ("sequential", [
        mine("BPRMF"), mine("BPRMF", "ours, BPR loss", loss="bpr", fit={"patience": 20}),
        recbole("BPR", patience=20),
        Entry("implicit", "implicit", "BPR", {"factors": 64, "random_state": 0}),
    ]),
    "LightGCN": ("sequential", [
        mine("LightGCN"), recbole("LightGCN", epochs=400, patience=40),
        Entry("implicit ALS, users anew", "implicit", "ALS", ALS, fold_in=True),
    ]),
    "SASRec": histories(
        "SASRec", rectools("SASRec", RECTOOLS), rectools("SASRec", RECTOOLS | ALL, WHOLE),
        recbole("SASRec"),
    ),
    "GRU4Rec": histories("GRU4Rec", recbole("GRU4Rec", patience=5)),
    "BERT4Rec": histories(
        "BERT4Rec", rectools("BERT4Rec", RECTOOLS, epochs=400, eval_every=10),
        rectools("BERT4Rec", RECTOOLS | ALL, WHOLE, epochs=400, eval_every=10),
        recbole("BERT4Rec"),
    ),
    "SGL": ("sequential", [
        mine("SGL"), recbole("SGL", epochs=200),
        Entry("RecBole, lr .01", "recbole", "SGL", {"learning_rate": 0.01}, patience=20),
    ]),
    "CKE": ("sequential", [mine("CKE"), recbole("CKE", patience=20)]),
    "CFKG": ("sequential", [mine("CFKG"), recbole("CFKG", patience=20)]),
    "HSTU": histories("HSTU", rectools("HSTU", HSTU), rectools("HSTU", HSTU | ALL, WHOLE)),
    "Caser": histories("Caser", recbole("Caser", config=CASER)),
    "SR-GNN": histories("SRGNN", recbole("SRGNN", config={NEWEST: 20})),
    "ComiRec": histories("ComiRec", recbole("SINE")),
    "DeepFM": fields("DeepFM", recbole("DeepFM")),
    "DCNv2": fields("DCNv2", recbole("DCNV2"),
                    Entry("RecBole, weights free", "recbole", "DCNV2", {"reg_weight": 0.0})),
    "AutoInt": fields("AutoInt", recbole("AutoInt")),
    "xDeepFM": fields("XDeepFM", recbole("xDeepFM")),
    "FiBiNET": fields("FiBiNET", deepctr("FiBiNET")),
    "DIN": ("ctr", [mine("DIN"), recbole("DIN", config=LAST)]),
    "DIEN": ("ctr", [mine("DIEN"), recbole("DIEN", config=LAST)]),
    "MMoE": ("multi_scenario", [mine("MMoE"), deepctr("MMOE"), mine("MMoE", MORE, max_len=50)]),
    "PLE": ("multi_scenario", [mine("PLE"), deepctr("PLE"), mine("PLE", MORE, max_len=50)]),
    "BiasedMF": ("rating", [
        mine("BiasedMF"), mine("BiasedMF", "ours, ids alone", features=False),
        Entry("Surprise", "surprise", "SVD"),
        Entry("Surprise, 50 factors", "surprise", "SVD", {"n_factors": 50}),
    ]),
}  # fmt: skip
PEERS = ("recbole", "rectools", "implicit", "deepctr", "surprise")


def trained(entry: Entry, split: Split, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a side, trained now or before by the same job."""
    job = {"mode": "train", "model": entry.model, "config": entry.config, "seed": args.seed,
           "epochs": entry.epochs, "patience": entry.patience, "eval_every": entry.eval_every,
           "repeats": 1, **entry.more()}  # fmt: skip
    if entry.side in PEERS:
        job["cpu_budget"] = args.peer_budget
    else:  # other defaults or another revision are another training
        kind = getattr(api, entry.model)
        job["defaults"] = f"revision {kind.revision}: {kind()!r}"
    before = folder / "job.json"
    if (folder / "done").exists() and before.exists():
        told, result = (json.loads(f.read_text()) for f in (before, folder / "result.json"))
        asked, had = job.get("cpu_budget", 0.0), told.pop("cpu_budget", 0.0)
        rest = json.loads(json.dumps({n: v for n, v in job.items() if n != "cpu_budget"}))
        if all(told.get(n) == v for n, v in rest.items()) and (
            result.get("stopped") != "budget" or asked <= had
        ):
            return result
    (folder / "done").unlink(missing_ok=True)
    result = run(entry.side, job, split, folder)
    (folder / "done").touch()
    return result


def error(values: np.ndarray) -> float:
    return float(values.std() / len(values) ** 0.5)


def drawn_error(split: Split, ours: Path, theirs: Path, draws: int = 200) -> float:
    """Return the standard error of the difference of two AUCs or RMSEs, users drawn anew."""
    from llmers_pipelines.evaluate.ctr import auc

    data = split.data
    here = data.split == 2
    user = data.user[here]
    both = [np.load(f / "scores_test.npy") for f in (ours, theirs)]
    groups = np.split(np.arange(len(user)), np.flatnonzero(np.diff(user)) + 1)
    rng, gaps = np.random.default_rng(0), []
    for _ in range(draws):
        rows = np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])
        if data.label is not None:
            a, b = (auc(data.label[here][rows], p[rows]) or 0.0 for p in both)
        else:
            a, b = (rms(p[rows] - data.rating[here][rows]) for p in both)  # type: ignore[index]
        gaps.append(a - b)
    return float(np.std(gaps))


def rms(misses: np.ndarray) -> float:
    return float(np.sqrt(np.square(misses, dtype=np.float64).mean()))


def lines(name: str, split: Split, home: Path, args: argparse.Namespace) -> list[str]:
    entries = MODELS[name][1]
    out, first = [], None
    for entry in entries:
        folder = home / f"{name}-{entry.label}".replace(" ", "").replace(",", "-")
        if entry.side == "recbole" and entry.model in args.skip:
            continue
        result = trained(entry, split, folder, args)
        first = first or folder
        cut = "*" if result.get("stopped") == "budget" else ""
        cells = [name, entry.label + cut, f"{result['cpu_total']:.1f}", f"{result['peak_mb']:,.0f}"]
        if split.data.label is not None:
            cells += [f"{split.auc(folder):.4f}", f"{split.auc(folder, 'valid'):.4f}"]
            gap = split.auc(first) - split.auc(folder)
            spread = drawn_error(split, first, folder) if folder != first else 0.0
        elif split.data.task == "rating":
            test, valid = split.misses(folder), split.misses(folder, "valid")
            cells += [f"{rms(test):.4f}, MAE {np.abs(test).mean():.4f}", f"{rms(valid):.4f}"]
            gap = rms(split.misses(first)) - rms(test)
            spread = drawn_error(split, first, folder) if folder != first else 0.0
        else:
            test, valid = split.values(folder), split.values(folder, "valid")
            cells += [f"{test.mean():.4f} ± {error(test):.4f}", f"{valid.mean():.4f}"]
            gaps = split.values(first) - test
            gap, spread = float(gaps.mean()), error(gaps)
        if folder == first:
            cells += ["", ""]
        else:
            worse = gap if split.data.task == "rating" else -gap
            cells += [f"{gap:+.4f} ± {spread:.4f}", "yes" if worse <= spread else "**no**"]
        out.append("| " + " | ".join(cells) + " |")
        print(out[-1], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--dataset", default="ml100k")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-budget", type=float, default=600.0, help="CPU-s of a training")
    parser.add_argument(
        "--skip",
        nargs="*",
        default=["SASRec", "BERT4Rec"],
        help="RecBole models left out: an epoch of these takes minutes",
    )
    args = parser.parse_args()
    home = args.keep.resolve() / args.dataset
    splits = {t: open_split(args.dataset, t, home / f"split-{t}")
              for t in sorted({MODELS[m][0] for m in args.models})}  # fmt: skip
    print("| model | side | CPU-s | peak MB | test | validation | ours - theirs | not below |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.models:
        lines(name, splits[MODELS[name][0]], home, args)


if __name__ == "__main__":
    main()
