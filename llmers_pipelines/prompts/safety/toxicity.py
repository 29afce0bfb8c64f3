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
        for i, score in zip(present, scored(name, [str(texts[i]) for i in present]), strict=True):
            if score >= options.get("threshold", 0.5):
                found[i].append(Finding("toxicity", "classifier", f"score {score:.3f}"))
    return found


def scored(name: str, texts: list[str]) -> list[float]:
    """Return the classifier's number of each text; ``ValueError`` names it and what is wrong."""
    setting = f'[safety.toxicity] classifier = "{name}"'
    classify = load(name)
    try:
        found = list(classify(texts))
    except Exception as error:  # the classifier is a plug-in and may raise anything
        raise ValueError(
            f"{setting} failed on a list of {len(texts)} texts ({type(error).__name__}: {error}); "
            "it must take a list of texts and return one number per text, in order"
        ) from error
    if len(found) != len(texts):
        raise ValueError(
            f"{setting} gave {len(found)} scores for {len(texts)} texts; it must return one number "
            "per text, in order"
        )
    try:
        scores = [float(score) for score in found]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{setting} gave a score that is no number: {error}") from error
    if wrong := [score for score in scores if score != score]:
        raise ValueError(f"{setting} gave {len(wrong)} scores that are not a number (NaN)")
    return scores


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
