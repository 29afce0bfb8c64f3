from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.training import HISTORY, TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.derive.reasoning import (
    KeptChains,
    NewSteps,
    ReasoningRows,
    UserChains,
    VerifiedSteps,
    leaf_paths,
    likeness,
    tells,
)
from llmers_pipelines.derive.reasoning_graphs import GraphTexts, ReasoningGraphs
from llmers_pipelines.prompts.reasoning import FillStep

pytestmark = pytest.mark.proof("llmrg", "equations")

ITEMS = tuple("abcdefgh")
TITLES = pa.table({"item_id": ITEMS, "title": [
    "Alpha (1999)", "Beta", "Gamma Rising", "Delta", "Epsilon", "Zeta, The (1950)", "Eta", None,
]})  # fmt: skip
AT = {"rounds": 2, "block": 2, "back": 3}


@pytest.fixture
def log():
    """u1: a b c d, then e valid, f test; u2: b c, then d held out; u3: d."""
    user = np.array([1] * 6 + [2] * 3 + [3])
    item = np.array([1, 2, 3, 4, 5, 6, 2, 3, 4, 4])
    split = np.array([TRAIN] * 4 + [VALID, TEST] + [TRAIN] * 2 + [TEST, TRAIN], np.int8)
    time = np.array([10, 20, 30, 40, 50, 60, 5, 6, 7, 1])
    return TrainingData("sequential", IdMap(("u1", "u2", "u3")), IdMap(ITEMS), user, item, time,
                        split)  # fmt: skip


def base(*steps):
    rows = [{"step_id": f"{a}>{b}", "after": a, "item": b, "reason": why, "round": 1}
            for a, b, why in steps]  # fmt: skip
    kinds = [(c, pa.string()) for c in ("step_id", "after", "item", "reason")]
    return pa.Table.from_pylist(rows, pa.schema([*kinds, ("round", pa.int64())]))


def answers(*rows):
    """(user, [(after, item, reason), ...])"""
    table = [{"user_id": u, "after": [a for a, *_ in s], "items": [i for _, i, _ in s],
              "reasons": [r for *_, r in s], "status": "ok"} for u, s in rows]  # fmt: skip
    return pa.Table.from_pylist(table)


def test_a_round_sees_the_rows_before_its_cut_alone(log):
    first, info = ReasoningRows(round=1, **AT).apply([TITLES, log])
    rows = {r["user_id"]: r for r in first.to_pylist()}
    assert rows["u1"]["items"] == ["a", "b"] and rows["u1"]["cut"] == 2
    assert rows["u1"]["asked"] == ["b"] and rows["u1"]["titles"] == ["Alpha", "Beta"]
    assert set(rows) == {"u1"} and info["users_asked"] == 1  # u2 has no row before its cut
    second, _ = ReasoningRows(round=2, **AT).apply([base(), TITLES, log])
    rows = {r["user_id"]: r for r in second.to_pylist()}
    assert rows["u1"]["items"] == ["a", "b", "c", "d"] and rows["u1"]["asked"] == ["c", "d"]
    assert rows["u2"]["items"] == ["b", "c"] and rows["u2"]["asked"] == ["c"]
    shown = {i for r in rows.values() for i in r["items"]}
    assert not shown & {"e", "f"}  # held-out rows reach nothing


def test_where_a_cut_is_declared_rows_before_it_alone_are_told(log):
    split = log.split.copy()
    split[:2] = HISTORY  # u1: a and b
    cut = dataclasses.replace(log, split=split)
    table, _ = ReasoningRows(round=2, **AT).apply([base(), TITLES, cut])
    assert [(r["user_id"], r["items"]) for r in table.to_pylist()] == [("u1", ["a", "b"])]


def test_the_base_is_read_before_the_model(log):
    known = base(("b", "c", "both rise"), ("a", "d", "both end"))
    table, info = ReasoningRows(round=2, **AT).apply([known, TITLES, log])
    assert table.num_rows == 0 and info["users_not_asked"] == 2
    assert info["items_explained_already"] == 3
    part, _ = ReasoningRows(round=2, **AT).apply([base(("b", "c", "both rise")), TITLES, log])
    (row,) = part.to_pylist()
    assert row["user_id"] == "u1" and row["asked"] == ["d"]
    assert row["chains"] == ["Beta -> (both rise) Gamma Rising"]


def test_each_different_pair_is_verified_once(log):
    said = answers(("u1", [("b", "c", "late reason"), ("", "d", "")]),
                   ("u2", [("b", "c", "early reason"), ("a", "b", "known")]))  # fmt: skip
    table, info = NewSteps(round=2, **AT).apply([said, base(("a", "b", "x")), TITLES, log])
    assert table.to_pylist() == [{
        "step_id": "b>c", "after": "b", "item": "c", "reason": "early reason",
        "after_title": "Beta", "item_title": "Gamma Rising",
    }]  # fmt: skip
    assert info == {"steps": 1, "proposed": 2, "known": 1, "title_told": 0}


def test_a_reason_that_tells_the_masked_title_verifies_nothing(log):
    """The earliest user's reason names the title: the next one stands; a pair without is left."""
    said = answers(("u1", [("b", "c", "late reason"), ("c", "d", "then Delta (1999), same mood")]),
                   ("u2", [("b", "c", "Gamma Rising comes next")]))  # fmt: skip
    table, info = NewSteps(round=1, **AT).apply([said, TITLES, log])
    assert table["reason"].to_pylist() == ["late reason"]
    assert info == {"steps": 1, "proposed": 3, "known": 0, "title_told": 1}
    for row in table.to_pylist():
        shown = FillStep().render(row)[1]["content"]
        assert "gamma" not in shown.casefold() and "rising" not in shown.casefold()


@pytest.mark.parametrize(
    ("reason", "title", "shown", "expected"),
    [
        ("after it comes Alien (1979), same mood", "Alien", "Toy Story", True),
        ("ALIENS, both", "Alien", "Toy Story", False),
        ("a gamma comes up", "Gamma Rising", "Beta", False),  # half of the words
        ("the rising gamma", "Gamma Rising", "Beta", True),
        ("more of the toy story", "Toy Story 2", "Toy Story", False),  # the shown title says it
        ("it is Toy Story 2", "Toy Story 2", "Toy Story", True),
        ("it has the same mood", "It", "Carrie", False),
        ("afraid as in It", "It", "Carrie", True),
        ("a remake of King Kong", "King Kong", "King Kong", False),
        ("any", "", "Beta", False),
    ],
)  # fmt: skip
def test_what_gives_a_title_away(reason, title, shown, expected):
    assert tells(reason, title, shown, 0.6) is expected


def test_a_step_stands_where_the_fill_in_is_the_masked_one(log):
    said = answers(("u1", [("a", "b", "r"), ("b", "c", "s"), ("c", "f", "t")]))
    steps, _ = NewSteps(round=1, **AT).apply([said, TITLES, log])
    fills = pa.table({"step_id": ["a>b", "b>c", "c>f"], "text": ["Delta", "gamma  rising!", None],
                      "status": ["ok", "ok", "no_answer"]})  # fmt: skip
    table, info = VerifiedSteps().apply([fills, steps])
    assert table["step_id"].to_pylist() == ["b>c"] and info == {"steps": 1, "new": 1, "refused": 2}
    grown, info = VerifiedSteps(round=2).apply([fills, steps.slice(0, 1), table])
    assert grown.equals(table) and info["new"] == 0


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [("Zeta, The (1950)", "The Zeta", 1.0), ('"Beta."', "Beta", 1.0), ("", "Beta", 0.0),
     ("Gamma Falling", "Gamma Rising", 1 / 3), ("The", "The", 1.0)],
)  # fmt: skip
def test_titles_are_compared_by_their_words(one, two, expected):
    assert likeness(one, two) == pytest.approx(expected)


def test_chains_are_paths_from_a_first_to_a_last_item(log):
    known = base(("a", "b", "r"), ("b", "c", "s"), ("a", "d", "t"), ("b", "d", "u"))
    table, _ = UserChains(round=2, **AT).apply([known, TITLES, log])
    rows = {r["user_id"]: r for r in table.to_pylist()}
    # d is reached from the newest earlier item that has a step: b, not a
    assert rows["u1"]["paths"] == [["a", "b", "c"], ["a", "b", "d"]]
    assert rows["u1"]["reasons"] == [["r", "s"], ["r", "u"]]
    assert rows["u1"]["chains"][0] == "Alpha -> (r) Beta -> (s) Gamma Rising"
    assert rows["u2"]["paths"] == [["b", "c"]]
    early, _ = UserChains(round=1, **AT).apply([known, TITLES, log])
    assert [r["paths"] for r in early.to_pylist()] == [[["a", "b"]]]
    assert leaf_paths({}) == []


def test_chains_below_the_threshold_and_without_a_score_go(log):
    known = base(("a", "b", "r"), ("b", "c", "s"), ("b", "d", "u"))
    chains, _ = UserChains(round=2, **AT).apply([known, TITLES, log])
    scores = pa.table({"user_id": ["u1", "u2"], "scores": [[7, 5], None]})
    kept, info = KeptChains(threshold=6).apply([scores, chains])
    assert [r["paths"] for r in kept.to_pylist()] == [[["a", "b", "c"]]]
    assert info == {"users": 1, "chains_dropped": 2}
    none, _ = KeptChains(threshold=10).apply([scores, chains])
    graphs, info = ReasoningGraphs().apply([extended(), none, TITLES, log])
    assert graphs.num_rows == 0 and info["graphs"] == 0
    assert GraphTexts().apply([graphs])[0].num_rows == 0


def extended(**titles):
    kinds = pa.schema([("user_id", pa.string()), ("imagined", pa.list_(pa.string()))])
    return pa.Table.from_pylist([{"user_id": u, "imagined": t} for u, t in titles.items()], kinds)


def kept_of(log):
    known = base(("a", "b", "r"), ("a", "d", "u"))
    chains, _ = UserChains(round=2, **AT).apply([known, TITLES, log])
    scores = pa.table({"user_id": ["u1"], "scores": [[9, 9]]})
    return KeptChains().apply([scores, chains])[0]


def test_graphs_lead_from_item_to_reason_to_item(log):
    table, _ = ReasoningGraphs().apply([extended(), kept_of(log), TITLES, log])
    (graph,) = table.to_pylist()
    assert graph["nodes"][2:] == ["item:a", "item:b", "item:d"] and graph["words"] == ["r", "u"]
    assert all(n.startswith("text:") for n in graph["nodes"][:2])
    edges = list(zip(graph["sources"], graph["targets"], strict=True))
    assert edges == [(2, 0), (0, 3), (2, 1), (1, 4)]
    assert (graph["kind"], graph["cut"], graph["round"]) == ("original", 4, 1)


def test_imagined_titles_become_items_where_they_are_titles(log):
    told = extended(u1=["the zeta", "gamma rising high", "Beta", "Sea of Nothing", ""])
    table, info = ReasoningGraphs(ground=0.6).apply([told, kept_of(log), TITLES, log])
    # Beta is known to u1, and so is "Gamma Rising", which shares two of three words
    assert info["titles_known"] == 2 and table.to_pylist()[1]["nodes"][0] == "item:f"
    strict, info = ReasoningGraphs(ground=0.9).apply([told, kept_of(log), TITLES, log])
    graph = strict.to_pylist()[1]
    assert graph["kind"] == "divergent" and graph["nodes"][0] == "item:f"
    assert graph["words"] == ["gamma rising high", "Sea of Nothing"]
    assert graph["nodes"][-1] == "item:d"  # the newest last item of the chains
    assert info["titles_known"] == 1 and info["titles_of_items"] == 1
    texts, _ = GraphTexts().apply([strict])
    assert set(texts["text"].to_pylist()) == {"gamma rising high", "Sea of Nothing", "r", "u"}


def test_wrong_rounds_are_refused():
    with pytest.raises(ValueError, match="round is one of"):
        ReasoningRows(round=3, rounds=2)
    with pytest.raises(ValueError, match="agree is a share"):
        VerifiedSteps(agree=0.0)
