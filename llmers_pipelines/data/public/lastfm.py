"""Last.fm of the HetRec 2011 workshop: tab-separated files with headers, no time of listening."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from .archives import open_raw
from .delimited import Block, read_delimited
from .describe import PublicSet
from .tables import Build
from .values import plausible

TOP_TAGS = 10


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items (artists with their most used tags), interactions, tags and friends."""
    archive = source.files[0].name
    names = _tag_names(raw, archive, build)
    used = _tags(raw, archive, names, build)
    items = build.table("items", item_id="text", title="text", tags="text", url="text",
                        picture_url="text")  # fmt: skip
    columns = ("id", "name", "url", "pictureURL")
    with open_raw(raw, archive, "artists.dat") as stream:
        for block in _read(stream, columns, "items", "artists.dat", build):
            block.need("id")
            ids = block.text("id")
            top = [_top(used.get(i)) for i in ids.to_pylist()]
            items.write(
                pa.table({"item_id": ids, "title": block.text("name"),
                          "tags": pa.array(top, pa.string()), "url": block.text("url"),
                          "picture_url": block.text("pictureURL")})
            )  # fmt: skip
    log = build.table("interactions", user_id="text", item_id="text", listens="int")
    with open_raw(raw, archive, "user_artists.dat") as stream:
        columns = ("userID", "artistID", "weight")
        for block in _read(stream, columns, "interactions", "user_artists.dat", build):
            block.need("userID", "artistID")
            block.need_numbers("weight", "unparsable_number", whole=True)
            log.write(pa.table({"user_id": block.text("userID"), "item_id": block.text("artistID"),
                                "listens": block.numbers("weight", whole=True)}))  # fmt: skip
    friends = build.table("friends", user_id="text", friend_id="text")
    with open_raw(raw, archive, "user_friends.dat") as stream:
        for block in _read(stream, ("userID", "friendID"), "friends", "user_friends.dat", build):
            block.need("userID", "friendID")
            friends.write(pa.table({"user_id": block.text("userID"),
                                    "friend_id": block.text("friendID")}))  # fmt: skip


def _read(stream, columns: tuple[str, ...], table: str, file: str, build: Build):
    return read_delimited(stream, columns, "\t", table, file, build.faults, header=True)


def _tag_names(raw: Path, archive: str, build: Build) -> dict[str, str]:
    """Return tag id -> name. The file is Latin-1, unlike the others, which are UTF-8."""
    found: dict[str, str] = {}
    with open_raw(raw, archive, "tags.dat") as stream:
        for block in read_delimited(stream, ("tagID", "tagValue"), "\t", "tags", "tags.dat",
                                    build.faults, encoding="latin-1", header=True):  # fmt: skip
            block.need("tagID", "tagValue")
            found |= dict(zip(block.text("tagID").to_pylist(), block.text("tagValue").to_pylist(),
                              strict=True))  # fmt: skip
    return found


def _tags(
    raw: Path, archive: str, names: dict[str, str], build: Build
) -> defaultdict[str, Counter[str]]:  # fmt: skip
    """Write who tagged what when, and return artist -> how often each tag was given."""
    used: defaultdict[str, Counter[str]] = defaultdict(Counter)
    out = build.table("tags", user_id="text", item_id="text", tag="text", timestamp="int")
    columns = ("userID", "artistID", "tagID", "timestamp")
    file = "user_taggedartists-timestamps.dat"
    with open_raw(raw, archive, file) as stream:
        for block in _read(stream, columns, "tags", file, build):
            block.need("userID", "artistID")
            known = np.array([t in names for t in block.text("tagID").to_pylist()], bool)
            block.drop(~known, "tagID", "unknown_code")
            block.need_numbers("timestamp", "unparsable_time", whole=True)
            _write_tags(block, names, used, out)
    return used


def _write_tags(
    block: Block, names: dict[str, str], used: defaultdict[str, Counter[str]], out
) -> None:  # fmt: skip
    artists = block.text("artistID").to_pylist()
    tags = [names[t] for t in block.text("tagID").to_pylist()]
    moments: list[int | None] = []
    values = block.numbers("timestamp", whole=True).to_pylist()
    for artist, tag, row, value in zip(artists, tags, block.rows.tolist(), values, strict=True):
        used[artist][tag] += 1
        moment = value // 1000  # the file counts milliseconds
        if not plausible(moment):  # a few lie before 1970
            block.faults.note(block.table, block.file, row, "timestamp", value,
                              "implausible_time", "cleared")  # fmt: skip
            moment = None
        moments.append(moment)
    out.write(pa.table({"user_id": block.text("userID"), "item_id": pa.array(artists, pa.string()),
                        "tag": pa.array(tags, pa.string()),
                        "timestamp": pa.array(moments, pa.int64())}))  # fmt: skip


def _top(used: Counter[str] | None) -> str | None:
    if not used:
        return None
    ranked = sorted(used, key=lambda tag: (-used[tag], tag))
    return "|".join(t.replace("|", "/") for t in ranked[:TOP_TAGS])
