"""Sentences about an item from its catalog row alone: the deterministic side of the item tasks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .checks import content_words, normal, straight
from .domains import Domain
from .fields import (
    BRAND,
    CAST,
    CATEGORY,
    COMPANY,
    COUNTRY,
    CREATOR,
    DESCRIPTION,
    LANGUAGE,
    SERIES,
    SIZE,
    TAGLINE,
    WRITER,
    Role,
    bare_title,
    leftover,
    of_role,
    title_of,
    year_of,
)  # fmt: skip
from .task import Row

_LEADS: tuple[tuple[Role, str], ...] = (
    (CREATOR, "By {}."),
    (WRITER, "Written by {}."),
    (CAST, "With {}."),
    (BRAND, "Brand: {}."),
    (COMPANY, "Made by {}."),
    (SERIES, "Part of {}."),
    (COUNTRY, "From {}."),
    (LANGUAGE, "Language: {}."),
    (SIZE, "Size: {}."),
)


def listed(words: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def article(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"


def item_sentences(row: Row, domain: Domain) -> list[str]:
    """Return what ``row`` (the told part) says: kind and year, people, makers, description."""
    title, year = title_of(row), year_of(row)
    kinds = of_role(row, CATEGORY)
    name = bare_title(title) or "This"
    when = f" from {year}" if year else ""
    kind = f" ({listed([k.lower() for k in kinds])})" if kinds else ""
    sentences = [f"{name} is {article(domain.noun)}{when}{kind}."]
    for role, lead in _LEADS:
        words = [w for w in of_role(row, role) if role is not LANGUAGE or len(w) > 3][:6]
        if words:  # a code such as "en" is no word
            sentences.append(lead.format(listed(words)))
    sentences += [f"{label.capitalize()}: {text}." for label, text in leftover(row) if text]
    for role in (TAGLINE, DESCRIPTION):
        for text in of_role(row, role):
            if text != title:
                sentences.append(text if text[-1] in ".!?…\"'" else f"{text}.")
    return sentences


def frequent_words(texts: Iterable[str], *, least: int = 5, top: int = 6) -> list[str]:
    """Return the most frequent content words of ``least`` letters and more, earliest first on ties.

    Names are left out: words that a text writes with a capital letter and never without. (A text
    whose words are all capitalized, such as a title, has no names to tell apart.)
    """
    counts: Counter[str] = Counter()
    for text in texts:
        written = re.findall(r"[\w']+", straight(text))
        lower = {w for w in written if w[:1].islower()}
        prose = len(lower) * 2 > len(set(written))
        names = {normal(w) for w in written if prose and w.lower() not in lower}
        words = (w for w in content_words(text) if len(w) >= least and not w.isdigit())
        counts.update(w for w in words if w not in names)
    return [word for word, _ in counts.most_common(top)]
