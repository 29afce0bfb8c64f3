"""Towers, judged pairs, simulated edges and a log with more rows (LLM-InS, ColdLLM)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny_lm
import torch

from llmers_pipelines.data.added import dealt_added, random_added, with_added
from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive import filtered_users
from llmers_pipelines.derive.candidates import PastModel
from llmers_pipelines.derive.filter_towers_net import margin_distillation, unmet
from llmers_pipelines.derive.filtered_users import FilteredUsers
from llmers_pipelines.derive.neighbours import nearest_of
from llmers_pipelines.derive.preference_examples import PreferenceExamples
from llmers_pipelines.derive.simulated_edges import SimulatedEdges
from llmers_pipelines.derive.user_vectors import UserVectors
from llmers_pipelines.enhance.added_rows import AddedRows
from llmers_pipelines.llm.choosing import choose_all
from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import training_log
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.orchestrate.steps.derive_checks import added_checks, example_checks
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.prompts.would_like import WouldLike
from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.teach.pair_judge import PairJudge, chance
from llmers_pipelines.testing.planted import Planted, planted_rings
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("llm_ins", "equations")
LOG, EDGES = Table("splits", task="collaborative_cold"), Table("edges")
SMALL = {"k": 4, "dim": 8, "hidden": 16, "epochs": 30, "lr": 0.01, "batch": 64}


@pytest.fixture(scope="module")
def planted() -> Planted:
    """Two clusters of users; every fifth item is cold: its rows are held out."""
    made = planted_rings(n_users=80, n_items=30, seed=3)
    data = made.data
    cold = np.isin(data.item, np.arange(1, 31, 5))
    half = np.where(np.arange(len(cold)) % 2 == 0, VALID, TEST)
    split = np.where(cold, half, np.where(np.arange(len(cold)) % 9 == 0, TEST, TRAIN))
    log = dataclasses.replace(data, task="collaborative", split=split.astype(np.int8))
    return dataclasses.replace(made, data=log)


@pytest.fixture(scope="module")
def sources(planted: Planted) -> list[Any]:
    data = planted.data
    vectors, _ = planted.items.aligned(data.items)
    users = np.zeros((data.n_users + 1, vectors.shape[1]), np.float32)
    for u in range(1, data.n_users + 1):
        mine = data.item[(data.user == u) & (data.split == TRAIN)]
        users[u] = vectors[mine].mean(0) if len(mine) else 0
    has = users[1:].any(1)
    text = VectorTable("user", data.users.ids, users[1:], has)
    known = planted.items.vectors @ np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    warm = data.train_counts[1:] > 0
    known_items = VectorTable("item", data.items.ids, known.astype(np.float32), warm)
    rotated = users[1:] @ np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    known_users = VectorTable("user", data.users.ids, rotated.astype(np.float32), has)
    return [text, planted.items, known_users, known_items, data]


def one(*values: float) -> torch.Tensor:
    return torch.tensor([values])


@pytest.mark.parametrize(
    ("ds", "dt", "wanted"), [(0.0, 0.0, 0.6931), (0.0, 3.0, 0.6931), (1.0, 1.0, 0.5822)]
)
def test_soft_targets_have_a_floor(ds: float, dt: float, wanted: float) -> None:
    """ds = 0 costs ln 2 whatever the teacher says; ds = dt = 1 costs the entropy of sigmoid(1)."""
    user, good, bad = one(1.0, 0.0), one(ds, 0.0), one(0.0, 0.0)
    teacher = (one(1.0, 0.0), one(dt, 0.0), one(0.0, 0.0))
    parts = [margin_distillation(user, good, bad, teacher, torch.ones(1), a=a, b=0.0, c=0.0)
             for a in (0.0, 1.0)]  # fmt: skip
    assert float(parts[1] - parts[0]) == pytest.approx(wanted, abs=1e-4)
    assert float(parts[0]) == pytest.approx(np.log1p(np.exp(-ds)), abs=1e-6)


def test_the_margin_loss_by_hand() -> None:
    """Two triples, all four terms and the weights, against numpy written out."""
    rng = np.random.default_rng(1)
    u, gi, gj, eu, ei, ej = rng.normal(size=(6, 2, 3))
    w = np.array([0.5, 1.0])
    a, b, c = 0.7, 0.3, 0.2

    def sig(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def bce(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return -(t * np.log(sig(x)) + (1 - t) * np.log(sig(-x)))

    for squared in (False, True):
        total = 0.0
        for n in range(2):
            ds, dt = u[n] @ (gi[n] - gj[n]), eu[n] @ (ei[n] - ej[n])
            own = gi[n] @ gi[n] - np.mean([gi[n] @ gj[m] for m in range(2)])
            told = ei[n] @ ei[n] - np.mean([ei[n] @ ej[m] for m in range(2)])
            gap = abs(sig(eu[n] @ ei[n]) - sig(u[n] @ gi[n]))
            total += w[n] * (bce(ds, np.array(1.0)) + a * bce(ds, sig(dt)) + b * bce(own, sig(told))
                             + c * (gap**2 if squared else gap)) / 2  # fmt: skip
        tensors = [torch.from_numpy(x) for x in (u, gi, gj, eu, ei, ej)]
        found = margin_distillation(*tensors[:3], tuple(tensors[3:]), torch.from_numpy(w), a=a, b=b,
                                    c=c, squared=squared)  # fmt: skip
        assert float(found) == pytest.approx(float(total), abs=1e-9)


def test_nearest_rows_by_dot_product() -> None:
    rng = np.random.default_rng(2)
    queries, base = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(300, 4))
    base = base.astype(np.float32)
    near, value, told = nearest_of(queries, base, 7)
    truth = np.argsort(-(queries.astype(float) @ base.T.astype(float)), 1)[:, :7]
    np.testing.assert_array_equal(near, truth)
    assert told == {"search": "exact"} and (np.diff(value, axis=1) <= 0).all()
    near, _, told = nearest_of(queries, base, 7, exact_below=10)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(near, truth, strict=True))
    assert told["search"] == "ivf" and hits / truth.size >= 0.9
    few, _, _ = nearest_of(queries, base[:3], 7)
    assert few.shape == (5, 3) and nearest_of(queries[:0], base, 7)[0].shape[0] == 0


def test_towers_find_users_of_the_items_kind(planted: Planted, sources: list[Any]) -> None:
    """Cold items get users of their own cluster, each item its best first, warm items none."""
    data = planted.data
    table, told = FilteredUsers(**SMALL).apply(sources, log=data)
    cold = data.items.index(table["item_id"].to_pylist())
    assert (data.train_counts[cold] == 0).all()
    assert told["cold_items"] == len(set(cold)) and told["text_loss"] < told["first_text_loss"]
    assert table.num_rows == 4 * len(set(cold)) and set(table["rank"].to_pylist()) == {1, 2, 3, 4}
    taste = np.zeros(data.n_users + 1, int)
    for u in range(1, data.n_users + 1):
        taste[u] = planted.group[data.item[data.user == u][0]]
    users = data.users.index(table["user_id"].to_pylist())
    assert (taste[users] == planted.group[cold]).mean() > 0.9
    score = np.array(table["score"]).reshape(-1, 4)
    assert (np.diff(score, axis=1) <= 0).all()
    assert table["row_id"][0].as_py() == f"{table['item_id'][0].as_py()}@1"


def test_negatives_and_rows_are_those_of_plain_loops(planted: Planted) -> None:
    data, rng = planted.data, np.random.default_rng(0)
    width, warm = data.n_items + 1, np.flatnonzero(data.train_counts > 0)
    pairs = {(int(u), int(i)) for u, i in zip(data.user, data.item, strict=True)}
    met = np.unique([u * width + i for u, i in pairs])
    users = rng.integers(1, data.n_users + 1, 500)
    found = unmet(users, warm, met, width, np.random.default_rng(1))
    same = np.random.default_rng(1)
    wanted = same.choice(warm, len(users))
    for _ in range(20):
        again = [n for n, u in enumerate(users) if (u, wanted[n]) in pairs]
        if not again:
            break
        wanted[again] = same.choice(warm, len(again))
    assert again == [] and found.tolist() == wanted.tolist()

    item, user = np.array([3, 3, 1, 5, 5, 5]), np.array([2, 1, 2, 4, 2, 3])
    rows = filtered_users._table(data, item, user, np.arange(6.0)).to_pylist()
    assert [r["rank"] for r in rows] == [1, 2, 1, 1, 2, 3]
    for row, i, u in zip(rows, item, user, strict=True):
        assert (row["item_id"], row["user_id"]) == (data.items.ids[i - 1], data.users.ids[u - 1])
        assert row["row_id"] == f"{row['item_id']}@{row['rank']}"


def test_held_out_rows_leave_no_trace(planted: Planted, sources: list[Any]) -> None:
    """Other held-out items of the same users: every table is the same, byte for byte."""
    data = planted.data
    held = np.flatnonzero(data.split != TRAIN)
    cold = np.flatnonzero(data.train_counts == 0)[1:]
    item = data.item.copy()
    item[held] = np.random.default_rng(5).choice(cold, len(held))
    other = dataclasses.replace(data, item=item)
    items = pa.table({"item_id": list(data.items.ids), "title": [f"T{i}" for i in data.items.ids]})
    for log in (data, other):
        log.train_counts  # noqa: B018  (cached from the rows of each)
    made = [FilteredUsers(**SMALL).apply([*sources[:4], log], log=log)[0] for log in (data, other)]
    assert made[0].equals(made[1])
    how = PreferenceExamples(samples=30)
    shown = [how.apply([items], log=log, context={})[0] for log in (data, other)]
    assert shown[0].equals(shown[1])


def test_items_without_text_are_not_offered(planted: Planted, sources: list[Any]) -> None:
    data, texts = planted.data, sources[1]
    mask = texts.mask.copy()
    mask[0] = False  # item 1 is cold
    less = VectorTable("item", texts.ids, texts.vectors, mask)
    table, told = FilteredUsers(**SMALL).apply([sources[0], less, *sources[2:4]], log=data)
    assert "i1" not in table["item_id"].to_pylist() and told["without_text"] == 1
    nothing = VectorTable("item", texts.ids, texts.vectors, np.zeros_like(mask))
    table, told = FilteredUsers(**SMALL).apply([sources[0], nothing, *sources[2:4]], log=data)
    assert table.num_rows == 0 and told["cold_items"] == 0
    with pytest.raises(ValueError, match="known vectors"):
        FilteredUsers(**SMALL).apply(sources[:2], log=data)


def test_user_vectors_are_those_that_score(planted: Planted) -> None:
    data = planted.data
    small = LightGCN(dim=8, layers=1, fit=Fit(epochs=1, min_epochs=1, batch=64))
    served = fit(Train(small, LOG), data, {}, seed=0).served
    past = PastModel(data, served.scores, served.item_vectors, served.states)
    table, told = UserVectors().apply([past, data], log=data)
    user = 5
    history = data.item[(data.user == user) & (data.split == TRAIN)]
    scores = served.scores([user], [history])[0, 1:]
    mine, all_items = table.vectors[user - 1], served.item_vectors()[1:]
    cosine = (all_items @ mine) / np.linalg.norm(all_items, axis=1) / np.linalg.norm(mine)
    np.testing.assert_allclose(np.argsort(-scores)[:5], np.argsort(-cosine)[:5])
    assert table.entity == "user" and told["users"] == int(table.mask.sum())


def test_examples_show_training_rows_and_no_cold_item(planted: Planted) -> None:
    data = planted.data
    items = pa.table({"item_id": list(data.items.ids), "title": [f"T{i}" for i in data.items.ids]})
    table, _ = PreferenceExamples(samples=60, candidates=4).apply([items], log=data, context={})
    assert all(c.passed for c in example_checks(table, data))
    answers = [a[0] for a in table["answer"].to_pylist()]
    assert answers.count("Yes") == 20 and answers.count("No") == 20
    cold = {f"'T{data.items.ids[i - 1]}'" for i in np.flatnonzero(data.train_counts == 0) if i}
    assert not any(c in p for p in table["prompt"].to_pylist() for c in cold)
    for row in table.to_pylist():
        met = set(data.item[(data.user == data.users.index([row["user_id"]])[0])
                            & (data.split == TRAIN)])  # fmt: skip
        asked = json.loads(row["prompt"])[-1]["content"].split("</history>")[1]
        named = {int(data.items.index([w[1:]])[0]) for w in asked.replace("'", " ").split()
                 if w.startswith("Ti")}  # fmt: skip
        if row["answer"] == ["No"]:
            assert not named & met
        else:
            assert len(named & met) == 1


@pytest.fixture(scope="module")
def edges(planted: Planted) -> pa.Table:
    """Six judged pairs of two cold items; i1 and i6 are cold."""
    return pa.table({
        "row_id": [f"i1@{r}" for r in (1, 2, 3)] + [f"i6@{r}" for r in (1, 2, 3)],
        "user_id": ["u1", "u2", "u3", "u1", "u2", "u4"], "item_id": ["i1"] * 3 + ["i6"] * 3,
        "rank": pa.array([1, 2, 3, 1, 2, 3], pa.int32()),
        "p_yes": [0.6, 0.9, 0.4, 0.5, 0.5, 0.49],
    })  # fmt: skip


def test_edges_are_the_surest_of_each_item(planted: Planted, edges: pa.Table) -> None:
    data = planted.data
    assert not data.train_counts[data.items.index(["i1", "i6"])].any()

    def pairs(**how: Any) -> list[tuple[str, str]]:
        table, told = SimulatedEdges(**how).apply([edges, data], log=data)
        assert all(c.passed for c in added_checks(table, data)) and told["judged"] == 6
        return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))

    assert pairs() == [("u1", "i1"), ("u2", "i1"), ("u1", "i6"), ("u2", "i6")]
    assert pairs(most=1) == [("u2", "i1"), ("u1", "i6")]  # ties go to the better rank
    assert pairs(least=0.55, most=2) == [("u1", "i1"), ("u2", "i1")]
    assert pairs(most=0) == [] and len(pairs(least=0.0)) == 6


def test_added_rows_stand_behind_the_users_training_rows(planted: Planted) -> None:
    data = planted.data
    rows = pa.table({"user_id": ["u2", "u1", "u2"], "item_id": ["i1", "i6", "i6"],
                     "source": ["x"] * 3})  # fmt: skip
    more = with_added(data, rows, "edges")
    assert len(more.item) == len(data.item) + 3
    assert (np.diff(more.user) >= 0).all()
    held = data.split != TRAIN
    for name in ("user", "item", "split", "time"):
        np.testing.assert_array_equal(
            getattr(more, name)[more.split != TRAIN], getattr(data, name)[held]
        )
    mine = more.item[(more.user == 2) & (more.split == TRAIN)]
    i1, i6 = data.items.index(["i1", "i6"])
    assert list(mine[-2:]) == [i1, i6]
    assert more.train_counts[i1] == 1 and more.train_counts[i6] == 2
    part = AddedRows(source=EDGES)
    assert training_log([part], data, {EDGES: rows}, 0).train_counts[i1] == 1
    assert training_log([part.inert()], data, {EDGES: rows}, 0) is data

    def refused(user: str, item: str) -> None:
        with_added(data, pa.table({"user_id": [user], "item_id": [item], "source": ["x"]}), "e")

    trained = int(np.flatnonzero(data.split == TRAIN)[0])
    known = data.items.ids[data.item[trained] - 1]
    for user, item, why in (("u1", known, "training row already"), ("nobody", "i1", "this log")):
        with pytest.raises(ValueError, match=why):
            refused(user, item)


def test_controls_keep_items_and_their_numbers(planted: Planted, edges: pa.Table) -> None:
    data = planted.data
    rows, _ = SimulatedEdges(least=0.0).apply([edges, data], log=data)
    drawn = control_inputs({EDGES: rows}, "gaussian", seed=1, log=data)[EDGES]
    assert drawn["item_id"].equals(rows["item_id"]) and not drawn["user_id"].equals(rows["user_id"])
    assert added_checks(drawn, data)[0].passed
    dealt = control_inputs({EDGES: rows}, "permuted", seed=1, log=data)[EDGES]
    assert set(dealt["user_id"].to_pylist()) <= set(rows["user_id"].to_pylist())
    assert added_checks(dealt, data)[0].passed
    rng = np.random.default_rng
    assert random_added(data, rows, rng(2)).equals(random_added(data, rows, rng(2)))
    assert dealt_added(data, rows, rng(2)).num_rows <= rows.num_rows


def test_a_cold_item_with_edges_is_found(planted: Planted) -> None:
    """With the true readers of cold items as edges, cold targets rise above those without."""
    from llmers_pipelines.models.ranking_net import rank_targets

    data = planted.data
    taste = {u: planted.group[data.item[data.user == u][0]] for u in range(1, data.n_users + 1)}
    cold = [i for i in np.flatnonzero(data.train_counts == 0) if i]
    rows = [{"user_id": data.users.ids[u - 1], "item_id": data.items.ids[i - 1], "source": "x"}
            for i in cold for u in taste if taste[u] == planted.group[i] and u % 2]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    small = BPRMF(dim=16, fit=Fit(epochs=30, min_epochs=30, batch=128, lr=0.01))
    for backbone in (small,):
        base = fit(Train(backbone, LOG), data, {}, seed=0)
        part = AddedRows(source=EDGES)
        more = fit(Train(backbone, LOG, aux=(part,)), data, {EDGES: table}, seed=0)
        ranks = [rank_targets(t.model, data, TEST) for t in (base, more)]
        means = [float(r.rank[np.isin(r.item, cold)].mean()) for r in ranks]
        assert means[1] < 0.7 * means[0], means


def test_likelihoods_become_a_chance() -> None:
    assert chance(-1.0, -1.0) == 0.5
    assert chance(np.log(0.6), np.log(0.2)) == pytest.approx(0.75)
    assert chance(-2000.0, 0.0) == pytest.approx(0.0) and chance(0.0, -2000.0) == 1.0


def test_a_real_model_judges_each_pair_once(
    planted: Planted, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lm = tiny_lm.make_tiny_lm(tmp_path_factory.mktemp("judge"))
    data, judge = planted.data, PairJudge(prompt=WouldLike(shown=3))
    rows = [{"item_id": i, "title": f"T{i}"} for i in data.items.ids]
    rows[5]["title"] = None  # i6 cannot be told
    offered = pa.table({
        "row_id": ["i1@1", "i1@2", "i6@1"], "item_id": ["i1", "i1", "i6"],
        "rank": pa.array([1, 2, 1], pa.int32()), "user_id": ["u1", "u2", "u1"],
        "score": [1.0, 0.5, 0.1],
    })  # fmt: skip
    asked, known = judge.requests(data, rows, offered, {"domain": "books"})
    assert [r.row_id for r in asked] == ["i1@1", "i1@2"] and asked[0].choices == ("Yes", "No")
    assert "'Ti1'" in asked[0].messages[-1]["content"]
    engine, store = HfEngine(HfSettings(str(lm))), ResponseStore(tmp_path / "store")
    told = [choose_all(asked, engine, store, task="t", revision="1") for _ in range(2)]
    assert [t.counts["llm_calls"] for t in told] == [2, 0]
    taught = [judge.taught(data, known, t, "tiny") for t in told]
    assert taught[0].rows.equals(taught[1].rows) and taught[0].rows.num_rows == 2
    sums = told[0].results["i1@1"].sums
    p = taught[0].rows["p_yes"][0].as_py()
    assert p == pytest.approx(np.exp(sums[0]) / (np.exp(sums[0]) + np.exp(sums[1])))
    users, items = taught[0].shown
    assert len(users) == len(items) <= 6 and set(users.tolist()) <= {1, 2}
    broken = SimpleNamespace(results={}, counts={})
    assert judge.taught(data, known, broken, "none").rows.num_rows == 0


def test_settings_are_checked() -> None:
    for wrong in ({"k": 0}, {"lr": 0.0}, {"a": -1.0}):
        with pytest.raises(ValueError, match="FilteredUsers"):
            FilteredUsers(**wrong)
    for wrong in ({"least": 2.0}, {"most": -1}):
        with pytest.raises(ValueError, match="SimulatedEdges"):
            SimulatedEdges(**wrong)
    with pytest.raises(ValueError, match="PreferenceExamples"):
        PreferenceExamples(samples=1)
