"""How many tokens an endpoint says that a call used, and whether that can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST = 2**31 - 1  # what a stored row holds
# A provider's own instructions and hidden reasoning may come on top of what was sent and allowed.
SLACK = 2**17


def usage_of(document: Any, *, text: str | None = None) -> tuple[int, int, int] | None:
    """Return (prompt tokens, answer tokens, of the prompt cached); None where they are not told.

    ``text``: of an answer in words. Then both counts must be there, and above zero where the text
    is not empty. Without it (vectors) the answer's count may lack. Whatever is no whole number, or
    more than a stored row holds, is no count.
    """
    usage = document.get("usage") if isinstance(document, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    least = 1 if text else 0
    read = usage.get("prompt_tokens")
    written = usage.get("completion_tokens", 0 if text is None else None)
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    cached = 0 if cached is None else cached
    if not (_count(read, least) and _count(written, least) and _count(cached, 0)):
        return None
    return read, written, min(cached, read)  # type: ignore[return-value]


def believable(read: int, written: int, most: tuple[int, int]) -> bool:
    """Say whether a call can have used so much; ``most``: prompt and answer tokens, as bounds."""
    return read <= most[0] + SLACK and written <= most[1] + SLACK


def _count(number: Any, least: int) -> bool:
    whole = isinstance(number, int) and not isinstance(number, bool)
    return whole and least <= number <= LARGEST
