"""Words for a kind of catalog: what an item is called, and the factors that make people choose it.

A data set names its domain; a data set of another kind declares its own words. The factor lists are
scenario-level knowledge in the sense of KAR (asked once, edited by a person, then constant).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Domain:
    """``noun`` and ``plural`` of an item, what a person ``did`` with it, and the factors."""

    noun: str
    plural: str
    did: str
    factors: tuple[str, ...]


GENERIC = Domain(
    "item", "items", "chosen",
    ("category and type", "purpose and occasion of use", "maker or brand", "style and character",
     "quality and level of detail", "price level", "audience"),
)  # fmt: skip

DOMAINS: dict[str, Domain] = {
    "generic": GENERIC,
    "movies": Domain(
        "movie", "movies", "watched",
        ("genre", "director and cast", "period and country", "characters", "plot and theme",
         "mood and tone", "acclaim", "production and visual style", "music"),
    ),
    "books": Domain(
        "book", "books", "read",
        ("genre", "author and voice", "period and place", "characters", "plot and theme",
         "mood and tone", "length and difficulty", "audience"),
    ),
    "beauty": Domain(
        "product", "products", "bought",
        ("product type", "brand", "ingredients", "skin or hair need", "scent and colour",
         "size and price level", "audience"),
    ),
    "office": Domain(
        "product", "products", "bought",
        ("product type", "brand", "task it serves", "compatible devices", "size and quantity",
         "price level", "place of use"),
    ),
    "grocery": Domain(
        "product", "products", "bought",
        ("product type", "brand kind", "meal or occasion", "dietary need", "package size",
         "price level", "household"),
    ),
    "games": Domain(
        "game", "games", "played",
        ("genre", "developer", "setting and story", "way of play", "mood", "difficulty and length",
         "audience"),
    ),
    "music": Domain(
        "track", "tracks", "played",
        ("genre", "artist", "period and country", "mood and energy", "instruments and voice",
         "theme of the words", "occasion"),
    ),
    "news": Domain(
        "article", "articles", "read",
        ("topic", "people and organisations", "place", "event and background", "tone", "audience"),
    ),
}  # fmt: skip


def domain_of(context: Mapping[str, Any] | None) -> Domain:
    """Return the domain named or declared by ``context["domain"]``; the generic one if neither.

    A declaration is a mapping with any of noun, plural, did, factors; the rest stays generic.
    """
    given = (context or {}).get("domain") or "generic"
    if isinstance(given, Domain):
        return given
    if isinstance(given, str):
        if given not in DOMAINS:
            known = ", ".join(sorted(DOMAINS))
            raise ValueError(
                f"domain {given!r} is not known; use one of {known}, or declare noun, plural, did "
                "and factors"
            )
        return DOMAINS[given]
    unknown = set(given) - {"noun", "plural", "did", "factors"}
    if unknown:
        raise ValueError(
            f"domain: unknown word {sorted(unknown)[0]!r}; use noun, plural, did, factors"
        )
    noun = given.get("noun", GENERIC.noun)
    return Domain(
        noun, given.get("plural", f"{noun}s"), given.get("did", GENERIC.did),
        tuple(given.get("factors", GENERIC.factors)),
    )  # fmt: skip
