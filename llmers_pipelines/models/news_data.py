"""What a news recommender knows of a data set before step 0: words, categories, who is liked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.training import TRAIN
from .ctr_fields import ctr_fields

if TYPE_CHECKING:
    from ..data.training import Field, TrainingData


def text_of(data: TrainingData, name: str, model: str) -> Field:
    """Return the words of the text field ``name``; raises ValueError where items have none."""
    if name not in data.item_texts:
        raise ValueError(
            f"{model} reads the words of the items' field {name!r}; the log of task "
            f"{data.task!r} has {sorted(data.item_texts) or 'no texts'}; declare it under "
            "[items.fields] as text and train on a news split"
        )
    return data.item_texts[name]


def other_text(data: TrainingData, title: str) -> str:
    """Return the longest text field beside ``title``, "" where there is none."""
    others = sorted(set(data.item_texts) - {title})
    return max(others, key=lambda n: int((data.item_texts[n].codes > 0).sum()), default="")


def size_of(words: Field) -> list[int]:
    """Return [vocabulary, words of the longest text]."""
    return [len(words.vocabulary), words.codes.shape[1]]


def categories_of(data: TrainingData) -> dict[str, np.ndarray]:
    """Return the codes int64[N + 1, M] of each item field; 0 where training never met the value.

    A category that occurs in held-out rows alone has an embedding that nothing taught, so it counts
    as missing.
    """
    met = np.unique(data.item[data.split == TRAIN])
    out = {}
    for name, codes in ctr_fields(data).item.items():
        known = np.zeros(int(codes.max(initial=0)) + 1, bool)
        known[codes[met]] = True
        known[0] = False
        out[name] = np.where(known[codes], codes, 0)
    return out


def news_shape(data: TrainingData) -> dict[str, Any]:
    """Return the plain numbers that all news networks need."""
    return {"n_items": data.n_items, "liked_from": ctr_fields(data).shape["liked_from"]}
