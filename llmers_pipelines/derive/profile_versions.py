"""Profiles in versions: the newest accepted one counts, and what a pair's judge reads (LLMHD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ..data.text import ACCEPTED
from .derivation import DerivedTable, Given


def accepted_texts(table: pa.Table, key: str) -> dict[str, str]:
    """Return id -> text of the accepted answers of a table."""
    columns = (table[c].to_pylist() for c in (key, "text", "status"))
    return {i: t for i, t, s in zip(*columns, strict=True) if s in ACCEPTED and t}


def answers_in(sources: Sequence[Any]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return (item texts, user texts by version, oldest first) among the tables of answers."""
    tables = [s for s in sources if isinstance(s, pa.Table) and "request_key" in s.column_names]
    items: dict[str, str] = {}
    users: list[dict[str, str]] = []
    for table in tables:
        if "user_id" in table.column_names:
            users.append(accepted_texts(table, "user_id"))
        else:
            items |= accepted_texts(table, "item_id")
    return items, users


def newest(versions: Sequence[dict[str, str]], user: str) -> tuple[str, int]:
    """Return the newest text of ``user`` and its version from 1; "" and 0 where there is none."""
    for number in range(len(versions), 0, -1):
        if text := versions[number - 1].get(user):
            return text, number
    return "", 0


@dataclass(frozen=True)
class PairTexts(DerivedTable):
    """The pairs of a table with ``profile``, ``profile_version`` and ``item_text``.

    Sources: the answers about users, oldest version first, those about items, and the pairs.
    A user whose profile a later version does not rewrite keeps the earlier one, so that questions
    about that user read as before and are not asked again. What has no text is "".
    """

    rows: ClassVar[str] = "pairs"

    round: int = 1

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        pairs = given.table("pair_id")
        items, versions = answers_in(given.sources)
        told = [newest(versions, user) for user in pairs["user_id"].to_pylist()]
        texts = [items.get(item, "") for item in pairs["item_id"].to_pylist()]
        table = pairs.append_column("profile", pa.array([t for t, _ in told], pa.string()))
        table = table.append_column("profile_version", pa.array([n for _, n in told], pa.int32()))
        table = table.append_column("item_text", pa.array(texts, pa.string()))
        untold = sum(not t for t, _ in told), sum(not t for t in texts)
        return table, {"pairs": pairs.num_rows, "without_profile": untold[0],
                       "without_item_text": untold[1],
                       "newest_version": max((n for _, n in told), default=0)}  # fmt: skip
