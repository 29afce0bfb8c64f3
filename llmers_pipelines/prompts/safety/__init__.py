"""Checks of generated texts: what each found, where, and why it counts."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...safety import SafetyCheck


@dataclass(frozen=True)
class Finding:
    """``kind`` says what it is (``email``, ``religion``); ``start`` -1 where it is the whole text.

    ``evidence`` is the found words. Personal data is never repeated in it: only its shape is.
    """

    check: str
    kind: str
    evidence: str
    start: int = -1
    end: int = -1
    action: str = "keep"


Texts = Sequence[str | None]
Detector = Callable[[Texts, Mapping[str, Any]], list[list[Finding]]]


def examine(texts: Texts, checks: Sequence[SafetyCheck]) -> list[list[Finding]]:
    """Return the findings of each text, in the order of ``checks``; none for a missing text."""
    out: list[list[Finding]] = [[] for _ in texts]
    for check in checks:
        found = _detector(check.name)(texts, check.options)
        for row, findings in zip(out, found, strict=True):
            row += [dataclasses.replace(f, action=check.action) for f in findings]
    return out


def masked(text: str, checks: Sequence[SafetyCheck]) -> str:
    """Return ``text`` with what the masking ``checks`` find in it replaced by ``[kind]``."""
    masking = [check for check in checks if check.action == "mask"]
    spans = sorted({(f.start, f.end, f.kind) for f in examine([text], masking)[0] if f.start >= 0})
    out, done = [], 0
    for start, end, kind in spans:
        if start >= done:
            out += [text[done:start], f"[{kind}]"]
        done = max(done, end)
    return "".join([*out, text[done:]])


def _detector(name: str) -> Detector:
    module = "protected" if name == "protected_attributes" else name
    return importlib.import_module(f"{__name__}.{module}").find


def per_text(texts: Texts, one: Callable[[str], list[Finding]]) -> list[list[Finding]]:
    """Return ``one`` of every text that is there."""
    return [[] if text is None else one(text) for text in texts]
