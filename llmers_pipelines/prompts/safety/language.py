"""The language of a text by its script and its function words.

A guess for eleven European languages and the scripts of eight others; its error is measured in
docs/prompts.md. Text of other languages in Latin letters is "unknown", not wrong.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from . import Finding, Texts, per_text

# Frequent short words that mark a language; words that two of them share count for both.
_FUNCTION_WORDS = {
    "en": "the of and to in is for with that as by this from are on a an their they be it which "
          "who or has have also was his her its but not no do at you we can will about into when",
    "de": "der die das und ist von zu mit den ein eine auf für sich nicht dem des als auch es an "
          "werden aus er hat dass sie bei wird einer",
    "fr": "le la les de des et est un une dans du en pour que qui sur pas avec au par ce il elle "
          "ne se sont aux cette ses",
    "es": "el la los las de y en que un una es por con para del se su al como más lo sus no este "
          "pero esta entre",
    "it": "il lo la gli le di e che un una in è per con del della da non si sono al dei nel alla "
          "anche come suo sua più",
    "pt": "o a os as de e que do da em um uma para com não por se dos das na no é mais ao como "
          "seu sua pelo foi",
    "nl": "de het een en van in is dat op te zijn voor met die niet aan er om ook als bij door "
          "naar uit maar wordt",
    "sv": "och det att en som är på för med av den till inte om ett har de var sig från så kan "
          "hans men",
    "pl": "i w na z do się nie jest to że o od przez jak po za ale przy dla oraz jego który która",
    "tr": "ve bir bu için ile de da olarak olan çok daha gibi ne kadar sonra o en ama her",
    "id": "yang dan di dari untuk dengan ini itu pada adalah dalam tidak ke oleh sebagai akan "
          "juga karena",
}  # fmt: skip
_WORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}
_SCRIPTS = {
    "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CJK": "zh", "CYRILLIC": "ru",
    "ARABIC": "ar", "GREEK": "el", "HEBREW": "he", "THAI": "th", "DEVANAGARI": "hi",
}  # fmt: skip
MARGIN = 1.5  # how many times as often as the expected language another one's words must occur
OTHER_SCRIPT = 0.3  # share of letters from which on a script decides


def find(texts: Texts, options: Mapping[str, Any]) -> list[list[Finding]]:
    """Return texts that are in another language than ``expected``.

    Texts of fewer than ``least_words`` words are not judged: they hold too few function words.
    """
    expected = str(options.get("expected", "en"))
    known = sorted({*_WORDS, *_SCRIPTS.values()})
    if expected not in known:
        raise ValueError(f"[safety.language] expected = {expected!r}; known: {', '.join(known)}")
    least = int(options.get("least_words", 12))

    def one(text: str) -> list[Finding]:
        found, told = guess(text, least_words=least, expected=expected)
        if found in (expected, "unknown"):
            return []
        return [Finding("language", found, told)]

    return per_text(texts, one)


def guess(text: str, *, least_words: int = 12, expected: str = "en") -> tuple[str, str]:
    """Return (language code or "unknown", evidence).

    The script decides where 30 % of the letters are not Latin; else the language whose function
    words are most frequent. Where that is not ``expected``, it must lead by ``MARGIN`` and make up
    a tenth of the words.
    """
    letters = [c for c in text if c.isalpha()]
    scripts = Counter(script for c in letters if (script := _script(c)))
    if scripts.total() > OTHER_SCRIPT * max(1, len(letters)):
        if scripts["ja"]:
            return "ja", f"{scripts['ja']} Japanese letters"
        language, count = scripts.most_common(1)[0]
        return language, f"{count} of {len(letters)} letters"
    words = re.findall(r"[^\W\d_]+", text.casefold())
    if len(words) < least_words:
        return "unknown", f"{len(words)} words"
    shares = {name: sum(w in known for w in words) / len(words) for name, known in _WORDS.items()}
    best = max(shares, key=lambda name: (shares[name], name == expected))
    own = shares.get(expected, 0.0)
    if best != expected and (shares[best] < 0.1 or shares[best] < MARGIN * own):
        best = expected if own >= 0.1 else "unknown"
    told = f"{shares.get(best, 0.0):.0%} {best} function words, {own:.0%} {expected}"
    return best, told


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """Return the language that a non-Latin letter stands for, or ""."""
    if character < "\u0370":
        return ""
    return _SCRIPTS.get(unicodedata.name(character, "").split(" ")[0].split("-")[0], "")
