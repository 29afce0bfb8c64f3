"""MovieLens from 2015 on (20M, 32M, latest): csv files with headers, UTF-8."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from .archives import open_raw
from .delimited import read_delimited, read_quoted
from .describe import PublicSet
from .tables import Build

RATINGS = ("userId", "movieId", "rating", "timestamp")
MOVIES = ("movieId", "title", "genres")
LINKS = ("movieId", "imdbId", "tmdbId")
TAGS = ("userId", "movieId", "tag", "timestamp")


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items (with IMDb and TMDB ids), interactions and tags."""
    archive, folder = source.files[0].name, source.options["folder"]
    links: dict[str, tuple[str | None, str | None]] = {}  # one entry per film
    with open_raw(raw, archive, f"{folder}/links.csv") as stream:
        for _, (movie, imdb, tmdb) in read_quoted(stream, LINKS, "items", "links.csv",
                                                  build.faults):  # fmt: skip
            links[movie] = (imdb or None, tmdb or None)
    items = build.table("items", item_id="text", title="text", genres="text", imdb_id="text",
                        tmdb_id="text")  # fmt: skip
    with open_raw(raw, archive, f"{folder}/movies.csv") as stream:
        for row, (movie, title, genres) in read_quoted(stream, MOVIES, "items", "movies.csv",
                                                       build.faults):  # fmt: skip
            if not movie.strip():
                build.faults.note("items", "movies.csv", row, "movieId", movie, "null_id")
                continue
            items.add(movie, title or None, genres or None, *links.get(movie, (None, None)))
    with open_raw(raw, archive, f"{folder}/ratings.csv") as stream:
        write_ratings(stream, RATINGS, ",", "ratings.csv", build, header=True)
    tags = build.table("tags", user_id="text", item_id="text", tag="text", timestamp="int")
    with open_raw(raw, archive, f"{folder}/tags.csv") as stream:
        for row, (user, movie, tag, when) in read_quoted(stream, TAGS, "tags", "tags.csv",
                                                         build.faults):  # fmt: skip
            if not when.strip().isdigit():
                build.faults.note("tags", "tags.csv", row, "timestamp", when, "unparsable_time")
                continue
            tags.add(user, movie, tag or None, int(when))


def write_ratings(
    stream, names: tuple[str, ...], delimiter: str, file: str, build: Build, *, header: bool
) -> None:  # fmt: skip
    """Write interactions from columns user, item, rating, time (in this order) of ``stream``."""
    user, item, rating, when = names
    out = build.table("interactions", user_id="text", item_id="text", rating="float",
                      timestamp="int")  # fmt: skip
    for block in read_delimited(stream, names, delimiter, "interactions", file, build.faults,
                                header=header):  # fmt: skip
        block.need(user, item)
        block.need_numbers(rating, "unparsable_rating")
        block.need_numbers(when, "unparsable_time", whole=True)
        out.write(
            pa.table(
                {"user_id": block.text(user), "item_id": block.text(item),
                 "rating": block.numbers(rating), "timestamp": block.numbers(when, whole=True)}
            )
        )  # fmt: skip
