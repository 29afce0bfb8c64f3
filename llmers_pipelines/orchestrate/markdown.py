"""Tables for the UI as Markdown: what comes from a catalog or a model is text there, no markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A picture in a title would be fetched by the browser of whoever opens the page.
_MARKUP = re.compile(r"[\\`*\[\]<>~|]|(?<!\w)_+|_+(?!\w)|&(?=#?\w+;)")
_WHOLE = re.compile(r"-?\d+\.0+")
_EMPTY = ("", "None", "null")
_KEYS = ("request_key", "prompt_revision")  # told by the lineage page
_WIDTHS = (60, 40, 24, 16)  # characters of a cell
_WORD = re.compile(r"\S{33,}")  # nothing to break it at: one such id pushes all else out of sight
_SAME = 40  # columns whose cells agree so far say the same
_ROWS = 3  # below which cells are rather made shorter
PLACE = 1000  # characters from which on the UI hides an entry behind a link


def plain(text: str) -> str:
    """Return ``text`` so that a Markdown table shows it word for word."""
    return _MARKUP.sub(lambda m: "".join(f"\\{c}" for c in m[0]), text)


def cut(text: str, most: int = 40) -> str:
    """Return ``text`` of at most so many characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def fitting(table: str, most: int = PLACE) -> str:
    """Return a table of rows that the UI shows in its place: fewer than ``most`` characters.

    ``table`` holds raw text between `` | ``. Columns that say nothing of their own are left out;
    cells get shorter before there are fewer than three rows. Where even one row is too long, all
    of it is returned.
    """
    lines = table.split("\n")
    given = [_cells(line) for line in (lines[0], *lines[2:])]
    wide = min(map(len, given))  # a bar in the name of a column makes the header longer
    columns = _telling(list(zip(*(cells[:wide] for cells in given), strict=True)))
    rows = list(zip(*columns, strict=True))
    for least in (min(_ROWS, len(rows) - 1), 1):
        for width in _WIDTHS:
            for count in range(len(rows), least, -1):
                if len(text := _table(rows[:count], width)) < most:
                    return text
    return _table(rows, len(table))


def _telling(columns: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the columns that say something of their own; the first one always."""
    found: list[tuple[str, ...]] = []
    for name, *cells in columns:
        if found and (name in _KEYS or all(c in _EMPTY for c in cells)):
            continue
        if any(c not in _EMPTY and len(c) > _SAME for c in cells) and any(
            [c[:_SAME] for c in cells] == [c[:_SAME] for c in other] for _, *other in found
        ):
            continue
        if all(_WHOLE.fullmatch(c) for c in cells if c not in _EMPTY):
            cells = [c.partition(".")[0] for c in cells]
        found.append((name, *cells))
    return found


def _cells(line: str) -> list[str]:
    return line[2:-2].split(" | ")


def _table(rows: Sequence[Sequence[str]], width: int) -> str:
    """Return ``rows``, the first of which is the header, with cells of at most ``width``."""
    shorter = [[_WORD.sub(lambda m: cut(m[0], 32), cell) for cell in row] for row in rows]
    lines = [f"| {' | '.join(plain(cut(c, width)) for c in row)} |" for row in shorter]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
