"""Texts of items as codes of words, for recommenders that read words themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .training import Field

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
MOST_WORDS = 30  # of one text; the first ones are kept
VOCABULARY = 30_000  # most frequent words
UNKNOWN = ""  # stands for a word that the vocabulary lacks; always code 1


def words_of(text: str, most: int = MOST_WORDS) -> list[str]:
    """Return the first ``most`` words of ``text`` in lower case."""
    found = []
    for match in WORD.finditer(text.lower()):
        found.append(match.group())
        if len(found) == most:
            break
    return found


def word_codes(
    texts: Sequence[str],
    known: np.ndarray,
    *,
    most: int = MOST_WORDS,
    vocabulary: int = VOCABULARY,
    least: int = 1,
) -> Field:
    """Return the words of ``texts`` in their order as codes int32[n + 1, L]; row 0 is padding.

    0 fills up on the right. The vocabulary holds words that occur in at least ``least`` texts where
    ``known`` (bool[n], the items of the training rows), by falling count, then by spelling; code 1
    stands for all other words.
    """
    split = [words_of(text, most) for text in texts]
    counts = Counter(w for words, k in zip(split, known, strict=True) if k for w in set(words))
    kept = sorted((w for w, c in counts.items() if c >= least), key=lambda w: (-counts[w], w))
    kept = kept[:vocabulary]
    code = {w: c for c, w in enumerate(kept, start=2)}
    width = max([1, *(len(words) for words in split)])
    codes = np.zeros((len(split) + 1, width), np.int32)
    for row, words in zip(codes[1:], split, strict=True):
        row[: len(words)] = [code.get(w, 1) for w in words]
    return Field(codes, (UNKNOWN, *kept))
