"""Word lists: one term per line, under ``[category]`` or ``[category:use]`` headings.

A term in lower case is found in any case, one with a capital as it is written (``Polish``). ``*``
stands for the rest of a word, ``re:`` begins a pattern, ``!`` a phrase in which nothing counts
(``!black comedy``), ``#`` a comment. Terms are whole words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Terms:
    """The terms of one heading. ``use`` says how they count; "" is the list's own way."""

    category: str
    use: str
    by_word: dict[str, re.Pattern[str]]  # first word of plain terms -> the terms that begin so
    pattern: re.Pattern[str] | None  # the others: patterns and stems

    def starts(self, text: str, words: list[tuple[str, int]]) -> Iterator[re.Match[str]]:
        """Yield the matches in ``text`` of which ``words`` are (word in lower case, start)."""
        for word, start in words:
            rule = self.by_word.get(word)
            if rule is not None and (match := rule.match(text, start)):
                yield match
        if self.pattern is not None:
            yield from self.pattern.finditer(text)


@dataclass(frozen=True)
class WordList:
    terms: tuple[Terms, ...]
    allowed: re.Pattern[str] | None = None  # phrases in which nothing counts

    def matches(self, text: str) -> Iterator[tuple[Terms, re.Match[str]]]:
        """Yield every match outside of allowed phrases, heading by heading."""
        spans = [m.span() for m in self.allowed.finditer(text)] if self.allowed else []
        words = [(m[0].casefold(), m.start()) for m in _WORD.finditer(text)]
        for terms in self.terms:
            for match in terms.starts(text, words):
                if not any(a <= match.start() and match.end() <= b for a, b in spans):
                    yield terms, match


def packaged(name: str) -> str:
    """Return the text of a list that comes with the package."""
    folder = files(__name__.rpartition(".")[0]) / "lists"
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def word_list(*sources: str) -> WordList:
    """Return the terms of ``sources``: files, or names of packaged lists."""
    return parse_words(tuple(
        (source, Path(source).read_text(encoding="utf-8") if Path(source).is_file()
         else packaged(source)) for source in sources
    ))  # fmt: skip


@lru_cache(maxsize=32)
def parse_words(sources: tuple[tuple[str, str], ...]) -> WordList:
    """Return the terms of texts (name, content); ``ValueError`` names file and line of a fault."""
    found: dict[tuple[str, str], list[str]] = {}
    allowed: list[str] = []
    for name, text in sources:
        heading = ("listed", "")
        for number, line in enumerate(text.splitlines(), start=1):
            term = line.split("#", 1)[0].strip() if not line.startswith("re:") else line.strip()
            if not term:
                continue
            if section := re.fullmatch(r"\[(\w+)(?::(\w+))?\]", term):
                heading = (section[1], section[2] or "")
                continue
            try:
                pattern = _pattern(term.removeprefix("!"))
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name}, line {number}: {term!r}: {error}") from error
            if term.startswith("!"):
                allowed.append(pattern)
            else:
                found.setdefault(heading, []).append(term)
    terms = [_terms(category, use, texts) for (category, use), texts in found.items()]
    return WordList(tuple(terms), re.compile("|".join(allowed)) if allowed else None)


def _terms(category: str, use: str, texts: list[str]) -> Terms:
    by_word: dict[str, list[str]] = {}
    others = []
    for text in sorted(texts, key=len, reverse=True):  # the longest of those that begin alike
        first = _WORD.match(text)
        if text.startswith("re:") or "*" in text or first is None:
            others.append(_pattern(text))
        else:
            by_word.setdefault(first[0].casefold(), []).append(_pattern(text))
    rules = {word: re.compile("|".join(patterns)) for word, patterns in by_word.items()}
    return Terms(category, use, rules, re.compile("|".join(others)) if others else None)


def _pattern(term: str) -> str:
    if term.startswith("re:"):
        return f"(?i:{term[3:].strip()})"
    words = re.escape(term).replace(r"\*", r"\w*").replace(r"\ ", r"[\s-]+")
    flag = "" if term != term.lower() else "i"
    return f"(?{flag}:(?<!\\w){words}(?!\\w))"
