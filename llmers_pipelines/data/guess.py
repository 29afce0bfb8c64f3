"""Guesses for a new data set: which column is which, and what kind its values are."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from .ids import bytes_as_text, is_bytes
from .schema import EVENT, ITEM_ID, POSITION, RATING, TIMESTAMP, TITLE, USER_ID
from .validate import to_numbers

# Names in order of preference, compared without case, spaces, dots and underscores.
NAMES: dict[str, tuple[str, ...]] = {
    ITEM_ID: (
        "itemid", "item", "parentasin", "asin", "productid", "sku", "articleid", "movieid",
        "bookid", "isbn", "trackid", "songid", "newsid", "gameid", "businessid", "recipeid",
        "docid", "iid", "id",
    ),
    USER_ID: (
        "userid", "user", "reviewerid", "customerid", "memberid", "visitorid", "accountid",
        "householdid", "clientid", "sessionid", "uid",
    ),
    RATING: ("rating", "ratings", "stars", "overall", "score", "rate"),
    TIMESTAMP: (
        "timestamp", "when", "orderedat", "unixreviewtime", "unixtime", "time", "datetime", "date",
        "createdat", "eventtime", "ts", "reviewtime", "purchasedate", "orderdate",
    ),
    POSITION: ("position", "order", "seq", "sequence", "step"),
    EVENT: ("event", "eventtype", "behavior", "behaviour", "action", "interactiontype"),
    TITLE: (
        "title", "name", "productname", "producttitle", "itemname", "itemtitle", "movietitle",
        "booktitle", "trackname", "headline",
    ),
}  # fmt: skip
ITEM_COLUMNS = (ITEM_ID, TITLE)
USER_COLUMNS = (USER_ID,)
LOG_COLUMNS = (USER_ID, ITEM_ID, RATING, TIMESTAMP, POSITION, EVENT)
_SEPARATORS = ("|", ";", ",")
_SAMPLE = 2000
_SLIPS = 0.02  # share of unreadable values that a column of numbers may have


def guess_columns(
    names: Sequence[str], wanted: Sequence[str], given: dict[str, str] | None = None
) -> dict[str, str]:
    """Return our name -> column for what can be told from names; ``given`` choices win."""
    given = dict(given or {})
    plain = {re.sub(r"[\W_]", "", n.lower()): n for n in reversed(names)}
    found = dict(given)
    for ours in wanted:
        free = {k: v for k, v in plain.items() if v not in found.values()}
        if ours not in found and (match := next((c for c in NAMES[ours] if c in free), None)):
            found[ours] = free[match]
    if TIMESTAMP in found and POSITION not in given:
        found.pop(POSITION, None)
    return found


def guess_fields(table: pa.Table, skip: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return column -> kind and separator for the columns of ``table`` outside ``skip``.

    Columns that look like ids, addresses or are empty are left out.
    """
    table = table.slice(0, _SAMPLE)
    guesses = {}
    for name in table.column_names:
        if name in skip or re.search(r"(^|_)(id|row)$|url|link", name.lower()):
            continue
        if (guess := _kind(table[name])) is not None:
            guesses[name] = guess
    return guesses


def _kind(column: pa.ChunkedArray) -> dict[str, str] | None:
    if is_bytes(column.type):
        column = bytes_as_text(column)
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"kind": "category", "separator": "|"}
    if pa.types.is_nested(kind) or pa.types.is_temporal(kind) or pa.types.is_boolean(kind):
        return {"kind": "category"} if pa.types.is_boolean(kind) else None
    values = column.drop_null()
    if not len(values):
        return None
    distinct = pc.count_distinct(values).as_py()
    _, bad = to_numbers(values)
    if bad.mean() <= _SLIPS and not bad.all():  # validation clears and counts the slips
        return {"kind": "number"} if distinct > 20 else {"kind": "category"}
    text = pc.cast(values, pa.string())
    length = pc.mean(pc.utf8_length(text)).as_py()
    pictures = pc.match_substring_regex(text, r"(?i)\.(jpe?g|png|webp)$")
    if length < 200 and pc.mean(pictures).as_py() > 0.5:
        return {"kind": "image"}
    for separator in _SEPARATORS:
        if _is_list(text, separator, length):
            return {"kind": "category", "separator": separator}
    if length <= 40 and distinct <= max(20, len(values) // 2):
        return {"kind": "category"}
    return {"kind": "text"}


def _is_list(text: pa.ChunkedArray, separator: str, length: float) -> bool:
    """Short parts that repeat between rows are a list of values; prose is not."""
    holds = pc.mean(pc.cast(pc.match_substring(text, separator), pa.int8())).as_py()
    if holds < 0.2 or length > 120:
        return False
    parts = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(text, separator)))
    repeats = pc.count_distinct(parts).as_py() <= len(parts) / 2
    words = pc.mean(pc.add(pc.count_substring(parts, " "), 1)).as_py()
    return repeats and words <= 2.5
