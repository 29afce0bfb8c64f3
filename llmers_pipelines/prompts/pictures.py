"""Pictures in a prompt: which cells of a row are looked at, and what becomes of those without one.

The reader in a run's context (``images``) has ``look(cell)``: a picture with a ``sha256``, or what
stands in its place, with a ``reason``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BROKEN = ("leave_out", "quarantine")  # what becomes of a row whose picture cannot be read
_LIMIT = 300  # characters of a reason


def image_columns(
    declared: Mapping[str, str] | None, chosen: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the image columns in their declared order: those of the data set, or ``chosen``."""
    if chosen:
        return tuple(chosen)
    return tuple(name for name, kind in (declared or {}).items() if kind == "image")


def looked_at(
    row: Mapping[str, Any], context: Mapping[str, Any] | None, chosen: Sequence[str] = ()
) -> tuple[list[Any], list[str]]:
    """Return the row's pictures in the order of its image columns, and why others are missing."""
    columns = image_columns((context or {}).get("fields"), chosen)
    reader = (context or {}).get("images")
    if context is not None and "images" in context and reader is None:
        return [], []  # nobody looks: the engine reads no prompts
    if reader is None:
        return [], [f"{column}: no reader of images is at hand" for column in columns]
    found, missing = [], []
    for column in columns:
        seen = reader.look(row.get(column))
        if reason := getattr(seen, "reason", ""):
            missing.append(f"image of {column}: {reason}"[:_LIMIT])
        else:
            found.append(seen)
    return found, missing


def with_pictures(text: str, pictures: Sequence[Any]) -> str | list[dict[str, Any]]:
    """Return the content of a message: ``text`` alone, or pictures in front of it as parts."""
    if not pictures:
        return text
    parts: list[dict[str, Any]] = [{"type": "image", "image": picture} for picture in pictures]
    return [*parts, {"type": "text", "text": text}]
