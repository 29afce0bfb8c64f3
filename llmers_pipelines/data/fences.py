"""Texts of rows in which every field's value stands within a fence, so that it masks as a unit.

A fence is a pair of private-use characters. Values lose such characters before they are told, so
that no text of a catalog can open or close one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

OPEN, CLOSE = "\ue000", "\ue001"
_FENCES = str.maketrans("", "", OPEN + CLOSE)


def fenced(clauses: Sequence[tuple[str, str]]) -> str:
    """Return ``name is <value>; name is <value>.`` of (name, value), each value in a fence."""
    if not clauses:
        return ""
    told = (f"{one_line(name)} is {OPEN}{one_line(value)}{CLOSE}" for name, value in clauses)
    return "; ".join(told) + "."


def one_line(text: str) -> str:
    """Return ``text`` as it stands in a fenced text: without fences, runs of space as one."""
    return " ".join(text.translate(_FENCES).split())


def pieces(text: str) -> list[tuple[str, int]]:
    """Return the parts of a fenced text in order, each with the number of its fence, -1 outside.

    Raises ValueError where a fence is not closed, or opens within another.
    """
    out: list[tuple[str, int]] = []
    number, inside = -1, False
    for part in re.split(f"([{OPEN}{CLOSE}])", text):
        if part in (OPEN, CLOSE):
            if inside == (part == OPEN):
                raise ValueError(f"the fences of {text!r} do not pair up")
            inside = part == OPEN
            number += inside
        elif part:
            out.append((part, number if inside else -1))
    if inside:
        raise ValueError(f"the fences of {text!r} do not pair up")
    return out


def values(text: str) -> list[str]:
    """Return what stands within each fence, in order."""
    return [part for part, number in pieces(text) if number >= 0]


def kept(fences: Sequence[int], lengths: Sequence[int], limit: int) -> int:
    """Return how many pieces fit into ``limit`` tokens without a cut through a fence.

    ``fences`` and ``lengths``: the fence number and the tokens of each piece. A clause is left out
    whole, its words before the fence included; what follows it goes as well.
    """
    used, whole = 0, 0
    for place, (fence, length) in enumerate(zip(fences, lengths, strict=True)):
        used += length
        if used > limit:
            return whole
        if fence >= 0 or place == len(fences) - 1:
            whole = place + 1
    return whole


def tells(text: str, value: str) -> bool:
    """Say whether ``value`` can be read in ``text``, as whole words and in any case."""
    if not value or value.casefold() not in text.casefold():
        return False
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) is not None
