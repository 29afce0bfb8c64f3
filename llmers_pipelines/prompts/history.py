"""A user's history as lines of a prompt: what is shown of it, and how an entry reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .fields import CATEGORY, as_data, bare_title, of_role, title_of
from .task import Context, Row

CHARACTERS_PER_TOKEN = 4  # an estimate: a prompt is rendered before the model's tokenizer is known


def entries(row: Row, name: str = "history") -> Sequence[Mapping[str, Any]]:
    """Return the list of items under ``name``; none where the row has no such list."""
    found = row.get(name)
    return [] if found is None else list(found)


def newest(row: Row, max_items: int, tokens: int) -> list[Mapping[str, Any]]:
    """Return at most ``max_items`` newest titled entries of the history, oldest first.

    Of these as many newest as fit into ``tokens``, at least one.
    """
    kept: list[Mapping[str, Any]] = []
    room = tokens * CHARACTERS_PER_TOKEN
    for entry in reversed([e for e in entries(row) if title_of(e)]):
        room -= len(entry_line(entry, None)) + 6
        if len(kept) == max_items or (kept and room < 0):
            break
        kept.append(entry)
    return kept[::-1]


def opinion(entry: Mapping[str, Any], context: Context) -> str:
    """Return what the user thought of the entry, as far as the data says."""
    rating, label = entry.get("rating"), entry.get("label")
    if rating is not None and rating == rating:
        best = (context or {}).get("rating_max")
        return f"rated {rating:g}{f' of {best:g}' if best else ''}"
    if label is not None and label == label:
        return "liked" if label > 0 else "disliked"
    return ""


def entry_line(entry: Mapping[str, Any], context: Context) -> str:
    """Return the entry's quoted title, the user's opinion of it and its categories."""
    title = as_data(bare_title(title_of(entry)), limit=120).replace('"', "'")
    kinds = ", ".join(of_role(entry, CATEGORY)[:4])
    return "; ".join(filter(None, [f'"{title}"', opinion(entry, context), kinds]))
