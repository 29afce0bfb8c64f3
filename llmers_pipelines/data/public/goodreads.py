"""Goodreads book graph of the UCSD group, by genre: books and shelf events, one object per line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .archives import open_raw
from .describe import PublicSet
from .records import read_records
from .tables import Build
from .values import (
    flag,
    identifier,
    number,
    plausible,
    ruby_seconds,
    text,
    whole,
    without_tags,
    words,
)

TOP_SHELVES = 10
# Shelves that say what a reader did, not what the book is.
_READER_SHELVES = {
    "to-read", "currently-reading", "read", "owned", "books-i-own", "favorites", "favourites",
    "default", "my-books", "wish-list", "library", "kindle", "ebook", "ebooks", "audiobook",
    "audiobooks", "to-buy", "owned-books", "i-own", "re-read", "dnf",
}  # fmt: skip


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items and interactions. A rating of 0 means that none was given, and becomes null."""
    books, log_file = (f.name for f in source.files)
    items = build.table("items", item_id="text", title="text", description="text", shelves="text",
                        series="text", author_ids="text", publisher="text", year="text",
                        pages="int", language="text", is_ebook="flag", isbn="text", work_id="text",
                        image_url="text", average_rating="float", ratings_count="int")  # fmt: skip
    with open_raw(raw, books) as stream:
        for row, book in read_records(stream, "items", books, build.faults):
            item = identifier(book.get("book_id"))
            if item is None:
                build.faults.note("items", books, row, "book_id", book.get("book_id"), "null_id")
                continue
            items.add(
                item, text(book.get("title")) or text(book.get("title_without_series")),
                without_tags(text(book.get("description"))), _shelves(book.get("popular_shelves")),
                words(book.get("series")), _authors(book.get("authors")),
                text(book.get("publisher")), text(book.get("publication_year")),
                whole(book.get("num_pages")), text(book.get("language_code")),
                flag(book.get("is_ebook")), text(book.get("isbn13")) or text(book.get("isbn")),
                text(book.get("work_id")), text(book.get("image_url")),
                number(book.get("average_rating")), whole(book.get("ratings_count")),
            )  # fmt: skip
    log = build.table("interactions", user_id="text", item_id="text", rating="float",
                      timestamp="int", event="text")  # fmt: skip
    with open_raw(raw, log_file) as stream:
        for row, event in read_records(stream, "interactions", log_file, build.faults):
            user, item = identifier(event.get("user_id")), identifier(event.get("book_id"))
            moment = ruby_seconds(event.get("date_added"))
            rating = number(event.get("rating"))
            fault = (
                ("user_id", "null_id") if user is None
                else ("book_id", "null_id") if item is None
                else ("rating", "unparsable_rating") if rating is None
                else ("date_added", "unparsable_time") if moment is None
                else ("date_added", "implausible_time") if not plausible(moment)
                else None
            )  # fmt: skip
            if fault:
                key, reason = fault
                build.faults.note("interactions", log_file, row, key, event.get(key), reason)
                continue
            read = flag(event.get("is_read"))
            log.add(user, item, rating or None, moment, "read" if read else "shelved")


def _shelves(value: Any) -> str | None:
    """Return the names of the most used shelves that describe the book."""
    if not isinstance(value, list):
        return None
    names = [s.get("name") for s in value if isinstance(s, dict)]  # ordered by use in the file
    told = [n for n in names if isinstance(n, str) and n and n not in _READER_SHELVES]
    return words(told[:TOP_SHELVES])


def _authors(value: Any) -> str | None:
    if not isinstance(value, list):
        return None
    return words([a.get("author_id") for a in value if isinstance(a, dict)])
