"""Words by which a model declines, apologizes or speaks of itself, anywhere in a text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..checks import straight
from . import Finding, Texts, per_text

_RULES = {
    "declines": r"\bI(?:'m| am) (?:sorry|afraid),? (?:but )?(?:I|this|that|there)\b"
    r"|\bI (?:cannot|can't|can not|could not|couldn't|am unable to|am not able to|won't|will not) "
    r"(?:provide|help|assist|find|answer|determine|infer|give|make|create|generate|write"
    r"|summari[sz]e|access|comply|fulfil+|describe|complete|recommend|offer|say|tell|speculate)"
    r"|\bI (?:do not|don't) have (?:any |enough |sufficient |access|specific |personal )?"
    r"(?:information|details|knowledge|data|access|context|opinions|preferences)\b"
    r"|\b(?:it is|it's) (?:not possible|impossible) (?:for me )?to (?:determine|provide|say"
    r"|generate|infer|tell|accurately|draw)\b"
    r"|\bI was (?:unable|not able) to (?:generate|find|provide|determine|create)\b"
    r"|\b(?:sorry|unfortunately), (?:but )?I\b"
    r"|(?:^|[.!?]\s+)(?:unable|not able) to (?:comply|fulfil+|provide|help|assist|answer|complete"
    r"|generate|determine)\b"
    r"|\b(?:description|summary|profile) (?:cannot|can't|could not) be (?:generated|provided"
    r"|written|created|determined)\b"
    r"|\bthe (?:provided|given) (?:\w+ )?(?:title|text|content|data|information|input)\b"
    r"[^.,]{0,40}\b(?:does not|doesn't|do not|is not|isn't|are not|cannot"
    r"|contains? (?:invalid|characters))"
    r"|\b(?:not enough|insufficient|no sufficient) (?:information|data|context|details)\b",
    "speaks of itself": r"\bas an? (?:large )?(?:ai|artificial intelligence|language model)\b"
    r"(?! (?:film|movie|story|thriller|drama|that (?:gains|becomes)))"
    r"|\bI(?:'m| am) (?:just |only )?an? (?:ai|language model|virtual assistant|chatbot)\b"
    r"|\bmy (?:training data|knowledge cut-?off|programming)\b",
    "chat": r"\b(?:let me know if|feel free to (?:ask|reach)|I hope (?:this|that) helps"
    r"|is there anything else|would you like me to|please (?:provide|share|double-check) "
    r"(?:me )?(?:with )?(?:more|the|your|additional|an?|another))\b",
}  # fmt: skip
_COMPILED = {kind: re.compile(rule, re.IGNORECASE) for kind, rule in _RULES.items()}


def find(texts: Texts, options: Mapping[str, Any]) -> list[list[Finding]]:
    """Return where a text declines or talks like a chat instead of answering."""
    return per_text(texts, _find)


def _find(text: str) -> list[Finding]:
    plain = straight(text)  # of the same length
    return [
        Finding("refusal", kind, match[0], match.start(), match.end())
        for kind, rule in _COMPILED.items()
        for match in rule.finditer(plain)
    ]
