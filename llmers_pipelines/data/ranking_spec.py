"""The settings of rankings that a teacher wrote elsewhere: ``[rankings.<name>]``."""

from __future__ import annotations

from dataclasses import dataclass

from .strict_toml import Section


@dataclass(frozen=True)
class RankingSpec:
    """A file of rankings and how it is read.

    One row per ranked item (columns ``user``, ``rank``, ``item``) or, with ``items``, one row per
    ranking whose column ``items`` lists them, best first. ``position`` is the column that says how
    many of the user's oldest interactions the ranking was made from. ``distance`` (not below 0,
    lower is surer) or ``confidence`` (above 0, at most 1; distance = -ln confidence) is a column
    as well; in the list form a list of equal length.
    """

    name: str
    path: str
    format: str
    table: str = ""  # of a database
    user: str = "user_id"
    item: str = "item_id"
    rank: str = "rank"
    items: str = ""
    separator: str = "|"  # of a list in one text cell
    ids: str = "text"  # "integer" reads 7, 7.0 and 007 as one id
    position: str = ""
    distance: str = ""
    confidence: str = ""
    data_cutoff: str = "unknown"
    labels_seen: bool = False
    model: str = ""


def parse_ranking(section: Section, name: str, path: str, kind: str) -> RankingSpec:
    """Return the checked settings of ``[rankings.<name>]``; ``path`` and ``kind`` were read."""
    spec = RankingSpec(
        name=name, path=path, format=kind,
        table=section.text("table"),
        user=section.text("user", "user_id"),
        item=section.text("item", "item_id"),
        rank=section.text("rank", "rank"),
        items=section.text("items"),
        separator=section.text("separator", "|"),
        ids=section.choice("ids", section.text("ids", "text"), ("text", "integer")),
        position=section.text("position"),
        distance=section.text("distance"),
        confidence=section.text("confidence"),
        data_cutoff=section.text("data_cutoff", "unknown"),
        labels_seen=section.flag("labels_seen"),
        model=section.text("model"),
    )  # fmt: skip
    if spec.distance and spec.confidence:
        raise section.fault("confidence", "is set beside distance; keep one of them")
    if not spec.separator:
        raise section.fault("separator", "is empty; set what stands between two items of a list")
    section.finish()
    return spec
