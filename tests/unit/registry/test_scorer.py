from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from registry_samples import META, N, factors, make_items, make_log, sasrec, write

from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.served import Served, export, fold
from llmers_pipelines.registry.bundle import write_bundle
from llmers_pipelines.registry.index import IndexSettings
from llmers_pipelines.registry.manifest import BundleError
from llmers_pipelines.registry.scorer import Scorer, top


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer.load(folder, version="7")


@pytest.fixture(scope="module")
def by_user(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer.load(write(tmp_path_factory.mktemp("b") / "factors", factors()))


def brute_force(net, user: int, history, seen, k: int) -> list[tuple[str, float]]:
    scores = Served(fold(net)).scores(np.array([user]), [np.asarray(history)])[0]
    open_ = [i for i in range(1, N + 1) if i not in set(seen)]
    best = sorted(open_, key=lambda i: (-scores[i], i))[:k]
    return [(f"b{i}", float(scores[i])) for i in best]


def listed(answer: dict) -> list[tuple[str, float]]:
    return [(row["item_id"], row["score"]) for row in answer["items"]]


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [i for i, _ in found] == [i for i, _ in expected]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=1e-5)


@pytest.mark.parametrize("user", range(1, 7))
def test_known_user_gets_the_models_best_unseen_items(scorer: Scorer, log, user: int) -> None:
    history = log.item[log.user == user]
    answer = scorer.recommend(log.users.ids[user - 1], 5)
    same(listed(answer), brute_force(sasrec(), user, history, history, 5))
    assert answer["fallback"] is None and answer["note"] is None
    assert (answer["user"], answer["model"], answer["version"]) == (
        log.users.ids[user - 1], "sasrec", "7",
    )  # fmt: skip
    assert answer["items"][0]["title"] in {f"Book {i}" for i in range(1, N + 1)} | {None}


def test_seen_items_return_only_when_asked_for(scorer: Scorer, log) -> None:
    history = log.item[log.user == 2]
    answer = scorer.recommend(log.users.ids[1], N, exclude_seen=False)
    same(listed(answer), brute_force(sasrec(), 2, history, [], N))
    fewer = scorer.recommend(log.users.ids[1], N)
    assert len(fewer["items"]) == N - len(set(history))


def test_unknown_user_gets_popular_items_and_the_answer_says_so(scorer: Scorer, log) -> None:
    for nobody in ("stranger", "", None):
        answer = scorer.recommend(nobody, 3)
        assert answer["fallback"] == "popularity" and answer["note"]
        counts = [(log.item == int(i["item_id"][1:])).sum() for i in answer["items"]]
        assert counts == sorted(counts, reverse=True) and answer["items"][0]["item_id"] == "b1"
        assert [i["score"] for i in answer["items"]] == counts


def test_given_history_of_an_unknown_user_is_scored_by_the_model(scorer: Scorer) -> None:
    answer = scorer.recommend("stranger", 4, history=["b5", "gone", "b2"])
    assert answer["fallback"] == "history" and answer["ignored"] == ["gone"]
    same(listed(answer), brute_force(sasrec(), 0, [5, 2], [5, 2], 4))
    turned = scorer.recommend("stranger", 4, history=["b2", "b5"])
    assert listed(turned) != listed(answer)  # a sequence model reads the order


def test_history_of_nothing_but_unknown_items_is_no_history(scorer: Scorer) -> None:
    answer = scorer.recommend("stranger", 2, history=["gone"])
    assert answer["fallback"] == "popularity" and answer["ignored"] == ["gone"]


def test_given_history_replaces_the_stored_one_but_known_items_stay_out(
    scorer: Scorer, log
) -> None:
    known = log.item[log.user == 1]
    answer = scorer.recommend(log.users.ids[0], 4, history=["b4", "b9"])
    assert answer["fallback"] is None
    same(listed(answer), brute_force(sasrec(), 1, [4, 9], [*known, 4, 9], 4))


def test_model_that_ranks_by_user_says_what_it_does_with_a_history(by_user: Scorer, log) -> None:
    known = log.item[log.user == 1]
    plain = by_user.recommend(log.users.ids[0], 4)
    same(listed(plain), brute_force(factors(), 1, known, known, 4))
    first = plain["items"][0]["item_id"]
    answer = by_user.recommend(log.users.ids[0], 3, history=[first])
    assert "only excludes" in answer["note"] and answer["fallback"] is None
    assert listed(answer) == listed(plain)[1:]


class ByUserAlone:
    """A served model without a seam for visitors: tables looked up by user position."""

    class Net:
        pass

    net = Net()

    def scores(self, users, histories):
        table = np.random.default_rng(0).normal(size=(7, N + 1)).astype(np.float32)
        table[0], table[:, 0] = 0, -np.inf
        return table[np.asarray(users)]


def test_visitor_of_a_model_that_knows_users_alone_gets_items_near_the_history(
    folder: Path,
) -> None:
    from llmers_pipelines.registry.bundle import load_bundle
    from llmers_pipelines.registry.ranker import Ranker

    bundle = load_bundle(folder)
    ranker = Ranker(ByUserAlone(), False, N)
    scorer = Scorer(bundle, ranker, "1", ranker.reads(bundle.by_popularity))
    assert scorer.reads == {"user"}
    answer = scorer.recommend("stranger", 3, history=["b5"], explain=True)
    assert answer["fallback"] == "similar_items"
    users_of = [set(np.flatnonzero(_seen_by(bundle, i))) for i in range(N + 1)]
    cosine = {
        i: len(users_of[i] & users_of[5]) / max(1, (len(users_of[i]) * len(users_of[5])) ** 0.5)
        for i in range(1, N + 1) if i != 5
    }  # fmt: skip
    expected = sorted(cosine, key=lambda i: (-cosine[i], i))[:3]
    assert [r["item_id"] for r in answer["items"]] == [f"b{i}" for i in expected]
    assert answer["items"][0]["why"]["by"] == "co-occurrence"


def _seen_by(bundle, item: int) -> np.ndarray:
    return np.array([item in bundle.seen[bundle.rows(u)] for u in range(len(bundle.users) + 1)])


def test_many_users_at_once_get_what_each_gets_alone(scorer: Scorer, monkeypatch) -> None:
    users = ["u3", None, "u1", "stranger", "u6"]
    histories = [None, ["b4"], ["b2", "b3"], None, None]
    alone = [scorer.recommend(u, 4, history=h) for u, h in zip(users, histories, strict=True)]
    monkeypatch.setattr("llmers_pipelines.registry.scorer.BLOCK", 2 * (N + 1))
    together = scorer.recommend_many(users, 4, histories=histories)
    for one, other in zip(alone, together, strict=True):
        same(listed(other), listed(one))
        assert {**one, "items": 0} == {**other, "items": 0}


def test_k_must_be_positive(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="k = 0"):
        scorer.recommend("u1", 0)


def test_ties_go_by_position_and_padding_never_wins() -> None:
    scores = np.array([9, 1, 3, 3, -np.inf, 3, 2], np.float32)
    items, values = top(scores, np.array([2]), 3)
    assert items.tolist() == [3, 5, 6] and values.tolist() == [3, 3, 2]
    assert top(scores, np.array([], np.int64), 9)[0].tolist() == [2, 3, 5, 6, 1]


@pytest.mark.parametrize(
    ("make", "unit"), [(sasrec, False), (factors, True), (lambda **k: factors("bpr", **k), False)]
)
@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_index_gives_the_same_answers_as_the_scan(tmp_path: Path, make, unit, kind: str) -> None:
    log = make_log(n_items=400)
    net = make(n_items=400)
    plain = Scorer.load(write(tmp_path / "plain", net, log, items=make_items(400)))
    searched = Scorer.load(
        write(tmp_path / kind, net, log, items=make_items(400),
              index=IndexSettings(kind, target_recall=1.0))
    )  # fmt: skip
    assert searched.index is not None and searched.index.unit == unit
    assert (searched.index.kind, searched.index.recall) == (kind, 1.0)
    for user in log.users.ids:
        same(listed(searched.recommend(user, 5)), listed(plain.recommend(user, 5)))


@pytest.mark.parametrize("kind", ["ivf", "ivf8"])
def test_index_holds_for_users_who_have_seen_much(tmp_path: Path, monkeypatch, kind: str) -> None:
    """Each user has seen what is nearest: 5, 150 or, three of them, 800 of 6,000 items."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16))
    near = lambda n: centres[rng.integers(0, 60, n)] + 0.5 * rng.normal(size=(n, 16))  # noqa: E731
    count = np.array([5] * 130 + [150] * 67 + [800] * 3)
    vectors, users = near(6000), near(200)
    seen = np.argsort(-(users @ vectors.T), axis=1)[:, :800] + 1
    user = np.repeat(np.arange(1, 201), count)
    log = make_log(
        200, 6000, user=user, item=seen[np.arange(800) < count[:, None]],
        time=np.arange(len(user)), split=np.zeros(len(user), np.int8),
    )  # fmt: skip
    net = BPRMF(dim=16, loss="bpr").build(log, 0).eval()
    with torch.no_grad():
        net.item_table.weight[1:] = torch.from_numpy(vectors).float()
        net.user_table.weight[1:] = torch.from_numpy(users).float()
    config, arrays = export(net)
    folder = write_bundle(
        tmp_path / kind, config=config, arrays=arrays, data=log, items=make_items(6000), meta=META,
        attributes=[], index=IndexSettings(kind),
    )  # fmt: skip
    scorer = Scorer.load(folder)
    assert scorer.index is not None and (scorer.index.kind, scorer.index.most) == (kind, 200)
    exact = dataclasses.replace(scorer, index=None)
    names = log.users.ids
    asked = scorer.recommend_many(names, 10), exact.recommend_many(names, 10)
    found, best = ([{i for i, _ in listed(answer)} for answer in each] for each in asked)
    share = np.array([len(a & b) / 10 for a, b in zip(found, best, strict=True)])
    assert share[count == 5].mean() >= 0.98
    assert share[count == 150].mean() >= 0.98
    assert (share[count == 800] == 1).all()  # scanned

    def refused(queries, k):
        raise AssertionError("asked beyond what was measured")

    monkeypatch.setattr(scorer.index, "search", refused)
    assert len(scorer.recommend(names[199], 10)["items"]) == 10
    with pytest.raises(AssertionError, match="beyond"):
        scorer.recommend(names[0], 10)


def test_model_that_no_index_can_serve_is_scanned_where_none_is_needed(tmp_path: Path) -> None:
    from llmers_pipelines.models.ease import EASE

    net = EASE(decay="mean").build(make_log(), 0)
    with pytest.raises(BundleError, match="no item vectors"):
        write(tmp_path / "x", net, index=IndexSettings("ivf"))
    scorer = Scorer.load(write(tmp_path / "x", net, index=IndexSettings("ivf", needed=False)))
    assert scorer.index is None and scorer.bundle.config["index"] is None


def test_index_that_finds_too_few_is_completed_by_a_scan(tmp_path: Path, monkeypatch) -> None:
    log, net, items = make_log(n_items=400), sasrec(n_items=400), make_items(400)
    folder = write(tmp_path / "b", net, log, items=items, index=IndexSettings("ivf"))
    scorer = Scorer.load(folder)
    expected = listed(scorer.recommend("u2", 5))
    dry = lambda queries, k: (np.zeros((1, k)), np.zeros((1, k), np.int64))  # noqa: E731
    monkeypatch.setattr(scorer.index, "search", dry)
    same(listed(scorer.recommend("u2", 5)), expected)


def test_index_of_a_model_that_scores_otherwise_is_refused(tmp_path: Path, monkeypatch) -> None:
    from llmers_pipelines.models.sasrec_net import SASRecNet

    score = SASRecNet._score
    monkeypatch.setattr(SASRecNet, "_score", lambda self, s, i: score(self, s, i).tanh())
    with pytest.raises(BundleError, match="neither by dot product nor by cosine"):
        write(tmp_path / "x", sasrec(), index=IndexSettings())


def test_network_of_a_strange_package_is_never_built(folder: Path, tmp_path: Path) -> None:
    from llmers_pipelines.registry.ranker import load_ranker

    config = json.loads((folder / "config.json").read_text())["model_config"]
    for net in ("subprocess:Popen", "llmers_pipelines_evil.x:Net", "os:system"):
        for strange in ({**config, "net": net}, {**config, "hooks": [{"net": net}]}):
            with pytest.raises(BundleError, match="only those of llmers_pipelines"):
                load_ranker(strange, {}, "sequential", N)


def test_serving_imports_no_language_model(folder: Path) -> None:
    script = f"""
import sys
class Wall:
    names = ("llmers_pipelines.llm", "llmers_pipelines.encode", "llmers_pipelines.prompts",
             "transformers", "vllm", "mlflow", "dagster")
    def find_spec(self, name, path=None, target=None):
        if any(name == n or name.startswith(n + ".") for n in self.names):
            raise ImportError("not at serving: " + name)
sys.meta_path.insert(0, Wall())
from llmers_pipelines.registry.scorer import Scorer
light = [m for m in ("torch", "pandas", "pyarrow", "faiss") if m in sys.modules]
answer = Scorer.load({str(folder)!r}).recommend("u2", 3, explain=True)
assert len(answer["items"]) == 3 and answer["fallback"] is None, answer
print(light)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"  # the module itself is light


def test_one_user_of_five_thousand_items_is_answered_in_time(tmp_path: Path) -> None:
    log, net = make_log(n_users=50, n_items=5000), sasrec(n_items=5000, dim=64)
    scorer = Scorer.load(write(tmp_path / "b", net, log, items=make_items(5000)))
    took = []
    for user in log.users.ids[:10]:
        start = time.perf_counter()
        scorer.recommend(user, 10)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05
