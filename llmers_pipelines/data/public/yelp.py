"""Yelp open data set: businesses, users and reviews, one JSON object per line, in a tar."""

from __future__ import annotations

from pathlib import Path

from .archives import open_raw
from .describe import PublicSet
from .records import read_records
from .tables import Build
from .values import identifier, iso_seconds, number, text, whole, words

_FILE = "yelp_academic_dataset_{}.json"


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items (businesses), users and interactions, and review texts where asked for.

    Average stars and review counts are sums over the whole log, test rows included: they stand in
    the tables, but the description declares no field for them. Names and friends are left out.
    """
    archive = source.files[0].name
    _businesses(raw, archive, build)
    _users(raw, archive, build)
    _reviews(raw, archive, build)


def _businesses(raw: Path, archive: str, build: Build) -> None:
    items = build.table("items", item_id="text", title="text", categories="text", city="text",
                        state="text", latitude="float", longitude="float", price_range="text",
                        average_stars="float", review_count="int", is_open="int")  # fmt: skip
    file = _FILE.format("business")
    with open_raw(raw, archive, file) as stream:
        for row, record in read_records(stream, "items", file, build.faults):
            item = identifier(record.get("business_id"))
            if item is None:
                build.faults.note("items", file, row, "business_id", record.get("business_id"),
                                  "null_id")  # fmt: skip
                continue
            listed = record.get("categories")  # one string, or null
            names = [c.strip() for c in listed.split(",")] if isinstance(listed, str) else None
            attributes = record.get("attributes")  # an object, or null
            price = attributes.get("RestaurantsPriceRange2") if isinstance(attributes, dict) else ""
            items.add(item, text(record.get("name")), words(names), text(record.get("city")),
                      text(record.get("state")), number(record.get("latitude")),
                      number(record.get("longitude")),
                      str(price) if price in ("1", "2", "3", "4") else None,
                      number(record.get("stars")), whole(record.get("review_count")),
                      whole(record.get("is_open")))  # fmt: skip


def _users(raw: Path, archive: str, build: Build) -> None:
    users = build.table("users", user_id="text", yelping_since="text", elite="text",
                        review_count="int", fans="int", average_stars="float")  # fmt: skip
    file = _FILE.format("user")
    with open_raw(raw, archive, file) as stream:
        for row, record in read_records(stream, "users", file, build.faults):
            user = identifier(record.get("user_id"))
            if user is None:
                build.faults.note("users", file, row, "user_id", record.get("user_id"), "null_id")
                continue
            elite = text(record.get("elite"))
            years = elite.replace("20,20", "2020").split(",") if elite else None  # sic: "20,20"
            users.add(user, text(record.get("yelping_since")), words(years),
                      whole(record.get("review_count")), whole(record.get("fans")),
                      number(record.get("average_stars")))  # fmt: skip


def _reviews(raw: Path, archive: str, build: Build) -> None:
    log = build.table("interactions", user_id="text", item_id="text", rating="float",
                      timestamp="int", useful="int", funny="int", cool="int")  # fmt: skip
    texts = None
    if build.reviews:
        texts = build.table("reviews", user_id="text", item_id="text", timestamp="int", text="text")
    file = _FILE.format("review")
    with open_raw(raw, archive, file) as stream:
        for row, record in read_records(stream, "interactions", file, build.faults):
            user = identifier(record.get("user_id"))
            item = identifier(record.get("business_id"))
            stars, moment = number(record.get("stars")), iso_seconds(record.get("date"))
            fault = (
                ("user_id", "null_id") if user is None
                else ("business_id", "null_id") if item is None
                else ("stars", "unparsable_rating") if stars is None
                else ("date", "unparsable_time") if moment is None
                else None
            )  # fmt: skip
            if fault:
                key, reason = fault
                build.faults.note("interactions", file, row, key, record.get(key), reason)
                continue
            log.add(user, item, stars, moment, whole(record.get("useful")),
                    whole(record.get("funny")), whole(record.get("cool")))  # fmt: skip
            if texts:
                texts.add(user, item, moment, text(record.get("text")))
