"""Every kind of model is served through the same bundle and scorer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from registry_samples import META, N, make_items, make_log

from llmers_pipelines.data.training import Field
from llmers_pipelines.data.words import word_codes
from llmers_pipelines.models.als import ALS
from llmers_pipelines.models.autoint import AutoInt
from llmers_pipelines.models.bert4rec import BERT4Rec
from llmers_pipelines.models.biased_mf import BiasedMF
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.caser import Caser
from llmers_pipelines.models.comirec import ComiRec
from llmers_pipelines.models.dcnv2 import DCNv2
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.dien import DIEN
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.dlrm import DLRM
from llmers_pipelines.models.ease import EASE
from llmers_pipelines.models.fibinet import FiBiNET
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.hstu import HSTU
from llmers_pipelines.models.itemknn import ItemKNN
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.mmoe import MMoE
from llmers_pipelines.models.naml import NAML
from llmers_pipelines.models.nrms import NRMS
from llmers_pipelines.models.ple import PLE
from llmers_pipelines.models.popularity import Popularity
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import Served, export, fold
from llmers_pipelines.models.sgl import SGL
from llmers_pipelines.models.srgnn import SRGNN
from llmers_pipelines.models.star import STAR
from llmers_pipelines.models.xdeepfm import XDeepFM
from llmers_pipelines.registry.bundle import write_bundle
from llmers_pipelines.registry.index import IndexSettings
from llmers_pipelines.registry.scorer import Scorer


def click_log(task="ctr"):
    log = make_log()
    rows = len(log.item)
    more = {}
    if task == "multi_scenario":
        more["scenario"] = Field((1 + np.arange(rows) % 2).astype(np.int32), ("app", "web"))
    if task == "news":
        titles = [f"word{i % 3} of {i}" for i in range(N)]
        more["item_texts"] = {"title": word_codes(titles, np.ones(N, bool))}
    rating = (1 + np.arange(len(log.item)) % 5).astype(np.float32)
    codes = np.array([0, *(1 + np.arange(N) % 2)], np.int32)
    return make_log(
        task=task, rating=rating,
        label=None if task == "rating" else (rating >= 4).astype(np.float32),
        item_fields={"author": Field(codes, ("Ann", "Bob"))}, **more,
    )  # fmt: skip


def served_bundle(folder: Path, backbone, data) -> tuple[Served, Scorer]:
    net = backbone.build(data, 0)
    if backbone.closed_form:
        net.fit(data, {})
    net = fold(net)
    config, arrays = export(net)
    # as for a large catalog: models that no index can serve are scanned
    write_bundle(
        folder, config=config, arrays=arrays, data=data, items=make_items(), meta=META,
        index=IndexSettings("ivf8", needed=False),
    )  # fmt: skip
    return Served(net), Scorer.load(folder)


@pytest.mark.parametrize(
    ("backbone", "reads"),
    [
        (SASRec(dim=8), {"history", "visitor"}),
        (GRU4Rec(dim=8, hidden=12), {"history", "visitor"}),
        (BERT4Rec(dim=8), {"history", "visitor"}),
        (Caser(dim=8), {"user", "history", "visitor"}),
        (SRGNN(dim=8), {"history", "visitor"}),
        (HSTU(dim=8, inner=8, attention=8), {"history", "visitor"}),
        (ComiRec(dim=8), {"history", "visitor"}),
        (ALS(dim=4), {"history", "visitor"}),
        (SGL(dim=8), {"user", "history", "visitor"}),
        (EASE(), {"history", "visitor"}),
        (ItemKNN(), {"history", "visitor"}),
        (BPRMF(dim=8), {"user", "visitor"}),
        (LightGCN(dim=8), {"user", "history", "visitor"}),
        (Popularity(), set()),
    ],
    ids=lambda v: type(v).__name__,
)
def test_ranking_models(tmp_path: Path, backbone, reads: set[str]) -> None:
    log = make_log()
    served, scorer = served_bundle(tmp_path / "b", backbone, log)
    assert scorer.reads == reads
    for user in (1, 4):
        history = log.item[log.user == user]
        scores = served.scores(np.array([user]), [history])[0]
        scores[history] = -np.inf
        best = sorted(range(1, N + 1), key=lambda i: (-scores[i], i))[: N - len(set(history))]
        answer = scorer.recommend(log.users.ids[user - 1], N, explain=True)
        assert answer["fallback"] is None
        found = [scorer.bundle.items.position(i["item_id"]) for i in answer["items"]]
        assert set(found) == set(best)
        np.testing.assert_allclose([scores[i] for i in found], [scores[i] for i in best], atol=1e-5)
        np.testing.assert_allclose([i["score"] for i in answer["items"]], scores[found], atol=1e-5)
    visitor = scorer.recommend(None, 3, history=["b1", "b5"])
    assert visitor["fallback"] == ("history" if "visitor" in reads else "similar_items")


@pytest.mark.parametrize(
    "backbone",
    [
        *(kind(dim=4) for kind in (DIN, DeepFM, DCNv2, AutoInt, XDeepFM, FiBiNET, DIEN, DLRM)),
        *(kind(dim=4) for kind in (MMoE, PLE, STAR, BiasedMF)),
        NRMS(heads=2, head=4),
        NAML(filters=8),
    ],
    ids=lambda v: type(v).__name__,
)
def test_click_models_score_the_whole_catalog(tmp_path: Path, backbone, monkeypatch) -> None:
    task = next(iter(backbone.tasks - {"multi_scenario"}), "multi_scenario")
    log = click_log(task)
    served, scorer = served_bundle(tmp_path / "b", backbone, log)
    monkeypatch.setattr("llmers_pipelines.registry.ranker.PAIRS", 5)  # three blocks
    for user in (1, 4):
        rows = log.user == user
        items = np.arange(1, N + 1)
        p = served.predict(np.full(N, user), items, [log.item[rows]] * N, [log.rating[rows]] * N)
        unseen = ~np.isin(items, log.item[rows])
        expected = np.sort(p[unseen])[::-1][:4]
        answer = scorer.recommend(log.users.ids[user - 1], 4, explain=True)
        np.testing.assert_allclose([i["score"] for i in answer["items"]], expected, atol=1e-6)
        low, high = (1, 5) if task == "rating" else (0, 1)
        assert all(low <= i["score"] <= high for i in answer["items"])
        assert all("why" in i for i in answer["items"])


def test_given_history_of_a_click_model_counts_as_liked(tmp_path: Path) -> None:
    served, scorer = served_bundle(tmp_path / "b", DIN(dim=4), click_log())
    liked = scorer.bundle.config["liked_signal"]
    assert liked in (4.0, 4.5, 5.0)
    answer = scorer.recommend(None, 3, history=["b2", "b9"], exclude_seen=False)
    p = served.predict(
        np.zeros(N), np.arange(1, N + 1), [np.array([2, 9])] * N, [np.full(2, liked)] * N
    )
    assert answer["fallback"] == "history"
    found = [i["score"] for i in answer["items"]]
    np.testing.assert_allclose(found, np.sort(p)[::-1][:3], atol=1e-6)
