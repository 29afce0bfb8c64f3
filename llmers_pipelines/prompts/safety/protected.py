"""Protected attributes that a text says of a person, not words that merely occur in it.

"The user is a 24-year-old male technician" tells age and gender; "enjoys films about Christian
saints" tells neither. A term counts where a person is the subject ("the user is likely a ..."),
stands right behind it ("a young female viewer"), or owns it ("the user's religion"). With
``mentions`` every occurrence counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import Finding, Texts, per_text
from .words import Terms, word_list

_PERSON = (
    r"(?:user|customer|viewer|reader|shopper|buyer|person|individual|consumer|client|listener|"
    r"player|member|moviegoer|cinephile|reviewer)"  # one person: "gay individuals" are a theme
)
# What stands between a person and what the person is said to be.
_IS = (
    r"(?:is|are|was|were|be|being|seems? to be|appears? to be|identif(?:y|ies) as|"
    r"(?:may|might|could|must) (?:well )?be|described as|represents?)"
)
# Words after which a term belongs to a taste and no longer to the person.
_TASTE = frozenset(
    re.findall(
        r"\S+",
        "interested fan fans fond drawn attracted inclined into enjoying watching reading "
        "about of in with open seeking looking known keen likes like loves enjoys prefers "
        "prefer appreciates appreciate to for from by on that which not no film films movie "
        "movies lover lovers enthusiast between",
    )
)
_HAS = (
    r"(?:has|have|had|having|suffers? from|suffering from|struggles? with|struggling with|lives? "
    r"with|living with|diagnosed with|recovering from|deals? with|dealing with)"
)
# Nouns that turn a term into a kind of work: "a Christian film", "adult themes".
_WORK = frozenset(
    re.findall(
        r"\S+",
        "film films movie movie's movies cinema cinematic fiction literature novel novels "
        "book books music song songs genre genres story stories drama dramas comedy comedies "
        "humor humour theme themes series titles content culture cultural history historical "
        "figure figures character characters protagonist protagonists lead directors actors "
        "actresses authors artists productions classics romance thriller thrillers horror "
        "western westerns epic epics narrative narratives animation art products audience "
        "audiences market",
    )
)
_DETERMINED = {"a", "an", "likely", "probably", "possibly", "perhaps"}
_UNKNOWN = re.compile(
    r"(?:[ ,]+(?:and|or|age|group|gender|the)\b)*(?: (?:is|are|was|were|remains?))? "
    r"(?:cannot|can't|can not|could not|not|isn't|unknown|unclear|unspecified|undetermined)\b"
)
_SENTENCE = re.compile(r"[^.!?;\n]+")


def find(texts: Texts, options: Mapping[str, Any]) -> list[list[Finding]]:
    """Return what texts say of persons: ``categories`` (all) of the packaged and the user's lists.

    The user's own terms without a use count wherever they stand.
    """
    sources = ("protected",) if options.get("packaged", True) else ()
    sources += tuple(options.get("words", ()))
    words = word_list(*sources)
    known = {terms.category for terms in words.terms}
    wanted = set(options.get("categories") or known)
    if missing := sorted(wanted - known):
        raise ValueError(
            f"[safety.protected_attributes] categories: {missing[0]!r} is in no word list; "
            f"known: {', '.join(sorted(known))}"
        )
    mentions = bool(options.get("mentions"))

    def one(text: str) -> list[Finding]:
        spans: dict[tuple[int, int], Finding] = {}
        for terms, match in words.matches(text):
            told = mentions or _said_of_a_person(text, match, terms)
            if terms.category in wanted and told:
                place = Finding("protected_attributes", terms.category, match[0], *match.span())
                spans.setdefault(match.span(), place)
        whole = [f for f in spans.values() if not any(_inside(f, g) for g in spans.values())]
        return sorted(whole, key=lambda f: f.start)

    return per_text(texts, one)


def _inside(small: Finding, large: Finding) -> bool:
    return (
        small.kind == large.kind
        and large.start <= small.start
        and small.end <= large.end
        and (small.start, small.end) != (large.start, large.end)
    )


def _said_of_a_person(text: str, match: re.Match[str], terms: Terms) -> bool:
    if terms.use == "any" or (terms.category == "listed" and not terms.use):
        return True
    sentence = next(
        m for m in _SENTENCE.finditer(text) if m.start() <= match.start() < max(m.end(), 1)
    )
    before = text[sentence.start() : match.start()]
    after = text[match.end() : max(sentence.end(), match.end())]
    if _quoted(before, after):
        return False
    if terms.use == "of":
        if _UNKNOWN.match(after):
            return False
        return bool(re.search(rf"\b(?:{_PERSON}(?:'s|’s|s')|his|her|their)(?: own)? $", before,
                              re.IGNORECASE))  # fmt: skip
    if terms.use == "has":
        return _links(before, _HAS)
    follow = re.findall(r"[\w'’-]+", after)[:2]
    if follow and any(word.casefold() in _WORK for word in follow[:1]):
        return False
    if len(follow) > 1 and follow[1].casefold() in _WORK and follow[0].casefold() != "and":
        return False
    return _links(before, _IS) or _apposition(before) or _names_a_person(after)


def _links(before: str, verb: str) -> bool:
    """Say whether a person and ``verb`` lead to the term, with at most five words between."""
    pattern = (
        rf"\b(?:{_PERSON}(?:,? who)?|(he|she|they|i))\b[^,]{{0,25}}?\b{verb}\b"
        r"((?:[\s,'’-]+[\w'’/%-]+){0,6})[\s,-]*$"
    )
    found = re.search(pattern, before, re.IGNORECASE)
    if not found:
        return False
    between = re.findall(r"[\w'’-]+", found[2])
    if found[1] and verb is _IS and not _DETERMINED & set(map(str.casefold, between)):
        return False  # "conflicts, whether they are man versus nature"
    return not any(word.casefold() in _TASTE for word in between)


def _apposition(before: str) -> bool:
    """Say whether the term describes a person named right before it: "the user, a 24-year-old"."""
    found = re.search(rf"\b{_PERSON},? ?(?:\(|,|as an? |being an? |is an? )((?:[\s-]*[\w'’-]+)"
                      r"{0,4})[\s,-]*$", before, re.IGNORECASE)  # fmt: skip
    if not found:
        return False
    return not any(word.casefold() in _TASTE for word in re.findall(r"[\w'’-]+", found[1]))


def _names_a_person(after: str) -> bool:
    """Say whether a person follows within two words: "a young female viewer"."""
    return bool(re.match(rf"(?:[\s,/-]+(?:and |or )?[\w'’-]+){{0,1}}[\s-]+{_PERSON}\b", after,
                         re.IGNORECASE))  # fmt: skip


def _quoted(before: str, after: str) -> bool:
    marks = len(re.findall(r"[\"“”]", before))
    return marks % 2 == 1 and bool(re.search(r"[\"“”]", after))
