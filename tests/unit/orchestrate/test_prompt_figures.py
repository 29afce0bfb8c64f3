"""Figures of two revisions' answers, against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from llmers_pipelines.orchestrate.prompt_figures import (
    Answered,
    agreement,
    compare,
    jaccard,
    kind_of_reason,
    most_different,
    refusals,
    tfidf_cosines,
    word_f1,
)


def ok(row_id: str, text: str, status: str = "ok", **value: object) -> Answered:
    return Answered(row_id, status, raw=text, text=text, value=value or {"text": text}, valid=True,
                    grounded=True, tokens=len(text) // 4)  # fmt: skip


def refused(row_id: str, reason: str, *, valid: bool) -> Answered:
    return Answered(row_id, "quarantined", reason, raw="x", valid=valid,
                    grounded=False if valid else None)  # fmt: skip


OLD = [ok("1", "a tale of the sea"), ok("2", "two words", "repaired"),
       refused("3", "not valid JSON: no object in 'x'", valid=False),
       Answered("4", "no_answer", "budget reached: 3 calls")]  # fmt: skip
NEW = [ok("1", "a tale of the hills"), ok("2", "two words"), ok("3", "one two three"),
       refused("4", "the answer says too little (2 words, at least 3)", valid=True)]  # fmt: skip


def test_shares_and_lengths() -> None:
    rows = {r["figure"]: r for r in compare(OLD, NEW, seed=1)}
    assert (rows["answered"]["from"], rows["answered"]["to"]) == (0.75, 1.0)
    assert (rows["valid"]["from"], rows["valid"]["to"]) == (pytest.approx(2 / 3), 1.0)
    assert (rows["grounded"]["from"], rows["grounded"]["to"]) == (1.0, 0.75)
    assert rows["repaired"]["difference"] == -0.25
    assert (rows["quarantined"]["from"], rows["quarantined"]["to"]) == (0.25, 0.25)
    assert rows["words"]["from"] == 3.5 and rows["words"]["to"] == pytest.approx(10 / 3)
    assert rows["words"]["from_quantiles"]["0.5"] == 3.5
    assert rows["accepted"]["from_low"] <= 0.5 <= rows["accepted"]["from_high"]


def test_intervals_shrink_with_rows_and_pair_the_sides() -> None:
    rng = np.random.default_rng(2)
    texts = [" ".join(["w"] * int(n)) for n in rng.integers(5, 50, 400)]
    old = [ok(str(i), t) for i, t in enumerate(texts)]
    new = [ok(str(i), f"{t} w") for i, t in enumerate(texts)]  # one word more in every row
    words = next(r for r in compare(old, new, seed=3) if r["figure"] == "words")
    assert words["difference"] == pytest.approx(1.0)
    assert words["difference_low"] == pytest.approx(1.0) == words["difference_high"]
    half = (words["from_high"] - words["from_low"]) / 2
    spread = np.std([len(t.split()) for t in texts]) / math.sqrt(400)
    assert half == pytest.approx(1.96 * spread, rel=0.15)


def test_agreement_by_kind_of_field() -> None:
    old = [ok("1", "s1", summary="a b c", themes=["Sea", "war"], mood="calm", year=1)]
    new = [ok("1", "s2", summary="a b d", themes=["sea", "love", "war"], mood="calm", year=2)]
    found = {(r["field"], r["measure"]): r["mean"] for r in agreement(old, new, seed=1)}
    assert found["themes", "Jaccard"] == pytest.approx(2 / 3)
    assert found["summary", "equal"] == 0.0 and found["mood", "equal"] == 1.0
    assert found["summary", "word F1"] == pytest.approx(4 / 6)
    assert found["year", "equal"] == 0.0 and ("year", "word F1") not in found
    assert agreement(OLD[2:], NEW[2:], seed=1) == []


def test_word_f1_and_jaccard() -> None:
    assert word_f1("the sea, the sea", "The sea") == pytest.approx(2 * 2 / 6)
    assert word_f1("", "") == 1.0 and word_f1("a", "") == 0.0 == word_f1(None, "a")
    assert jaccard([], []) == 1.0 and jaccard(["a"], None) == 0.0


def test_tfidf_cosine_equals_an_independent_one() -> None:
    pairs = [("a tale of the sea", "the sea, a sad tale"), ("old clocks", "new clocks tick"),
             ("nothing here", "quite other words")]  # fmt: skip
    flat = [t for pair in pairs for t in pair]
    weights = TfidfVectorizer(token_pattern=r"\w+").fit_transform(flat).toarray()
    wanted = [float(weights[i] @ weights[i + 1]) for i in range(0, 6, 2)]
    assert tfidf_cosines(pairs) == pytest.approx(wanted)
    assert tfidf_cosines([("", ""), ("a", "")]) == [1.0, 0.0]


def test_refusals_are_counted_by_kind() -> None:
    assert kind_of_reason("the answer says too little (2 words, at least 3)") == (
        "the answer says too little"
    )
    assert kind_of_reason("the answer was cut at 512 tokens") == "the answer was cut at N tokens"
    assert refusals(OLD) == {"not valid JSON: no object in": 1, "budget reached: N calls": 1}
    again = refused("5", "no words (3); loops; asked again: other", valid=True)
    assert refusals([again]) == {"no words": 1, "loops": 1}


def test_the_most_different_come_first() -> None:
    worst = most_different(OLD, NEW, 2)
    assert [r["id"] for r in worst] == ["3", "1"]
    assert worst[0]["why"].startswith("not valid JSON") and worst[0]["from"] is None
