"""Held-out titles in generated texts: the string check behind "no target in the profile"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..data.training import SPLIT_NAMES, TEST, VALID, TrainingData

SHORTEST = 4  # characters; shorter titles ("It", "Her") match ordinary words


def leaked_targets(
    texts: Mapping[str, str],
    titles: Mapping[str, str],
    data: TrainingData,
    *,
    splits: Sequence[int] = (VALID, TEST),
) -> pa.Table:
    """Return the held-out items whose title stands in the text about their own user.

    ``texts`` maps user ids to generated texts, ``titles`` item ids to titles. Columns: user_id,
    item_id, title, split; no rows = no leak found. Titles match as whole words without case,
    accents, punctuation and a trailing year. A title that is part of the title of an item outside
    ``splits`` of the same user ("Toy Story" beside "Toy Story 2") is no evidence and left out.
    """
    found: dict[str, list[str]] = {"user_id": [], "item_id": [], "title": [], "split": []}
    words = {i: plain(t) for i, t in titles.items()}
    held = np.isin(data.split, splits)
    for u, user_id in enumerate(data.users.ids, start=1):
        text = f" {plain(texts.get(user_id) or '')} "
        rows = slice(data.user_start[u], data.user_start[u + 1])
        if not text.strip():
            continue
        ids = [data.items.ids[i - 1] for i in data.item[rows]]
        known = [f" {words.get(i, '')} " for i, h in zip(ids, held[rows], strict=True) if not h]
        for item_id, split, is_held in zip(ids, data.split[rows], held[rows], strict=True):
            title = words.get(item_id, "")
            if not is_held or len(title) < SHORTEST or f" {title} " not in text:
                continue
            if any(f" {title} " in other for other in known):
                continue
            row = (user_id, item_id, titles[item_id], SPLIT_NAMES[split])
            for column, value in zip(found, row, strict=True):
                found[column].append(value)
    return pa.table({c: pa.array(v, pa.string()) for c, v in found.items()})


def plain(text: str) -> str:
    """Return lower-case words without accents, punctuation, a trailing (year), a moved article."""
    text = re.sub(r"\s*\(\d{4}\)\s*$", "", text)
    text = re.sub(r"^(.*), (the|a|an)$", r"\2 \1", text, flags=re.IGNORECASE)
    letters = unicodedata.normalize("NFKD", text)
    letters = "".join(c for c in letters if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", letters.casefold()))
