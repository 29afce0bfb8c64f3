"""The probe of a model's memory: what is asked, what is hidden, how answers are graded."""

from __future__ import annotations

import pyarrow as pa
import pytest

from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.prompts.memory import (
    SHOWN,
    Probe,
    completion,
    graded,
    plain,
    probes,
    row_of,
    wilson,
)
from llmers_pipelines.testing.planted import planted_rings


@pytest.fixture(scope="module")
def asked():
    data = planted_rings(n_users=20, n_items=30, seed=1).data
    items = pa.table({"item_id": data.items.ids, "title": [f"Title {i}" for i in data.items.ids]})
    users = pa.table({"user_id": data.users.ids, "age": [20 + n for n in range(20)],
                      "job": ["clerk", "nurse"] * 10})  # fmt: skip
    return data, probes(data, items, users, ["age", "job"], 12, 3)


def test_each_kind_is_asked_and_nothing_hidden_is_shown(asked):
    data, found = asked
    assert [sum(p.kind == k for p in found) for k in ("title", "user", "next")] == [12, 12, 12]
    assert len({p.probe_id for p in found}) == len(found)
    task = completion()
    for p in found:
        row = row_of(p, "rings: a planted set")
        assert "hidden" not in row
        prompt = str(task.render(row))
        if p.kind != "next":  # an item id may be part of a longer one
            assert p.hidden not in prompt
    user = next(p for p in found if p.kind == "user")
    assert "user_id|age|job" in user.shown and user.hidden.count("|") == 1
    assert probes(data, pa.table({"item_id": ["i1"], "title": [None]}), None, [], 3) != []


def test_rows_that_are_told_are_training_rows_in_their_order(asked):
    data, found = asked
    for p in (p for p in found if p.kind == "next"):
        user = int(data.users.index([p.probe_id.removeprefix("next:")])[0])
        mine = [data.items.ids[i - 1] for i in data.item[(data.user == user)
                                                         & (data.split == TRAIN)]]  # fmt: skip
        lines = p.shown.split("\n")[1:]
        told = [line.split(",")[1] for line in lines]
        assert len(told) == SHOWN + 1 and told[-1] == "?"
        windows = [mine[n : n + SHOWN + 1] for n in range(len(mine) - SHOWN)]
        assert [*told[:-1], p.hidden] in windows


def test_grades_by_hand():
    titles = ("Heat (1995)", "Matrix, The (1999)", "Alien", "Alien")
    asked = [Probe(f"title:{n}", "title", "", t) for n, t in enumerate(titles)]
    said = {"title:0": '"heat"', "title:1": "The Matrix\nIt is from 1999.", "title:2": "Heat",
            "title:3": ""}  # fmt: skip
    (row,) = graded(asked, said)
    assert (row["asked"], row["answered"], row["matches"], row["share"]) == (4, 3, 2, 0.5)
    assert row["null"] == pytest.approx(1 / 12)  # of 4 x 3 crossed pairs, "Heat" fits one
    low, high = wilson(2, 4)
    assert (row["low"], row["high"]) == (low, high)
    half = 1.959964 * (1 / 16 + 1.959964**2 / 64) ** 0.5 / (1 + 1.959964**2 / 4)
    assert low == pytest.approx(0.5 - half) and high == pytest.approx(0.5 + half)
    assert row["known"], "0.150 lies more than .01 above 1/12"


def test_unknown_is_no_answer_and_no_hit():
    titles = ("Heat", "unknown", "unknown (1998)", "Alien")
    asked = [Probe(f"title:{n}", "title", "", t) for n, t in enumerate(titles)]
    said = {p.probe_id: word for p, word in zip(asked, ("Unknown.", "unknown", "'unknown'",
            "answer: unknown"), strict=True)}  # fmt: skip
    (row,) = graded(asked, said)
    assert (row["asked"], row["answered"], row["matches"], row["null"]) == (4, 0, 0, 0.0)
    (row,) = graded(asked, {**said, "title:0": "Heat", "title:3": "The Unknown"})
    assert (row["answered"], row["matches"]) == (2, 1), "a title that holds the word is an answer"


def test_one_common_answer_is_no_memory():
    asked = [Probe(f"next:{n}", "next", "", "i1" if n < 12 else f"i{n}") for n in range(40)]
    (row,) = graded(asked, {p.probe_id: "i1" for p in asked})
    assert row["share"] == 0.3 and row["null"] == pytest.approx((40 * 12 - 12) / (40 * 39))
    assert not row["known"], "who always names the most met item knows nothing"
    assert not graded(asked, {})[0]["known"]


def test_spellings():
    assert plain("  'The Sea, II' ", "title") == plain("the sea ii", "title")
    assert plain("24|M|technician", "user") == plain("24 | m | Technician.", "user")
    assert plain("", "next") == ""
