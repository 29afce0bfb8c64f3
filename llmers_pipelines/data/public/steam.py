"""Steam of the UCSD group: reviews and games, one Python literal per line."""

from __future__ import annotations

from pathlib import Path

from .archives import open_raw
from .describe import PublicSet
from .records import read_records
from .tables import Build
from .values import flag, identifier, iso_seconds, number, plausible, text, words


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items and interactions, and the review texts where they are asked for.

    A user is a name, as in the published counts: most records lack ``user_id``, which stands in
    ``steam_id`` where there is one. Days have no time; reviews of one day keep their order.
    """
    reviews, games = (f.name for f in source.files)
    items = build.table("items", item_id="text", title="text", genres="text", tags="text",
                        specs="text", developer="text", publisher="text", release_date="text",
                        price="float", url="text", early_access="flag")  # fmt: skip
    with open_raw(raw, games) as stream:
        for row, game in read_records(stream, "items", games, build.faults, literal=True):
            item = identifier(game.get("id"))
            if item is None:
                build.faults.note("items", games, row, "id", game.get("id"), "null_id")
                continue
            items.add(
                item, text(game.get("title")) or text(game.get("app_name")),
                words(game.get("genres")), words(game.get("tags")), words(game.get("specs")),
                text(game.get("developer")), text(game.get("publisher")),
                text(game.get("release_date")), number(game.get("price")), text(game.get("url")),
                flag(game.get("early_access")),
            )  # fmt: skip
    log = build.table("interactions", user_id="text", item_id="text", timestamp="int",
                      hours="float", early_access="flag", free="flag", steam_id="text",
                      source_row="int")  # fmt: skip
    texts = None
    if build.reviews:
        texts = build.table("reviews", user_id="text", item_id="text", timestamp="int", text="text")
    with open_raw(raw, reviews) as stream:
        for row, review in read_records(stream, "interactions", reviews, build.faults,
                                        literal=True):  # fmt: skip
            user, item = identifier(review.get("username")), identifier(review.get("product_id"))
            moment = iso_seconds(review.get("date"))
            fault = (
                ("username", "null_id") if user is None
                else ("product_id", "null_id") if item is None
                else ("date", "unparsable_time") if moment is None
                else ("date", "implausible_time") if not plausible(moment)
                else None
            )  # fmt: skip
            if fault:
                key, reason = fault
                build.faults.note("interactions", reviews, row, key, review.get(key), reason)
                continue
            log.add(user, item, moment, number(review.get("hours")),
                    flag(review.get("early_access")), review.get("compensation") is not None,
                    identifier(review.get("user_id")), row)  # fmt: skip
            if texts:
                texts.add(user, item, moment, text(review.get("text")))
