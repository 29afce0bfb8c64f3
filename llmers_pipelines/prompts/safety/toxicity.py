"""Toxic texts by the user's own word lists, or by a classifier that the user names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from . import Finding, Texts, per_text
from .words import word_list


def find(texts: Texts, options: Mapping[str, Any]) -> list[list[Finding]]:
    """Return listed words, and texts whose score is at least ``threshold``.

    A classifier ``module:function`` takes a list of texts and returns as many numbers. It is
    imported here and not before.
    """
    found: list[list[Finding]] = [[] for _ in texts]
    if options.get("words"):
        words = word_list(*options["words"])
        found = per_text(texts, lambda text: [
            Finding("toxicity", terms.category, m[0], m.start(), m.end())
            for terms, m in words.matches(text)
        ])  # fmt: skip
    if name := options.get("classifier"):
        present = [i for i, text in enumerate(texts) if text is not None]
        scores = list(load(name)([str(texts[i]) for i in present]))
        if len(scores) != len(present):
            raise ValueError(
                f"[safety.toxicity] classifier {name!r} gave {len(scores)} scores for "
                f"{len(present)} texts; it must return one number per text, in order"
            )
        for i, score in zip(present, scores, strict=True):
            if float(score) >= options.get("threshold", 0.5):
                found[i].append(Finding("toxicity", "classifier", f"score {float(score):.3f}"))
    return found


def load(name: str) -> Callable[[list[str]], Sequence[float]]:
    """Return the function ``module:function``; ``ValueError`` says what is missing."""
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f'[safety.toxicity] classifier = "{name}": {error}') from error
    if callable(found):
        return cast(Callable[[list[str]], Sequence[float]], found)
    raise ValueError(f'[safety.toxicity] classifier = "{name}": not a function')
