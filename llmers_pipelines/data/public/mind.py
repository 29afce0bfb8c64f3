"""MIND: news and impressions as tab-separated text without header or quotes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from .archives import open_raw
from .delimited import read_delimited
from .describe import PublicSet
from .lines import decode, read_lines
from .tables import Build, TableWriter
from .values import us_seconds

NEWS = ("news", "category", "subcategory", "title", "abstract", "url", "title_entities",
        "abstract_entities")  # fmt: skip
_SHOWN = re.compile(r"(\S+)-([01])")


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items, interactions (one row per news shown) and impressions.

    The parts repeat each other's news: the first record of an id is kept. The history that an
    impression carries was clicked before logging began; it stands in ``impressions`` alone.
    """
    items = build.table("items", item_id="text", title="text", abstract="text", category="text",
                        subcategory="text", url="text", title_entities="text",
                        abstract_entities="text")  # fmt: skip
    log = build.table("interactions", user_id="text", item_id="text", timestamp="int",
                      clicked="int", event="text", impression_id="text", split="text")  # fmt: skip
    shown = build.table("impressions", impression_id="text", user_id="text", timestamp="int",
                        history="text", shown="text", clicked="text", split="text")  # fmt: skip
    known: set[str] = set()  # one entry per news
    for file in source.files:
        part = file.name.removesuffix(".zip").rpartition("_")[2]
        with open_raw(raw, file.name, "news.tsv") as stream:
            _news(stream, f"{part}/news.tsv", known, items, build)
        with open_raw(raw, file.name, "behaviors.tsv") as stream:
            _behaviors(stream, part, log, shown, build)


def _news(stream: Any, file: str, known: set[str], items: TableWriter, build: Build) -> None:
    for block in read_delimited(stream, NEWS, "\t", "items", file, build.faults):
        block.need("news")
        ids = block.text("news").to_pylist()
        new = []
        for news in ids:
            new.append(news not in known)
            known.add(news)
        table = pa.table(
            {"item_id": pa.array(ids, pa.string()), "title": block.text("title"),
             "abstract": block.text("abstract"), "category": block.text("category"),
             "subcategory": block.text("subcategory"), "url": block.text("url"),
             "title_entities": block.text("title_entities"),
             "abstract_entities": block.text("abstract_entities")}
        )  # fmt: skip
        items.write(table.filter(pa.array(new, pa.bool_())))


def _behaviors(
    stream: Any, part: str, log: TableWriter, shown: TableWriter, build: Build
) -> None:  # fmt: skip
    file = f"{part}/behaviors.tsv"

    def refuse(row: int, column: str, value: str, reason: str) -> None:
        build.faults.note("interactions", file, row, column, value, reason)

    moments: dict[str, int | None] = {}
    for line in read_lines(stream):
        content, _ = decode(line.data, "utf-8")
        values = content.split("\t")
        if not line.whole or len(values) != 5:
            refuse(line.number, "", content, "malformed_row" if line.whole else "oversized_line")
            continue
        impression, user, when, history, candidates = values
        if not user.strip():
            refuse(line.number, "user", user, "null_id")
            continue
        if when not in moments:
            if len(moments) > 100_000:
                moments.clear()
            moments[when] = us_seconds(when)
        moment = moments[when]
        if moment is None:
            refuse(line.number, "time", when, "unparsable_time")
            continue
        name = f"{part}-{impression}"  # the parts count from 1 each
        names, clicks = [], []
        for candidate in candidates.split():
            match = _SHOWN.fullmatch(candidate)
            if match is None:  # the test part has no labels
                refuse(line.number, "impressions", candidate, "no_label")
                continue
            hit = match[2] == "1"
            names.append(match[1])
            clicks += [match[1]] if hit else []
            log.add(user, match[1], moment, int(hit), "click" if hit else "view", name, part)
        if names:
            shown.add(name, user, moment, "|".join(history.split()) or None, "|".join(names),
                      "|".join(clicks) or None, part)  # fmt: skip
