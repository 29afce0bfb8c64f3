"""Training reviews, samples of them, and the vocabulary of aspects that they speak of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..prompts.checks import content_words, normal
from .derivation import DerivedTable, Given, told_rows

REVIEW = ("user_id", "item_id", "text")
# Words that judge or fill: no aspect of anything.
EMPTY = frozenset(
    re.findall(
        r"\w+",
        "good great bad poor nice well better best worse excellent strong weak high low lack many "
        "much some every part parts thing things overall use uses used user users item items "
        "product products film films movie movies book books game games people one none mentioned "
        "several effective engaging impressive element elements",
    )
)


@dataclass(frozen=True)
class TrainingReviews(DerivedTable):
    """The reviews of training rows, one row each: review_id, user_id, item_id, text.

    Sources: a table of reviews (user_id, item_id, text) and the splits. A review of a pair whose
    row is held out, or that is no row of the log, never enters. ``review_id`` is
    ``user/item``, with ``/2``, ``/3``, ... where a pair has several.
    """

    rows: ClassVar[str] = "entities"

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        data, table = given.log, given.table(*REVIEW)
        rows = list(zip(*(table[c].to_pylist() for c in REVIEW), strict=True))
        user = data.users.index([str(u) for u, _, _ in rows])
        item = data.items.index([str(i) for _, i, _ in rows])
        width = data.n_items + 1
        told = data.user * width + data.item
        trained = np.isin(user * width + item, told[told_rows(data)])
        known = (user > 0) & (item > 0)
        seen: Counter[tuple[str, str]] = Counter()
        kept: list[tuple[str, str, str, str]] = []
        for (u, i, text), fits in zip(rows, known & trained, strict=True):
            if not fits or not (text or "").strip():
                continue
            seen[str(u), str(i)] += 1
            more = seen[str(u), str(i)]
            name = f"{u}/{i}" + (f"/{more}" if more > 1 else "")
            kept.append((name, str(u), str(i), text))
        names = ("review_id", *REVIEW)
        columns = list(zip(*kept, strict=True)) or [()] * len(names)
        made = {n: pa.array(c, pa.string()) for n, c in zip(names, columns, strict=True)}
        held = int((known & ~trained).sum())
        return pa.table(made), {"reviews": len(rows), "kept": len(kept), "of_held_out_rows": held}


@dataclass(frozen=True)
class ReviewSamples(DerivedTable):
    """``samples`` groups of ``size`` training reviews: sample_id, reviews and whose they are.

    What is drawn depends on the review's id alone, so one more review moves few samples.
    """

    rows: ClassVar[str] = "entities"

    samples: int = 50
    size: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.size < 1:
            raise ValueError(f"{self}: at least one sample of one review is needed")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        table = given.table("review_id", *REVIEW)
        drawn: dict[int, list[tuple[bytes, dict[str, Any]]]] = {}
        for row in table.to_pylist():
            draw = blake2b(f"{self.seed} {row['review_id']}".encode()).digest()
            drawn.setdefault(int.from_bytes(draw[:8], "big") % self.samples, []).append((draw, row))
        rows: list[dict[str, Any]] = []
        for number in sorted(drawn):
            chosen = [row for _, row in sorted(drawn[number], key=lambda d: d[0])[: self.size]]
            rows.append({
                "sample_id": str(number + 1),
                "reviews": [r["text"] for r in chosen],
                "of_users": [r["user_id"] for r in chosen],
                "of_items": [r["item_id"] for r in chosen],
            })  # fmt: skip
        words = pa.list_(pa.string())
        schema = pa.schema([("sample_id", pa.string()), ("reviews", words), ("of_users", words),
                            ("of_items", words)])  # fmt: skip
        made = pa.Table.from_pylist(rows, schema)
        return made, {"samples": len(rows), "reviews": sum(len(r["reviews"]) for r in rows)}


@dataclass(frozen=True)
class AspectVocabulary(DerivedTable):
    """The ``keep`` most frequent aspects of phrases: aspect, terms, count (SAGCN's merging).

    Source: answers with a list of phrases per row, in ``aspects`` or in ``liked`` and ``disliked``.
    A phrase is a bag of stems; it speaks of an aspect whose stem it holds. Aspects are chosen one
    after the other: the stem that most rows speak of in a phrase that no chosen aspect is in yet,
    ties to the alphabet. ``same`` merges synonyms beforehand, each tuple under its first word;
    ``ignore`` adds words that are no aspect. Stems that fewer than ``least`` rows use are left.
    """

    rows: ClassVar[str] = "entities"

    keep: int = 8
    least: int = 2
    same: tuple[tuple[str, ...], ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.keep < 1 or self.least < 1:
            raise ValueError(f"{self}: keep and least are at least 1")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        phrases = [
            [self.stems(phrase) for phrase in row]
            for table in given.tables for row in phrase_lists(table)
        ]  # fmt: skip
        open_phrases = [[stems for stems in row if stems] for row in phrases]
        words: Counter[str] = Counter()
        for row in phrases:
            for stems in row:
                words.update(stems.values())
        chosen: list[tuple[str, str, int]] = []
        while len(chosen) < self.keep:
            spoken = Counter(s for row in open_phrases for s in {s for p in row for s in p})
            best = min(spoken.items(), key=lambda c: (-c[1], c[0]), default=("", 0))
            if best[1] < self.least:
                break
            stem = best[0]
            told = Counter({w: words[w] for row in phrases for p in row for s, w in p.items()
                            if s == stem})  # fmt: skip
            name = min(told.items(), key=lambda c: (-c[1], c[0]))[0]
            chosen.append((name, stem, sum(any(stem in p for p in row) for row in phrases)))
            open_phrases = [[p for p in row if stem not in p] for row in open_phrases]
        if not chosen:
            raise ValueError(
                f"{self}: no word stands in the phrases of {self.least} rows; lower `least`, or "
                "look at the answers (status and reason of their asset)"
            )
        left = sum(map(len, open_phrases))
        made = pa.table({
            "aspect": pa.array([name for name, _, _ in chosen], pa.string()),
            "stem": pa.array([stem for _, stem, _ in chosen], pa.string()),
            "count": pa.array([count for *_, count in chosen], pa.int64()),
        })  # fmt: skip
        return made, {"aspects": len(chosen), "phrases": sum(map(len, phrases)),
                      "without_aspect": left}  # fmt: skip

    def stems(self, phrase: str) -> dict[str, str]:
        """Return stem -> word of the content words of ``phrase``, synonyms under their first."""
        first = {stem(w): stem(group[0]) for group in self.same for w in group}
        ignored = EMPTY | {normal(w) for w in self.ignore}
        found = {}
        for word in content_words(phrase):
            if word in ignored or len(word) < 3 or word.isdigit():
                continue
            own = stem(word)
            found[first.get(own, own)] = word
        return found

    def aspects_of(self, phrases: Iterable[str], vocabulary: pa.Table) -> list[str]:
        """Return the aspects of ``vocabulary`` that some of ``phrases`` speak of, in its order."""
        told = {s for phrase in phrases for s in self.stems(phrase)}
        pairs = zip(vocabulary["aspect"].to_pylist(), vocabulary["stem"].to_pylist(), strict=True)
        return [aspect for aspect, own in pairs if own in told]


@dataclass(frozen=True)
class ReviewQuestions(DerivedTable):
    """Training reviews, each with the list ``aspects`` that it is asked about."""

    rows: ClassVar[str] = "entities"

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        reviews = given.table("review_id", *REVIEW)
        aspects = given.table("aspect", "stem")["aspect"].to_pylist()
        column = pa.array([aspects] * reviews.num_rows, pa.list_(pa.string()))
        return reviews.append_column("aspects", column), {"aspects": len(aspects)}


def stem(word: str) -> str:
    """Return ``word`` without the endings of number and case: "stories" and "story" are one."""
    word = normal(word)
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "ches", "shes", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def phrase_lists(table: pa.Table) -> list[list[str]]:
    """Return the phrases of each accepted answer; none where there was no answer."""
    names = [n for n in ("aspects", "liked", "disliked") if n in table.column_names]
    if not names:
        raise ValueError(f"phrases stand in aspects, liked or disliked; found {table.column_names}")
    columns = [table[n].to_pylist() for n in names]
    return [[p for cell in cells for p in cell or ()] for cells in zip(*columns, strict=True)]
