"""Personal data: addresses of mail, networks and houses, phone, bank and card numbers.

Numbers with a check digit are only found where it is right. Street addresses are best effort and
English: what stands in quotes, or alone, is taken for a title ("84 Charing Cross Road").
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from . import Finding, Texts, per_text

KINDS = ("email", "phone", "iban", "card", "ip", "ssn", "address")
_STREET = (
    r"(?:Street|St\.|Avenue|Ave\.?|Road|Rd\.|Boulevard|Blvd\.?|Lane|Ln\.|Drive|Dr\.|Court|Ct\.|"
    r"Square|Sq\.|Terrace|Highway|Hwy\.?|Parkway|Pkwy\.?|Crescent)"
)
_PATTERNS = {
    "email": r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}",
    "iban": r"(?<!\w)[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?(?!\w)",
    "card": r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-])",
    "ip": r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}"
          r"[0-9A-Fa-f]{1,4}(?![\w:])"
          r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:)*(?:[0-9A-Fa-f]{1,4})?::[0-9A-Fa-f:]*[0-9A-Fa-f](?![\w:])",
    "ssn": r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])",
    "phone": r"(?<![\w.,$-])(?:(?:\+|(?<!\d )00)\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}"
             r"|0[1-9](?:[ .-]\d{2}){4}"
             r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-])",
    "address": r"(?<![\w-])\d{1,5}[A-Za-z]? (?:[NSEW]\.? )?(?:[A-Z][a-z'’]+ ){1,3}" + _STREET
               + r"(?!\w)",
}  # fmt: skip
_RULES = {kind: re.compile(_PATTERNS[kind]) for kind in
          ("email", "iban", "card", "ip", "ssn", "phone", "address")}  # fmt: skip
# Titles look like addresses, so a town, a number behind it or a word that says so must be there.
_LEADS_TO_ADDRESS = re.compile(
    r"(?i:\b(?:lives?|living|resid(?:es?|ing)|address|deliver(?:y|ed)?|ship(?:ped)?|mail|home)\b"
    r"[^.]{0,20})$"
)
_ENDS_ADDRESS = re.compile(
    r",? (?:Apt|Suite|Unit|No)\b|, (?:[A-Z][a-z]+ ?){1,3}, [A-Z]{2}\b|,? \d{5}\b"
)
# First digits of a card number -> how many digits it may have.
_ISSUERS = {r"4": (13, 16, 19), r"3[47]": (15,), r"35": (16, 17, 18, 19), r"3[0689]": (14, 16, 19),
            r"5[1-5]|2[2-7]": (16,), r"5|6": tuple(range(13, 20))}  # fmt: skip
_QUOTED = re.compile(r"[\"“][^\"”\n]{3,100}[\"”]")


def find(texts: Texts, options: Mapping[str, Any]) -> list[list[Finding]]:
    """Return personal data of the wanted ``kinds`` (all), each place once."""
    kinds = options.get("kinds") or KINDS
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ValueError(f"[safety.pii] kinds: {unknown[0]!r}; known: {', '.join(KINDS)}")
    rules = {kind: rule for kind, rule in _RULES.items() if kind in kinds}
    return per_text(texts, lambda text: _find(text, rules))


def _find(text: str, rules: Mapping[str, re.Pattern[str]]) -> list[Finding]:
    found: list[Finding] = []
    for kind, rule in rules.items():
        for match in rule.finditer(text):
            taken = any(f.start < match.end() and match.start() < f.end for f in found)
            if not taken and _is(kind, match, text):
                shape = f"{kind} of {len(match[0])} characters"
                found.append(Finding("pii", kind, shape, match.start(), match.end()))
    return sorted(found, key=lambda f: f.start)


def _is(kind: str, match: re.Match[str], text: str) -> bool:
    if kind == "iban":
        return valid_iban(match[0])
    if kind == "card":
        return valid_card(match[0])
    if kind == "ip":
        return valid_ip(match[0])
    if kind == "phone":
        return 8 <= sum(c.isdigit() for c in match[0]) <= 15
    if kind == "address":
        quoted = (m.span() for m in _QUOTED.finditer(text))
        if any(a < match.start() and match.end() < b for a, b in quoted):
            return False
        led = _LEADS_TO_ADDRESS.search(text[max(0, match.start() - 40) : match.start()])
        return bool(led or _ENDS_ADDRESS.match(text, match.end()))
    return True


def valid_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def valid_card(number: str) -> bool:
    """Say whether the digits begin and end as a card's and pass the Luhn sum (ISO/IEC 7812).

    The sum alone lets one number in ten pass.
    """
    plain = re.sub(r"\D", "", number)
    digits = [int(c) for c in plain]
    lengths = next((n for prefix, n in _ISSUERS.items() if re.match(prefix, plain)), ())
    if len(digits) not in lengths or len(set(digits)) == 1:
        return False
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def valid_iban(number: str) -> bool:
    """Say whether an IBAN's remainder by 97 is 1 (ISO 13616), its letters read as 10 to 35."""
    plain = number.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1
