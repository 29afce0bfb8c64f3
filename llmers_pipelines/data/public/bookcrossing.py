"""Book-Crossing: semicolons, quotes escaped by backslashes, Latin-1, and a few broken records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .archives import open_raw
from .delimited import check_header
from .describe import PublicSet
from .lines import read_lines
from .tables import Build, Faults
from .values import text

_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"(?=;|$)|([^";]*)(?=;|$)', re.DOTALL)
_ISBN = re.compile(r"[^0-9A-Za-z]")
MAX_LINES = 20  # that one record may span
LOWEST_AGE, HIGHEST_AGE = 5, 100
LATEST_YEAR = 2004  # of the crawl

USERS = ("User-ID", "Location", "Age")
BOOKS = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-S",
         "Image-URL-M", "Image-URL-L")  # fmt: skip
RATINGS = ("User-ID", "ISBN", "Book-Rating")


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items, users and interactions. A rating of 0 is an implicit one: it becomes null."""
    archive = source.files[0].name
    items = build.table("items", item_id="text", title="text", author="text", year="text",
                        publisher="text", image_url="text")  # fmt: skip
    with open_raw(raw, archive, "BX-Books.csv") as stream:
        for row, values in _records(stream, BOOKS, "items", "BX-Books.csv", build.faults):
            isbn = _isbn(values[0], "items", "BX-Books.csv", row, build.faults)
            if isbn:
                year = values[3] if values[3].isdigit() and int(values[3]) > 0 else None
                if year is None or int(year) > LATEST_YEAR:
                    if values[3] != "0":
                        build.faults.note("items", "BX-Books.csv", row, BOOKS[3], values[3],
                                          "implausible_year", "cleared")  # fmt: skip
                    year = None
                items.add(isbn, text(values[1]), text(values[2]), year, text(values[4]),
                          text(values[7]))  # fmt: skip
    _users(raw, archive, build)
    log = build.table("interactions", user_id="text", item_id="text", rating="float",
                      event="text")  # fmt: skip
    file = "BX-Book-Ratings.csv"
    with open_raw(raw, archive, file) as stream:
        for row, (user, isbn, rating) in _records(stream, RATINGS, "interactions", file,
                                                  build.faults):  # fmt: skip
            if not user.strip().isdigit():
                build.faults.note("interactions", file, row, RATINGS[0], user, "null_id")
                continue
            if not rating.isdigit() or int(rating) > 10:
                build.faults.note("interactions", file, row, RATINGS[2], rating,
                                  "unparsable_rating")  # fmt: skip
                continue
            item = _isbn(isbn, "interactions", file, row, build.faults)
            if item:
                stars = int(rating)
                log.add(user.strip(), item, stars or None, "explicit" if stars else "implicit")


def _users(raw: Path, archive: str, build: Build) -> None:
    users = build.table("users", user_id="text", location="text", country="text", age="int")
    file = "BX-Users.csv"
    with open_raw(raw, archive, file) as stream:
        for row, (user, location, age) in _records(stream, USERS, "users", file, build.faults):
            if not user.strip().isdigit():
                build.faults.note("users", file, row, USERS[0], user, "null_id")
                continue
            years = int(age) if age.isdigit() else None
            if age != "NULL" and (years is None or not LOWEST_AGE <= years <= HIGHEST_AGE):
                build.faults.note("users", file, row, USERS[2], age, "implausible_age", "cleared")
                years = None
            place = text(location)
            country = text(place.rpartition(",")[2]) if place else None
            users.add(user.strip(), place, None if country == "n/a" else country, years)


def _isbn(value: str, table: str, file: str, row: int, faults: Faults) -> str | None:
    """Return the ISBN in one spelling; what is empty without stray characters is refused."""
    plain = _ISBN.sub("", value).upper()
    if not plain:
        faults.note(table, file, row, "ISBN", value, "null_id")
        return None
    if plain != value.strip() and plain != value.strip().upper():
        faults.note(table, file, row, "ISBN", value, "stray_characters", "mended")
    return plain


def _records(
    stream: BinaryIO, names: tuple[str, ...], table: str, file: str, faults: Faults
) -> Iterator[tuple[int, list[str]]]:
    """Yield (row from 1, values). A record may span lines: a line break inside of quotes."""
    pending, row, waiting = "", 0, 0
    for line in read_lines(stream):
        content = line.data.decode("latin-1")
        if line.number == 1:
            check_header(content.split(";"), names, file)
            continue
        values = _values(content)
        if pending:
            if values is None or len(values) != len(names):
                content = f"{pending}\n{content}"
                values = _values(content)
            else:  # a record of its own: the one before was never closed
                row += 1
                faults.note(table, file, row, "", pending, "malformed_row")
                pending, waiting = "", 0
        elif not content:
            continue
        if values is None and waiting < MAX_LINES:
            pending, waiting = content, waiting + 1
            continue
        row += 1
        pending, waiting = "", 0
        values = _repaired(values, names, table, file, row, faults) if values else None
        if values is None:
            faults.note(table, file, row, "", content, "malformed_row")
        else:
            yield row, values
    if pending:
        faults.note(table, file, row + 1, "", pending, "malformed_row")


def _values(record: str) -> list[str] | None:
    """Return the values of a record, ``None`` where its quotes do not match."""
    values, at = [], 0
    while True:
        match = _VALUE.match(record, at)
        if match is None:
            return None
        quoted, plain = match.groups()
        values.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
        at = match.end()
        if at >= len(record):
            return values
        at += 1  # the semicolon


def _repaired(
    values: list[str], names: tuple[str, ...], table: str, file: str, row: int, faults: Faults
) -> list[str] | None:
    """Return ``values`` with the right number, or ``None``.

    Three books have title and author in one value, joined by a quote and a semicolon that were
    escaped by mistake: all later values stand one column too far left.
    """
    if len(values) == len(names):
        return values
    if names is BOOKS and len(values) == len(names) - 1 and '";' in values[1]:
        title, _, author = values[1].partition('";')
        faults.note(table, file, row, names[1], values[1], "shifted_columns", "mended")
        return [values[0], title, author.strip('"'), *values[2:]]
    return None
