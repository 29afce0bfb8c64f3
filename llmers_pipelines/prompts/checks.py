"""Reasons to refuse an answer: refusals, boilerplate, loops, and text about something else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .fields import (
    BRAND,
    CAST,
    CATEGORY,
    CREATOR,
    DESCRIPTION,
    TAGLINE,
    WRITER,
    bare_title,
    of_role,
    title_of,
)  # fmt: skip

_REFUSAL = re.compile(
    r"\b(?:as an? (?:large )?(?:ai(?: language)?(?: model| assistant)?|language model),? i\b"
    r"|i(?:'| a)m (?:sorry,? but|unable to|not able to|not familiar with)"
    r"|i (?:can(?:no|')t|could not|couldn't|do not|don't) "
    r"(?:provide|help|assist|find|have (?:any |enough |access|specific )?"
    r"(?:information|details|knowledge|data|access))"
    r"|(?:no|not enough|insufficient) (?:information|details|data) (?:is |was |were |are )?"
    r"(?:available|provided|given))",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"lorem ipsum|\[(?:title|name|item|user|insert[^\]]*)\]|\{\w+\}|</?(?:item|history|user)>|<\|",
    re.IGNORECASE,
)
_ACCENTS = re.compile(r"[\u0300-\u036f]+")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for from has have he her his in into is it its of on or she "
        "that the their them they this to was were which who will with you your not all new one "
        "two out up about than more most when where what while",
    )
)


def straight(text: str) -> str:
    """Return ``text`` with typewriter apostrophes."""
    return text.replace("\u2019", "'")


def normal(text: str) -> str:
    """Return ``text`` without accents, in lower case, words separated by single spaces."""
    plain = unicodedata.normalize("NFKD", straight(text))
    plain = _ACCENTS.sub("", plain).casefold()
    plain = re.sub(r"(?<=\w)(?:'s\b|'(?=\w))", "", plain)  # "Mann's" is about Mann
    return " ".join(re.findall(r"\w+", plain))


def content_words(text: str) -> list[str]:
    """Return the words of ``text`` that carry content, in order, each once."""
    return list(dict.fromkeys(w for w in normal(text).split() if w not in _STOP and len(w) > 1))


def refusal(text: str) -> str:
    """Return a reason when the model declined to answer or left a placeholder, else ""."""
    if found := _REFUSAL.search(straight(text[:400])):
        return f"the answer declines instead of answering ({found[0]!r})"
    if found := _PLACEHOLDER.search(text):
        return f"the answer holds a placeholder or a part of the prompt ({found[0]!r})"
    return ""


def repetition(text: str) -> str:
    """Return a reason when the text loops: most of its four-word runs are repeats."""
    words = normal(text).split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    if len(runs) >= 30 and len(set(runs)) < 0.6 * len(runs):
        return f"the answer repeats itself ({len(set(runs))} different of {len(runs)} word runs)"
    return ""


def echo(text: str, titles: Iterable[str]) -> str:
    """Return a reason when more than half of the text is titles that it was given, else ""."""
    said = f" {normal(text)} "
    length = len(said)
    for title in sorted({normal(bare_title(t)) for t in titles}, key=len, reverse=True):
        if len(title) > 3:
            said = said.replace(f" {title} ", " ")
    if len(said) < length / 2:
        return "the answer lists what it was given instead of saying what it means"
    return ""


def thin(text: str, known: Sequence[str], least: int) -> str:
    """Return a reason when fewer than ``least`` content words go beyond the ``known`` ones."""
    said = set(content_words(text)) - set(content_words(" ".join(known)))
    if len(said) < least:
        beyond = " beyond the title" if known else ""
        return f"the answer says too little ({len(said)} words{beyond}, at least {least})"
    return ""


def about_item(text: str, row: Mapping[str, Any]) -> str:
    """Return a reason when nothing of the item's own data supports the text, else "".

    Support is any of: half of the content words of the title or of a title in parentheses; a person
    or brand by the last word of the name; a fifth of the longer words of the description, at least
    three. Only where the item has none of these do two words of its categories count: they fit
    thousands of items. An item without any such data cannot refute a text.
    """
    said = set(normal(text).split())
    titles = _titles(title_of(row))
    for title in titles:
        words = content_words(title)
        if words and sum(w in said for w in words) * 2 >= len(words):
            return ""
        if not words and normal(title) and normal(title) in normal(text):
            return ""
    people = [
        words[-1]
        for role in (CREATOR, WRITER, CAST, BRAND)
        for name in of_role(row, role)
        if (words := content_words(name))
    ]
    if any(w in said for w in people):
        return ""
    described = content_words(" ".join([*of_role(row, DESCRIPTION), *of_role(row, TAGLINE)]))
    longer = [w for w in described if len(w) > 4]
    if longer and sum(w in said for w in longer) >= max(3, len(longer) / 5):
        return ""
    if not (people or longer or any(map(content_words, titles))):
        category = content_words(" ".join(of_role(row, CATEGORY)))
        if sum(w in said for w in category) >= min(2, len(category)):
            return ""
    return f"nothing in the answer is supported by the data of {title_of(row) or 'the item'!r}"


def _titles(title: str) -> list[str]:
    """Return the bare title and, where it has parentheses, its parts outside and inside them."""
    bare = bare_title(title)
    inside = re.findall(r"\(([^()]{3,})\)", bare)
    outside = re.sub(r"\([^()]*\)", " ", bare)
    parts = [bare_title(" ".join(part.split())) for part in (outside, *inside)]
    return list(dict.fromkeys([bare, *filter(None, parts)]))


def invented_titles(text: str, titles: Iterable[str]) -> list[str]:
    """Return quoted, title-cased phrases of the text that name none of ``titles``."""
    known = " | ".join(normal(bare_title(t)) for t in titles)
    quoted = re.findall(r"[\"“«]([^\"”»\n]{3,80})[\"”»]", text)
    found = []
    for phrase in quoted:
        words = [w for w in re.findall(r"\w+", phrase) if w.casefold() not in _STOP]
        titled = len(words) > 1 and all(w[0].isupper() or w[0].isdigit() for w in words)
        if titled and normal(bare_title(phrase.strip(" ,."))) not in known:
            found.append(phrase)
    return found
