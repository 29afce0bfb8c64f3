"""Planted strangers, selected positions, grounded suggestions, an edited log (LLM4DSR)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny_lm

from llmers_pipelines.data.edits import random_edits, with_edits
from llmers_pipelines.data.leakage import prompt_violations
from llmers_pipelines.data.training import TEST, TRAIN, VALID, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.cleaned_history import CleanedHistory
from llmers_pipelines.derive.corruptions import Corruptions
from llmers_pipelines.derive.noisy_positions import NoisyPositions
from llmers_pipelines.derive.sequence_edits import SequenceEdits
from llmers_pipelines.enhance.edited_history import EditedHistory
from llmers_pipelines.llm.choosing import choose_all
from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.llm.protocol import ChoiceRequest
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import training_log
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.orchestrate.steps.derive_checks import (
    entity_checks,
    example_checks,
    position_checks,
)
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.prompts.noise import END, NOISE, REPLACE, NoiseList, Replacement
from llmers_pipelines.prompts.titled import titles_by_position, windows_of
from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.teach.noise_scores import NoiseScores
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.arms import control_inputs
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("llm4dsr", "equations")
LOG, EDITS = Table("splits", task="sequential"), Table("edits")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return planted_rings(n_users=20, n_items=16, seed=4).data


@pytest.fixture(scope="module")
def items(data: TrainingData) -> pa.Table:
    titles = [f"Film {chr(65 + n)}{n}" for n in range(len(data.items.ids))]
    titles[3] = ""
    return pa.table({"item_id": list(data.items.ids), "title": titles})


def planted(data: TrainingData, items: pa.Table, **more: Any) -> pa.Table:
    made = Corruptions(samples=60, shown=5, **more).apply([items], log=data, context={})
    return made[0]


def test_one_stranger_stands_among_the_users_own(data: TrainingData, items: pa.Table) -> None:
    titles = dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))
    for row in planted(data, items).to_pylist():
        user = int(data.users.index([row["user_id"]])[0])
        mine = set(data.item[(data.user == user) & (data.split == TRAIN)].tolist())
        assert int(data.items.index([row["noise_id"]])[0]) not in mine
        question = json.loads(row["prompt"])[-1]["content"]
        lines = [x.split(". ", 1)[1].strip("'") for x in question.splitlines() if x[:1].isdigit()]
        assert lines[row["position"]] == titles[row["noise_id"]]
        rest = [t for n, t in enumerate(lines) if n != row["position"]]
        assert rest == [titles[i] for i in row["shown"]]
        assert row["answer"] == [NOISE, titles[row["noise_id"]], REPLACE,
                                 titles[row["item_id"]], END]  # fmt: skip


def test_held_out_rows_leave_no_trace(data: TrainingData, items: pa.Table) -> None:
    """Other validation and test items: the same examples byte by byte; all shown rows are TRAIN."""
    moved = data.item.copy()
    held = np.isin(data.split, (VALID, TEST))
    moved[held] = np.roll(moved[held], 1)
    other = dataclasses.replace(data, item=moved)
    table = planted(data, items)
    assert planted(other, items).equals(table)
    checks = {c.name: c for c in example_checks(table, data)}
    assert checks["no_leakage"].passed and checks["row_identity"].passed
    user = np.flatnonzero(data.split == TEST)[0]
    seen = [[data.items.ids[data.item[user] - 1]], *table["shown"].to_pylist()[1:]]
    who = [data.users.ids[data.user[user] - 1], *table["user_id"].to_pylist()[1:]]
    leaky = table.set_column(4, "shown", pa.array(seen)).set_column(1, "user_id", pa.array(who))
    assert not example_checks(leaky, data)[1].passed
    blind = table.drop_columns(["shown"])
    assert "do not tell" in str(example_checks(blind, data)[1].details["why"])


def scores_of(values: list[float], window: int = 0) -> pa.Table:
    n = len(values)
    return pa.table({
        "user_id": ["u"] * n, "row_id": [f"u@{p}" for p in range(n)], "window": [window] * n,
        "position": list(range(n)), "item_id": ["i"] * n, "logp": values,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("percentile", "most", "threshold", "selected"),
    [(0.6, 2, -2.6, [3, 4]), (0.9, 1, -1.4, [4]), (1.0, 2, -1.0, []), (0.0, 9, -5.0, [2, 3, 4])],
)
def test_the_percentile_by_hand(
    data: TrainingData, percentile: float, most: int, threshold: float, selected: list[int]
) -> None:
    """Scores -5 to -1: the .6 quantile is -2.6 (2 edits), the .9 quantile -1.4 (1 edit)."""
    how = NoisyPositions(percentile=percentile, most=most)
    table, info = how.apply([scores_of([-5.0, -4.0, -3.0, -2.0, -1.0])], log=data)
    assert info["threshold"] == pytest.approx(threshold)
    assert table["position"].to_pylist() == selected


def test_the_bound_is_one_of_a_window(data: TrainingData) -> None:
    both = pa.concat_tables([scores_of([-1.0, -1.0, -1.1]), scores_of([-9.0, -8.0, -1.0], 10)])
    table, _ = NoisyPositions(percentile=0.1, most=1).apply([both], log=data)
    assert table["window"].to_pylist() == [0, 10] and table["position"].to_pylist() == [0, 2]


def test_suggestions_become_items(data: TrainingData, items: pa.Table) -> None:
    """By title whatever its case, else by the nearest vector; the item itself is no edit."""
    ids = data.items.ids
    mine = data.item[(data.user == 1) & (data.split == TRAIN)][:4]
    noisy = pa.table({
        "user_id": [data.users.ids[0]] * 4, "row_id": list("abcd"), "window": [0] * 4,
        "position": [0, 1, 2, 3], "item_id": [ids[i - 1] for i in mine], "logp": [-1.0] * 4,
    })  # fmt: skip
    titles = items["title"].to_pylist()
    target = next(i for i in range(len(ids)) if titles[i] and i + 1 not in mine)
    told = [titles[target].upper(), "no such film", None, "another name"]
    answers = pa.table({"row_id": list("abcd"), "text": told, "request_key": ["k"] * 4})
    space = np.eye(16, dtype=np.float32)
    mask = np.ones(16, bool)
    near = space[[0, target, 0, mine[3] - 1]] + 0.1
    answered = np.array([True, True, False, True])
    vectors = (VectorTable("item", ids, space, mask),
               VectorTable("row", tuple("abcd"), near, answered))  # fmt: skip
    table, info = SequenceEdits().apply([noisy, answers, items, *vectors], log=data)
    assert table["row_id"].to_pylist() == ["a", "b"]
    assert table["new_id"].to_pylist() == [ids[target]] * 2
    assert table["grounding"].to_pylist() == ["exact", "nearest"]
    assert table["distance"].to_pylist() == pytest.approx([0.0, 0.4])
    assert (info["no_answer"], info["same_item"]) == (1, 1)
    strict, info = SequenceEdits(max_distance=0.2).apply([noisy, answers, items, *vectors],
                                                         log=data)  # fmt: skip
    assert strict["row_id"].to_pylist() == ["a"] and info["too_far"] == 2
    assert all(c.passed for c in position_checks(table, data))
    wrong = table.set_column(2, "position", pa.array([1, 0]))
    assert "does not stand there" in str(position_checks(wrong, data)[0].details["why"])


@pytest.fixture(scope="module")
def edits(data: TrainingData) -> pa.Table:
    rows = []
    for user in (1, 2, 5):
        mine = data.item[(data.user == user) & (data.split == TRAIN)]
        rows.append({"user_id": data.users.ids[user - 1], "position": 1,
                     "old_id": data.items.ids[mine[1] - 1], "new_id": data.items.ids[0],
                     "logp": -float(user)})  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_order_and_length_stay(data: TrainingData, edits: pa.Table) -> None:
    edited = with_edits(data, edits, "edits")
    changed = np.flatnonzero(edited.item != data.item)
    assert len(changed) <= 3 and (data.split[changed] == TRAIN).all()
    assert (edited.item[changed] == 1).all()
    for name in ("user", "time", "split"):
        np.testing.assert_array_equal(getattr(edited, name), getattr(data, name))
    assert with_edits(data, edits.slice(0, 0), "edits").content_hash() == data.content_hash()
    with pytest.raises(ValueError, match=r"edits: row 0, user .*, position 1: .*this log"):
        with_edits(edited, edits.set_column(3, "new_id", edits["old_id"]), "edits")


def test_edits_change_training_alone(data: TrainingData, edits: pa.Table) -> None:
    part = EditedHistory(EDITS)
    assert training_log((part.inert(),), data, {EDITS: edits}, 0) is data
    one = training_log((dataclasses.replace(part, share=0.3),), data, {EDITS: edits}, 0)
    moved = np.flatnonzero(one.item != data.item)
    assert set(data.user[moved]) <= {1}, "the surest edit comes first"
    back = SASRec(dim=8, inner=16, fit=Fit(epochs=2, min_epochs=1, batch=16))
    trains = [Train(back, LOG), *(Train(back, LOG, aux=(p,)) for p in (part.inert(), part))]
    runs = [fit(t, data, {EDITS: edits}, seed=0) for t in trains]
    base, off, on = (r.export()[1] for r in runs)
    assert all(np.array_equal(base[k], off[k]) for k in base)
    assert any(not np.array_equal(base[k], on[k]) for k in base)
    assert runs[2].data is data, "what validates and serves is the log as it is"


def test_a_part_cannot_touch_held_out_rows(data: TrainingData) -> None:
    class Leaky(EditedHistory):
        def edited(self, data: Any, inputs: Any, seed: int) -> Any:
            return dataclasses.replace(data, item=np.ones_like(data.item))

    with pytest.raises(ValueError, match="training rows alone"):
        training_log((Leaky(EDITS),), data, {}, 0)

    class Shorter(EditedHistory):
        def edited(self, data: Any, inputs: Any, seed: int) -> Any:
            keep = np.arange(len(data.user)) != np.flatnonzero(data.split == TRAIN)[0]
            rows = {n: getattr(data, n)[keep] for n in ("user", "item", "time", "split")}
            return dataclasses.replace(data, **rows)

    left = training_log((Shorter(EDITS),), data, {}, 0)
    assert len(left.user) == len(data.user) - 1, "a method may drop training rows"


def test_control_edits_are_as_many_and_mean_nothing(data: TrainingData, edits: pa.Table) -> None:
    dealt = random_edits(data, edits, np.random.default_rng(0), suggested=True)
    drawn = random_edits(data, edits, np.random.default_rng(0), suggested=False)
    assert sorted(dealt["new_id"].to_pylist()) == sorted(edits["new_id"].to_pylist())
    for table in (dealt, drawn):
        assert table["user_id"].equals(edits["user_id"])
        assert position_checks(table, data)[0].passed
        with_edits(data, table, "control")
    for arm in ("permuted", "gaussian"):
        made = control_inputs({EDITS: edits}, arm, seed=0, log=data)[EDITS]
        assert position_checks(made, data)[0].passed and made.num_rows == edits.num_rows
        with pytest.raises(ValueError, match="log"):
            control_inputs({EDITS: edits}, arm, seed=0)


def test_windows_are_cut_from_the_newest_row(data: TrainingData, items: pa.Table) -> None:
    titles = titles_by_position(items, data)
    assert not titles[0] and not titles[4], "an item without a title is not told"
    for window in windows_of(data, titles, 4, 2):
        mine = data.item[(data.user == window.user) & (data.split == TRAIN)]
        assert [int(mine[p]) for p in window.positions] == list(window.items)
        assert 2 <= len(window.items) <= 4 and 4 not in window.items
    user = 1
    named = [p for p, i in enumerate(data.item[(data.user == user) & (data.split == TRAIN)])
             if titles[i]]  # fmt: skip
    mine = [w for w in windows_of(data, titles, 4, 1) if w.user == user]
    assert list(mine[0].positions) == named[-4:]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> HfEngine:
    return HfEngine(HfSettings(str(tiny_lm.make_tiny_lm(tmp_path_factory.mktemp("lm")))))


def test_a_score_is_the_first_token_behind_the_quote(engine: HfEngine) -> None:
    """Against a plain forward pass over the prompt with its answer begun."""
    import torch

    messages = ({"role": "user", "content": "which?"}, {"role": "assistant", "content": NOISE})
    names = ("the sea", "clock", "the keeper")
    (found,) = engine.choose([ChoiceRequest("r", messages, names, first_tokens=1)])
    own = engine.tokenizer
    ids = own("<user>which?<eos><assistant>")["input_ids"] + own(NOISE)["input_ids"]
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    first = [own(n)["input_ids"][0] for n in names]
    assert found.sums == pytest.approx([float(logits[t]) for t in first], abs=1e-5)
    assert first[0] == first[2] and found.sums[0] == found.sums[2], "one beginning, one score"


def test_scores_of_a_log(
    data: TrainingData, items: pa.Table, engine: HfEngine, tmp_path: Path
) -> None:
    how = NoiseScores(prompt=NoiseList(4), least=2)
    asked, windows = how.requests(data, items.to_pylist(), None, {})
    store = ResponseStore(tmp_path)
    chosen = choose_all(asked, engine, store, task="t", revision="r", progress=False)
    taught = how.taught(data, windows, chosen, "tiny")
    table = taught.rows
    assert table.num_rows == sum(len(w.items) for w in windows)
    assert position_checks(table, data)[0].passed
    assert not prompt_violations(data, table["user_id"].to_pylist(), table["item_id"].to_pylist())
    # every title begins with "Film": one token, one score per window
    assert taught.counts["first_token_collisions"] > 0
    again = choose_all(asked, engine, store, task="t", revision="r", progress=False)
    assert again.counts["llm_calls"] == 0


def test_a_suggestion_ends_at_its_quote() -> None:
    task = Replacement()
    row = {"row_id": "u@1", "user_id": "u", "position": 1, "noise": {"title": "B'a"},
           "history": [{"title": "A"}, {"title": "B'a"}]}  # fmt: skip
    last = task.render(row)[-1]
    assert last == {"role": "assistant", "content": f"{NOISE}B’a{REPLACE}"}
    parsed = task.parse("Some Film'\nNoise")
    assert parsed.value == {"title": "Some Film"}
    assert task.parse("'").status == "invalid"
    assert task.resolved(parsed.value, row) == {"title": "Some Film", "user_id": "u", "position": 1}
    assert task.template(row) == {"title": "A"} and task.parse(task.write({"title": "A"})).value


def test_cleaned_histories_keep_length_and_order(data: TrainingData) -> None:
    rows = np.flatnonzero((data.user == 2) & (data.split == TRAIN))
    names = [data.items.ids[i - 1] for i in data.item[rows]]
    new = next(i for i in data.items.ids if i not in names)
    edits = pa.table({"user_id": [data.users.ids[1]], "position": [1], "old_id": [names[1]],
                      "new_id": [new]})  # fmt: skip
    table, told = CleanedHistory().apply([edits, data])
    assert all(c.passed for c in entity_checks(table, data))
    assert told == {"users": 20, "users_edited": 1, "rows_edited": 1}
    found = {r["user_id"]: r for r in table.to_pylist()}
    assert found[data.users.ids[1]]["item_ids"] == [names[0], new, *names[2:]]
    for u in (1, 3):
        mine = data.item[(data.user == u) & (data.split == TRAIN)]
        row = found[data.users.ids[u - 1]]
        assert row["item_ids"] == [data.items.ids[i - 1] for i in mine] and row["edited"] == 0
    plain, none = CleanedHistory().apply([edits.slice(0, 0), data])
    assert none["rows_edited"] == 0 and plain.num_rows == 20
    with pytest.raises(ValueError, match="needs edits"):
        CleanedHistory().apply([data])
