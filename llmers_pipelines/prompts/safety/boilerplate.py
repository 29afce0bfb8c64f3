"""Sentences that many rows share word by word, and texts that repeat themselves."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..checks import normal, repetition
from . import Finding, Texts

LEAST_WORDS = 5  # of a sentence; shorter ones are alike by chance
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+|\n|$)")


def find(texts: Texts, options: Mapping[str, Any]) -> list[list[Finding]]:
    """Return sentences that at least ``share`` of the texts (and ``least_rows``) hold, and loops.

    Sentences are compared without case, accents and punctuation. A text loops when most of its runs
    of four words are repeats (``prompts.checks.repetition``).
    """
    said = [{key for key, _ in _sentences(text)} if text is not None else set() for text in texts]
    counts = Counter(key for keys in said for key in keys)
    present = sum(text is not None for text in texts)
    least = max(options.get("least_rows", 5), math.ceil(options.get("share", 0.05) * present))
    shared = {key: n for key, n in counts.items() if n >= least}
    out = []
    for text in texts:
        findings = []
        for key, match in _sentences(text or ""):
            if key in shared:
                told = f"{shared[key]} of {present} texts: {match[0].strip()[:160]}"
                findings.append(
                    Finding("boilerplate", "shared sentence", told, match.start(), match.end())
                )
        if reason := repetition(text or ""):
            findings.append(Finding("boilerplate", "repeats itself", reason))
        out.append(findings)
    return out


def _sentences(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    for match in _SENTENCE.finditer(text):
        key = normal(match[0])
        if key.count(" ") >= LEAST_WORDS - 1:
            yield key, match
