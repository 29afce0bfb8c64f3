"""Statistics of training, candidates, scores, thresholds, profiles, the mask (LLMHD)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.training import TRAIN, TrainingData
from llmers_pipelines.derive.candidates import PastModel
from llmers_pipelines.derive.confident_errors import ConfidentErrors
from llmers_pipelines.derive.hard_candidates import HardCandidates
from llmers_pipelines.derive.hard_samples import HardSamples, between
from llmers_pipelines.derive.profile_versions import PairTexts
from llmers_pipelines.enhance.sample_mask import SampleMask
from llmers_pipelines.enhance.sample_mask_net import SampleMaskHook, hard_keys
from llmers_pipelines.enhance.training_statistics import TrainingStatistics
from llmers_pipelines.enhance.training_statistics_net import statistics
from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.prompts.preference_score import PreferenceScore
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("llmhd", "equations")
LOG, HARD = Table("splits", task="collaborative"), Table("hard")
SMALL = BPRMF(dim=8, fit=Fit(epochs=6, min_epochs=6, batch=32, lr=0.01), loss="bpr")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    made = planted_rings(n_users=40, n_items=24).data
    return dataclasses.replace(made, task="collaborative")


def test_variance_is_that_of_the_population() -> None:
    """Scores (.9, .1, .9, .1) vary by .16, equal ones by 0."""
    scores = np.zeros((4, 2, 2))
    scores[:, 0] = np.array([[0.9, 0.5], [0.1, 0.5], [0.9, 0.5], [0.1, 0.5]])
    scores[:, 1, 0] = [0.0, 1.0, 0.0, 1.0]
    found = statistics(scores, extreme=0.5)
    np.testing.assert_allclose(found["positive_variance"], [0.16, 0.0], atol=1e-12)
    np.testing.assert_allclose(found["negative_variance"], [0.25, 0.0], atol=1e-12)
    wanted = np.mean([np.log1p(np.exp(-0.9)), np.log1p(np.exp(0.9))])
    assert found["loss"][0] == pytest.approx(wanted)
    assert found["low_epochs"].tolist() == [2, 2] and found["epochs"].tolist() == [4, 4]
    assert found["high_epochs"].tolist() == [4, 0]  # ties go to the earlier pair


def test_a_watched_training_is_the_same_and_tells_its_last_epochs(data: TrainingData) -> None:
    plain = fit(Train(SMALL, LOG), data, {}, seed=0)
    watched = fit(Train(SMALL, LOG, aux=(TrainingStatistics(last=3),)), data, {}, seed=0)
    for name, weights in plain.state.items():
        np.testing.assert_array_equal(weights, watched.state[name])
    table = watched.beside["statistics"]
    assert plain.beside == {} and set(table["epochs"].to_pylist()) == {3}
    pairs = {(u, i) for u, i in zip(data.user[data.split == TRAIN], data.item[data.split == TRAIN],
                                    strict=True)}  # fmt: skip
    assert table.num_rows == len(pairs)
    users = data.users.index(table["user_id"].to_pylist())
    others = data.items.index(table["negative_id"].to_pylist())
    assert not {*zip(users, others, strict=True)} & pairs


def test_the_last_recorded_scores_are_the_models(data: TrainingData) -> None:
    """With one recorded epoch the means are the scores of the model one epoch before its end."""
    two = dataclasses.replace(SMALL, fit=dataclasses.replace(SMALL.fit, epochs=2, min_epochs=2))
    one = dataclasses.replace(SMALL, fit=dataclasses.replace(SMALL.fit, epochs=1, min_epochs=1))
    table = fit(Train(two, LOG, aux=(TrainingStatistics(last=1),)), data, {}, seed=0).beside[
        "statistics"
    ]
    state = fit(Train(one, LOG), data, {}, seed=0).state
    user = data.users.index(table["user_id"].to_pylist())
    item = data.items.index(table["item_id"].to_pylist())
    wanted = (state["user_table.weight"][user] * state["item_table.weight"][item]).sum(1)
    np.testing.assert_allclose(table["positive_mean"].to_numpy(), wanted, atol=1e-5)


def past(data: TrainingData, table: pa.Table | None) -> PastModel:
    return PastModel(data, lambda u, h: np.zeros(0), beside=lambda name: table)


@pytest.fixture(scope="module")
def told() -> pa.Table:
    """Five pairs; losses fall from the first to the last."""
    return pa.table({
        "user_id": ["u1", "u1", "u2", "u3", "u4"], "item_id": ["i1", "i2", "i3", "i4", "i5"],
        "negative_id": ["i6", "i7", "i8", "i9", "i10"],
        "loss": [5.0, 4.0, 3.0, 2.0, 1.0],
        "positive_variance": [0.0, 0.4, 0.1, 0.9, 0.9],
        "negative_variance": [0.3, 0.0, 0.1, 0.9, 0.9],
        "positive_mean": [-3.0, 1.0, 1.0, 1.0, -4.0], "negative_mean": [0.0, 2.0, 0.0, 0.0, 0.0],
        "low_epochs": [4, 0, 0, 0, 2], "high_epochs": [0, 3, 0, 0, 0], "epochs": [5] * 5,
    })  # fmt: skip


def test_candidates_are_moving_scores_of_large_losses(data: TrainingData, told: pa.Table) -> None:
    def pairs(**how: Any) -> list[str]:
        made = HardCandidates(**how).apply([past(data, told)], log=data)[0]
        return [f"{r['pair_id']}:{r['label']}" for r in made.to_pylist()]

    half = {"loss_share": 0.6, "variance_share": 0.34}
    assert pairs(**half, pairwise=False) == ["u1|i2:1", "u1|i6:0"]
    assert pairs(**half) == ["u1|i1:1", "u1|i2:1", "u1|i6:0", "u1|i7:0"]
    assert pairs(loss_share=0.6, variance_share=0.0) == []  # nothing is asked: truncated loss
    assert pairs(loss_share=0.0) == []
    assert len(pairs(loss_share=1.0, variance_share=1.0)) == 10
    for table, why in ((None, "recorded its training"), (told.slice(0, 0), "no epoch")):
        with pytest.raises(ValueError, match=why):
            HardCandidates().apply([past(data, table)], log=data)


def scored(scores: dict[str, int | None]) -> pa.Table:
    return pa.table({
        "pair_id": list(scores), "score": pa.array(list(scores.values()), pa.int64()),
        "status": ["ok" if s is not None else "quarantined" for s in scores.values()],
        "request_key": ["k"] * len(scores),
    })  # fmt: skip


def test_hardness_by_hand(data: TrainingData, told: pa.Table) -> None:
    asked = HardCandidates(loss_share=0.6, variance_share=1.0)
    pairs = asked.apply([past(data, told)], log=data)[0]
    scores = scored({"u1|i1": 9, "u1|i6": 1, "u1|i2": 5, "u1|i7": 5, "u2|i3": 0, "u2|i8": None})

    def hard(**how: Any) -> list[str]:
        table, _ = HardSamples(**how).apply([scores, pairs], log=data)
        return [r["item_id"] for r in table.to_pylist() if r["hard"]]

    assert hard() == ["i2", "i7"]  # 9 - 1 is not below 3, 5 - 5 is, i3 has no partner's score
    assert hard(round=1, rounds=2) == ["i2", "i7"]  # 8 is not below 7 either
    assert hard(pairwise=False) == ["i2", "i3", "i7"]  # below 6; a negative above 4
    assert hard(pairwise=False, floor=1.0) == ["i2", "i7"]  # 0 is obviously false: noise, dropped
    assert hard(pairwise=False, floor=-np.inf) == hard(pairwise=False)
    assert hard(floor=6.0) == []
    table, counts = HardSamples().apply([scores, pairs], log=data)
    assert counts["not_scored"] == 1 and table.num_rows == 5


def test_thresholds_are_monotone() -> None:
    for first, last, down in ((8, 6, True), (7, 3, True), (2, 4, False)):
        steps = [between(first, last, n, 5) for n in range(1, 6)]
        assert steps[0] == first and steps[-1] == last
        assert (np.diff(steps) < 0).all() == down and (np.diff(steps) > 0).all() != down
    assert between(8, 6, 1, 1) == 6
    with pytest.raises(ValueError, match="eps_pos and eps_pair fall"):
        HardSamples(eps_pos=(3.0, 8.0))


def answers(key: str, texts: dict[str, str]) -> pa.Table:
    return pa.table({key: list(texts), "text": list(texts.values()), "status": ["ok"] * len(texts),
                     "request_key": ["k"] * len(texts)})  # fmt: skip


def test_the_newest_profile_counts_and_the_others_stay(data: TrainingData, told: pa.Table) -> None:
    asked = HardCandidates(loss_share=0.6, variance_share=1.0)
    pairs = asked.apply([past(data, told)], log=data)[0]
    about = answers("item_id", {"i1": "sea", "i2": "sand", "i6": "moon"})
    first = answers("user_id", {"u1": "likes sand", "u2": "likes rain"})
    second = answers("user_id", {"u1": "likes the sea"})
    before, _ = PairTexts().apply([pairs, about, first])
    after, told_of = PairTexts().apply([pairs, about, first, second])
    assert told_of["newest_version"] == 2 and told_of["without_item_text"] > 0

    def row(table: pa.Table, pair: str) -> dict[str, Any]:
        return next(r for r in table.to_pylist() if r["pair_id"] == pair)

    assert row(after, "u1|i1")["profile"] == "likes the sea"
    assert row(after, "u1|i1")["profile_version"] == 2
    assert row(after, "u2|i3") == row(before, "u2|i3")
    task = PreferenceScore()
    assert task.render(row(after, "u1|i1")) != task.render(row(before, "u1|i1"))
    assert task.unaskable(row(after, "u2|i3")) == "the item has no text"


def test_confident_errors_by_hand(data: TrainingData, told: pa.Table) -> None:
    """i1 is low in 4 epochs and calm: a false positive. i7 is high in 3 and calm: a false negative.
    i5 is low in 2 only, and moves."""
    about = answers("item_id", {f"i{n}": f"text {n}" for n in range(1, 11)})
    first = answers("user_id", {"u1": "likes sand", "u4": "likes rain"})
    table, _ = ConfidentErrors(least=3).apply([past(data, told), about, first], log=data)
    assert table.to_pylist() == [{
        "user_id": "u1", "profile": "likes sand", "disliked": ["text 1"], "liked": ["text 7"],
        "shown": ["i1"],
    }]  # fmt: skip
    assert ConfidentErrors(least=5).apply([past(data, told), about, first])[0].num_rows == 0
    few, counts = ConfidentErrors(least=3).apply([past(data, told), about, answers("user_id", {})])
    assert few.num_rows == 0 and counts["without_profile"] == 1


def mask(hard: tuple[int, ...], negative: tuple[int, ...] = (), **how: Any) -> SampleMaskHook:
    both = (np.array(sorted(h), np.int64) for h in (hard, negative))
    return SampleMaskHook(*both, 100, how.pop("most", 0.5), how.pop("grow", 0))


def test_what_stays_of_a_batch_by_hand() -> None:
    """Half of four losses is suspect: the two largest, of which a hard one survives."""
    user, item = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8])
    batch = PairBatch(user, item, torch.tensor([[11], [12], [13], [14]]))
    losses = torch.tensor([4.0, 1.0, 3.0, 2.0])
    assert mask(()).stays(batch, losses).tolist() == [False, True, False, True]
    assert mask((105,)).stays(batch, losses).tolist() == [True, True, False, True]
    assert mask((), (313,)).stays(batch, losses).tolist() == [False, True, True, True]
    slow = mask((), most=0.5, grow=4)
    assert [slow.suspects(4) for slow.step in range(6)] == [0, 1, 1, 2, 2, 2]

    class Model:
        def pair_losses(self, batch: Any, states: Any) -> torch.Tensor:
            return losses

    found = mask((105,)).pair_loss(Model(), lambda b, s: losses.mean(), batch, None)
    assert float(found) == pytest.approx((4 + 1 + 2) / 3)
    off = mask((105,), most=0.0).pair_loss(Model(), lambda b, s: losses.mean(), batch, None)
    assert float(off) == pytest.approx(2.5)


def test_the_mask_in_training(data: TrainingData) -> None:
    """Off it is the backbone; with every pair hard as well; with none it is truncated loss."""
    rows = np.unique(np.stack([data.user, data.item], 1)[data.split == TRAIN], axis=0)
    table = pa.table({
        "user_id": [data.users.ids[u - 1] for u in rows[:, 0]],
        "item_id": [data.items.ids[i - 1] for i in rows[:, 1]],
        "label": np.ones(len(rows), np.int8), "hard": np.ones(len(rows), bool),
    })  # fmt: skip

    def state(most: float, marks: pa.Table) -> np.ndarray:
        part = SampleMask(source=HARD, most=most, grow=0)
        return fit(Train(SMALL, LOG, aux=(part,)), data, {HARD: marks}, seed=0).state[
            "item_table.weight"
        ]

    plain = fit(Train(SMALL, LOG), data, {}, seed=0).state["item_table.weight"]
    none = table.set_column(3, "hard", pa.array(np.zeros(len(rows), bool)))
    np.testing.assert_array_equal(state(0.0, none), plain)
    np.testing.assert_allclose(state(0.3, table), plain, atol=1e-5)
    assert np.abs(state(0.3, none) - plain).max() > 1e-3
    with pytest.raises(ValueError, match="not of this log"):
        hard_keys(table.set_column(0, "user_id", pa.array(["x"] * len(rows))), data, "marks")
    with pytest.raises(ValueError, match="no column 'hard'"):
        hard_keys(table.drop_columns(["hard"]), data, "marks")
    drawn = control_inputs({HARD: none.set_column(
        3, "hard", pa.array(np.arange(len(rows)) % 4 == 0))}, "permuted", seed=1)[HARD]  # fmt: skip
    assert sum(drawn["hard"].to_pylist()) == -(-len(rows) // 4)


def test_settings_are_checked() -> None:
    for wrong in (lambda: SampleMask(most=1.0), lambda: TrainingStatistics(last=0)):
        with pytest.raises(PlanError):
            wrong()
