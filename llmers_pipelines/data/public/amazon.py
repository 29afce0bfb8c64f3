"""Amazon reviews of 2014, 2018 and 2023: one record per line; the metadata of 2014 are literals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .archives import open_raw
from .describe import PublicSet
from .records import read_records
from .tables import Build, TableWriter
from .values import flag, identifier, number, plausible, seconds, text, whole, without_tags, words

_SCRIPT = ("getTime", "aPageStart", "function(", "P.when(", ".a-box-inner")  # scraped page code
_REVIEW = {
    # ours -> theirs, by edition; several where the publisher changed the name
    "2014": {"user": ("reviewerID",), "item": ("asin",), "rating": ("overall",),
             "time": ("unixReviewTime",), "title": ("summary",), "text": ("reviewText",),
             "helpful": ("helpful",)},
    "2018": {"user": ("reviewerID",), "item": ("asin",), "rating": ("overall",),
             "time": ("unixReviewTime",), "title": ("summary",), "text": ("reviewText",),
             "verified": ("verified",), "helpful": ("vote",)},
    "2023": {"user": ("user_id",), "item": ("parent_asin",), "rating": ("rating",),
             "time": ("timestamp", "sort_timestamp"), "title": ("title",), "text": ("text",),
             "verified": ("verified_purchase",), "helpful": ("helpful_vote", "helpful_votes")},
}  # fmt: skip


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items and interactions, and the review texts where they are asked for."""
    edition = source.options["edition"]
    reviews, metadata = (f.name for f in source.files)
    _items(raw, metadata, edition, build)
    _interactions(raw, reviews, edition, build)


def _interactions(raw: Path, file: str, edition: str, build: Build) -> None:
    names = _REVIEW[edition]
    unit = 1000 if edition == "2023" else 1  # milliseconds
    log = build.table("interactions", user_id="text", item_id="text", rating="float",
                      timestamp="int", verified="flag", helpful="int",
                      source_row="int")  # fmt: skip
    texts = _review_table(build) if build.reviews else None
    with open_raw(raw, file) as stream:
        for row, record in read_records(stream, "interactions", file, build.faults, literal=True):

            def take(key: str, record: dict[str, Any] = record) -> Any:
                return next((record[n] for n in names.get(key, ()) if n in record), None)

            user, item = identifier(take("user")), identifier(take("item"))
            rating, moment = number(take("rating")), seconds(take("time"), unit=unit)
            fault = _fault(user, item, rating, moment)
            if fault:
                key, reason = fault
                build.faults.note("interactions", file, row, names[key][0], take(key), reason)
                continue
            helpful = take("helpful")
            if isinstance(helpful, list):
                helpful = next(iter(helpful), None)  # 2014: [helpful, all votes]
            log.add(user, item, rating, moment, flag(take("verified")), whole(helpful), row)
            if texts:
                texts.add(user, item, moment, text(take("title")),
                          without_tags(text(take("text"))))  # fmt: skip


def _review_table(build: Build) -> TableWriter:
    return build.table("reviews", user_id="text", item_id="text", timestamp="int", title="text",
                       text="text")  # fmt: skip


def _fault(
    user: str | None, item: str | None, rating: float | None, moment: int | None
) -> tuple[str, str] | None:
    """Return (key, reason) of the first thing that a review lacks."""
    if user is None:
        return "user", "null_id"
    if item is None:
        return "item", "null_id"
    if rating is None:
        return "rating", "unparsable_rating"
    if moment is None:
        return "time", "unparsable_time"
    return None if plausible(moment) else ("time", "implausible_time")


def _items(raw: Path, file: str, edition: str, build: Build) -> None:
    items = build.table("items", item_id="text", title="text", brand="text", categories="text",
                        price="float", features="text", description="text", image_url="text",
                        average_rating="float")  # fmt: skip
    key = "parent_asin" if edition == "2023" else "asin"
    with open_raw(raw, file) as stream:
        for row, record in read_records(stream, "items", file, build.faults, literal=True):
            item = identifier(record.get(key))
            if item is None:
                build.faults.note("items", file, row, key, record.get(key), "null_id")
                continue
            items.add(item, _title(record, row, file, build), *_facts(record, edition))


def _title(record: dict[str, Any], row: int, file: str, build: Build) -> str | None:
    """Return the title in plain text; page code that was scraped as a title is cleared."""
    title = text(record.get("title"))
    if title is None:
        return None
    if any(mark in title for mark in _SCRIPT):
        build.faults.note("items", file, row, "title", title, "html_title", "cleared")
        return None
    plain = without_tags(title)
    if plain != title:
        build.faults.note("items", file, row, "title", title, "html_title", "mended")
    return plain


def _facts(record: dict[str, Any], edition: str) -> tuple[Any, ...]:
    """Return brand, categories, price, features, description, image and average rating."""
    if edition == "2014":
        nested = record.get("categories")
        paths = nested if isinstance(nested, list) else []
        flat = [name for path in paths if isinstance(path, list) for name in path]
        return (text(record.get("brand")), words(flat), number(record.get("price")), None,
                without_tags(text(record.get("description"))), text(record.get("imUrl")),
                None)  # fmt: skip
    if edition == "2018":
        image = record.get("imageURLHighRes") or record.get("imageURL") or record.get("image")
        return (text(record.get("brand")), words(record.get("category")),
                number(record.get("price")), without_tags(text(record.get("feature"))),
                without_tags(text(record.get("description"))), _first(image), None)  # fmt: skip
    images = record.get("images")
    first = images[0] if isinstance(images, list) and images else None
    image = (first.get("large") or first.get("thumb")) if isinstance(first, dict) else None
    return (text(record.get("store")), words(record.get("categories") or
            record.get("main_category")), number(record.get("price")),
            without_tags(text(record.get("features"))),
            without_tags(text(record.get("description"))), text(image),
            number(record.get("average_rating")))  # fmt: skip


def _first(value: Any) -> str | None:
    return text(next(iter(value), None)) if isinstance(value, list) else text(value)
