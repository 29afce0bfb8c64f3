"""Sentences about a user's history by counting alone: the deterministic side of the user task."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .describe import frequent_words, listed
from .domains import Domain
from .fields import BRAND, CATEGORY, CREATOR, Role, bare_title, of_role, title_of, year_of

Entry = Mapping[str, Any]


def habit_sentences(history: Sequence[Entry], domain: Domain) -> list[str]:
    """Return what the history says: frequent, liked and disliked kinds, makers, periods, titles.

    ``history`` is oldest first. "Liked" means rated above the user's own mean by half a standard
    deviation or labelled 1, so that a generous rater does not like everything.
    """
    opinion = _opinions(history)
    sentences = [f"The user has {domain.did} {len(history)} {domain.plural}."]
    for role, name in ((CATEGORY, "kinds"), (CREATOR, "makers"), (BRAND, "brands")):
        sentences += _shares(history, opinion, role, name)
    sorted_out = any(of_role(entry, CATEGORY) for entry in history)
    if not sorted_out and (words := frequent_words(map(title_of, history), least=4)):
        sentences.append(f"Frequent words in the titles: {listed(words)}.")
    decades = Counter(f"{year[:3]}0s" for e in history if (year := year_of(e)))
    if decades.total() > 1:
        sentences.append(f"Mostly from the {listed([d for d, _ in decades.most_common(2)])}.")
    for lead, wanted in (("Liked most", 1), ("Liked least", -1)):
        titles = [_quoted(e) for e, o in zip(history, opinion, strict=True) if o == wanted]
        if titles:
            sentences.append(f"{lead}: {listed(titles[::-1][:5])}.")
    sentences.append(f"Most recent: {listed([_quoted(e) for e in history[::-1][:3]])}.")
    return sentences


def _opinions(history: Sequence[Entry]) -> list[int]:
    """Return 1 liked, -1 disliked, 0 neither or unknown, per entry."""
    ratings = [e.get("rating") for e in history]
    known = [r for r in ratings if r is not None and r == r]
    if not known:
        labels = [e.get("label") for e in history]
        return [0 if v is None or v != v else 1 if v > 0 else -1 for v in labels]
    mean = sum(known) / len(known)
    half = (sum((r - mean) ** 2 for r in known) / len(known)) ** 0.5 / 2
    return [
        0 if r is None or r != r or half == 0 else (r > mean + half) - (r < mean - half)
        for r in ratings
    ]


def _shares(history: Sequence[Entry], opinion: Sequence[int], role: Role, name: str) -> list[str]:
    counts: dict[str, int] = defaultdict(int)
    liked: dict[str, int] = defaultdict(int)
    disliked: dict[str, int] = defaultdict(int)
    for entry, mark in zip(history, opinion, strict=True):
        for value in of_role(entry, role):
            counts[value] += 1
            liked[value] += mark > 0
            disliked[value] += mark < 0
    frequent = sorted((v for v in counts if counts[v] > 1), key=lambda v: -counts[v])[:5]
    if not frequent:
        return []
    told = [f"{v.lower()} ({100 * counts[v] / len(history):.0f}%)" for v in frequent]
    sentences = [f"Most frequent {name}: {listed(told)}."]
    for lead, marks, other in (("Rated high", liked, disliked), ("Rated low", disliked, liked)):
        lean = [v for v in counts if marks[v] > other[v] and marks[v] > 1]
        lean.sort(key=lambda v: (-(marks[v] - other[v]) / (counts[v] + 2), -counts[v]))
        if lean:
            sentences.append(f"{lead}: {listed([v.lower() for v in lean[:3]])}.")
    return sentences


def _quoted(entry: Entry) -> str:
    return '"' + bare_title(title_of(entry)).replace('"', "'") + '"'
