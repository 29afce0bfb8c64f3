from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.training import TEST, TRAIN, IdMap, TrainingData
from llmers_pipelines.derive.graph_rounds import (
    MatchedTexts,
    Neighbourhood,
    RawTexts,
    drawn_neighbours,
    texts_before,
)

pytestmark = pytest.mark.proof("gacllm", "equations")

# A path u1 - a - u2 - b - u3 - c: distances from c are u3 1, b 2, u2 3, a 4, u1 5. d is alone.
USERS, ITEMS = ("u1", "u2", "u3"), ("a", "b", "c", "d")
EDGES = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3))


@pytest.fixture
def log():
    user, item = np.array(EDGES).T
    return TrainingData(
        "sequential", IdMap(USERS), IdMap(ITEMS), np.append(user, 3), np.append(item, 4),
        np.arange(6), np.array([TRAIN] * 5 + [TEST], np.int8),
    )  # fmt: skip


def raws(log, **changed):
    words = {"a": "A sea film.", "b": "A crime film.", "c": "A space film.", "d": "A lone film."}
    table = pa.table({"item_id": ITEMS, "title": [(words | changed)[i] for i in ITEMS]})
    people = pa.table({"user_id": USERS, "job": ["sailor", "", "pilot"]})
    return (
        RawTexts(side="user", fields=("job",)).apply([people, log], context={"fields": {}})[0],
        RawTexts(side="item").apply([table, log], context={"fields": {}})[0],
    )


def rewritten(table, side):
    """An honest stand-in for a model: the text says all that it was made from."""
    rows = table.to_pylist()
    texts = [f"({r['own']} <- {' + '.join(sorted(r['neighbours']))})" for r in rows]
    return pa.table({f"{side}_id": [r[f"{side}_id"] for r in rows], "text": texts,
                     "status": ["ok"] * len(rows), "raw": texts})  # fmt: skip


def played(log, rounds, **changed):
    """Return the texts of both sides after each round, round 0 first."""
    raw = raws(log, **changed)
    out = [{i: t for table, side in zip(raw, ("user", "item"), strict=True)
            for i, t in texts_before([*raw], side, 1).items()}]  # fmt: skip
    answers = []
    for number in range(1, rounds + 1):
        made = []
        for side in ("user", "item"):
            how = Neighbourhood(side=side, round=number, limit=10**6)
            made.append(rewritten(how.apply([*answers, *raw, log])[0], side))
        answers = made
        cells = [zip(*(t[c].to_pylist() for c in t.column_names[:2]), strict=True) for t in made]
        out.append(dict(pair for rows in cells for pair in rows))
    return out


def test_a_change_travels_one_hop_per_round(log):
    """T_v^l changes with the raw text of a node at distance k only from l = k on."""
    distance = {"c": 0, "u3": 1, "b": 2, "u2": 3, "a": 4, "u1": 5}
    before, after = played(log, 5), played(log, 5, c="A film about deep space.")
    for number, (one, two) in enumerate(zip(before, after, strict=True)):
        moved = {v for v in one if one[v] != two[v]}
        assert moved == {v for v, k in distance.items() if k <= number}, number


def test_a_node_without_neighbours_is_rewritten_from_itself(log):
    texts = played(log, 2)
    assert texts[2]["d"] == "((A lone film. <- ) <- )"  # its one edge is held out


def test_both_sides_of_a_round_read_the_round_before(log):
    raw = raws(log)
    first = [rewritten(Neighbourhood(side=s).apply([*raw, log])[0], s) for s in ("user", "item")]
    second, _ = Neighbourhood(side="user", round=2).apply([*first, *raw, log])
    row = second.to_pylist()[0]
    items = texts_before([*first, *raw], "item", 2)
    assert row["neighbours"] == [items["a"]] and row["neighbour_ids"] == ["a"]
    assert "u1" not in row["neighbours"][0] and "sailor" in row["neighbours"][0]


def test_a_missing_answer_leaves_the_raw_text(log):
    raw = raws(log)
    answers = pa.table({
        "item_id": ["a", "b", "c", "d"], "text": ["new a", None, None, "d"],
        "status": ["ok", "no_answer", "quarantined", "repaired"],
        "raw": ["new a", None, "bad c", "d"],  # as every table of answers has it
    })  # fmt: skip
    texts = texts_before([answers, *raw], "item", 2)
    assert texts == {"a": "new a", "b": "A crime film.", "c": "A space film.", "d": "d"}
    with pytest.raises(ValueError, match="those of users are missing"):
        texts_before([answers, *raw], "user", 2)


def test_neighbours_are_capped_drawn_by_ids_and_of_training_rows_alone():
    n = 40
    user = np.ones(n, np.int64)
    log = TrainingData("sequential", IdMap(("u",)), IdMap(tuple(f"i{k}" for k in range(n))), user,
                       np.arange(1, n + 1), np.arange(n),
                       np.where(np.arange(n) < 30, TRAIN, TEST).astype(np.int8))  # fmt: skip
    few = drawn_neighbours(log, "user", 8, 0)["u"]
    assert len(few) == 8 and few == drawn_neighbours(log, "user", 30, 0)["u"][:8]
    every = drawn_neighbours(log, "user", 99, 0)["u"]
    assert set(every) == {f"i{k}" for k in range(30)}
    assert few != drawn_neighbours(log, "user", 8, 1)["u"]
    assert drawn_neighbours(log, "item", 8, 0)["i3"] == ["u"] and "i35" not in drawn_neighbours(
        log, "item", 8, 0
    )


def test_users_have_no_text_unless_columns_are_named(log):
    people = pa.table({"user_id": USERS, "age": [20, 30, 40]})
    table, info = RawTexts(side="user").apply([people, log])
    assert table["text"].to_pylist() == ["", "", ""] and info["without_text"] == 3
    told, _ = RawTexts(side="user", fields=("age",)).apply([people, log])
    assert told["text"].to_pylist()[0] == "age: 20"
    with pytest.raises(DataError, match=r"no column 'trade'.*user_id, age"):
        RawTexts(side="user", fields=("trade",)).apply([people, log])


def test_examples_for_tuning_show_training_rows_alone_and_not_their_answer(log):
    table, _ = MatchedTexts().apply([*raws(log), log])
    rows = table.to_pylist()
    assert [r["example_id"] for r in rows] == ["u1/a", "u2/a", "u2/b", "u3/b", "u3/c"]
    row = rows[2]
    prompt = json.loads(row["prompt"])[0]["content"]
    assert row["answer"] == ["A crime film."] and "A crime film." not in prompt
    assert "- A sea film." in prompt and row["shown"] == ["a", "b"]
    assert "Person: job: pilot" in json.loads(rows[3]["prompt"])[0]["content"]
    few, _ = MatchedTexts(examples=2).apply([*raws(log), log])
    assert few.num_rows == 2
