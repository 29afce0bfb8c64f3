"""Words of items as codes."""

from __future__ import annotations

import numpy as np

from llmers_pipelines.data.words import UNKNOWN, word_codes, words_of


def test_words_are_lower_case_without_marks():
    assert words_of("Don’t stop: 7 Cafés, re-opened_today!") == [
        "don’t", "stop", "7", "cafés", "re", "opened", "today",
    ]  # fmt: skip
    assert words_of("a b c d", most=2) == ["a", "b"]
    assert words_of("…") == []


def test_the_vocabulary_is_that_of_known_items():
    texts = ["red car", "blue car car", "", "green car red"]
    field = word_codes(texts, np.array([True, True, True, False]))
    assert field.vocabulary == (UNKNOWN, "car", "blue", "red")  # in 2, 1 and 1 texts
    assert field.codes.tolist() == [[0, 0, 0], [4, 2, 0], [3, 2, 2], [0, 0, 0], [1, 2, 4]]
    assert field.codes.dtype == np.int32


def test_rare_words_and_words_beyond_the_vocabulary_are_unknown():
    texts, known = ["a b", "a c", "a b"], np.ones(3, bool)
    assert word_codes(texts, known, least=2).vocabulary == (UNKNOWN, "a", "b")
    short = word_codes(texts, known, vocabulary=1)
    assert short.vocabulary == (UNKNOWN, "a")
    assert short.codes[1:].tolist() == [[2, 1], [2, 1], [2, 1]]


def test_no_words_at_all():
    field = word_codes(["", ""], np.ones(2, bool))
    assert field.vocabulary == (UNKNOWN,)
    assert field.codes.tolist() == [[0], [0], [0]]
