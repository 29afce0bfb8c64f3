"""Peak memory and time of parsing a public data set, at growing sizes.

    python benchmarks/public_parse.py [--kind amazon|movielens|steam|mind] [--rows 1000000 5000000]

Writes files in the published format (gzip or zip) with pseudo-random content, then fetches the set
from them, one new process per size, and prints rows, plain bytes, seconds and the peak resident
memory of the process, which must not grow with the rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import random
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from peak_memory import peak_mb

from llmers_pipelines.data.public import describe
from llmers_pipelines.data.public.fetch import fetch_public

SETS = {"amazon": ("amazon_2023", "Books"), "movielens": ("movielens_32m", ""),
        "steam": ("steam", ""), "mind": ("mind_small", "")}  # fmt: skip
ITEMS = 100_000
WORDS = ("the", "a", "of", "story", "film", "book", "light", "dark", "great", "slow", "plain")


def text(draw: random.Random, n: int) -> str:
    return " ".join(draw.choices(WORDS, k=n))


def amazon(rows: int, folder: Path) -> int:
    """About 400 bytes a review, as in the genuine files; a tenth as many products."""
    draw = random.Random(0)
    phrases = [text(draw, 40) for _ in range(2000)]

    def reviews() -> Iterator[str]:
        for n in range(rows):
            yield (
                f'{{"rating": {1 + n % 5}.0, "title": "Review {n}", "text": "{phrases[n % 2000]}", '
                f'"images": [], "asin": "B{n % ITEMS:09d}", "parent_asin": "B{n % ITEMS:09d}", '
                f'"user_id": "AE{n * 7919 % (rows // 4 + 1):026d}", "timestamp": '
                f'{1_400_000_000_000 + n * 1000}, "helpful_vote": {n % 7}, '
                '"verified_purchase": true}\n'
            )

    def products() -> Iterator[str]:
        for n in range(ITEMS):
            yield json.dumps(
                {"main_category": "Books", "title": f"Book {n}", "average_rating": 4.5,
                 "features": [phrases[n % 2000]], "description": [phrases[n % 1999]],
                 "price": 9.99, "images": [], "store": "A", "categories": ["Books", "Fiction"],
                 "details": {}, "parent_asin": f"B{n:09d}"}
            ) + "\n"  # fmt: skip

    return gz(folder / "Books.jsonl.gz", reviews()) + gz(folder / "meta_Books.jsonl.gz", products())


def steam(rows: int, folder: Path) -> int:
    """Python literals: the slow format."""
    draw = random.Random(0)
    phrases = [text(draw, 40) for _ in range(2000)]
    reviews = (
        f"{{u'username': u'user {n % (rows // 4 + 1)}', u'hours': {n % 99}.5, u'product_id': "
        f"u'{n % 15000}', u'page_order': 0, u'date': u'20{10 + n % 8}-0{1 + n % 9}-1{n % 10}', "
        f"u'text': u'{phrases[n % 2000]}', u'early_access': False, u'page': 1}}\n"
        for n in range(rows)
    )
    games = (f"{{u'id': u'{n}', u'title': u'Game {n}', u'genres': [u'Action'], u'price': 4.99}}\n"
             for n in range(15000))  # fmt: skip
    return gz(folder / "steam_reviews.json.gz", reviews) + gz(folder / "steam_games.json.gz", games)


def movielens(rows: int, folder: Path) -> int:
    """The four files of ml-32m.zip, ratings as long as asked."""
    ratings = (f"{n // 150},{n * 7919 % ITEMS},{1 + n % 9 * 0.5:.1f},{900_000_000 + n}\n"
               for n in range(rows))  # fmt: skip
    films = (f'{n},"Film {n}, The (1999)",Comedy|Drama\n' for n in range(ITEMS))
    links = (f"{n},{n:07d},{n}\n" for n in range(ITEMS))
    tags = (f"{n},{n % ITEMS},tag {n % 99},{900_000_000 + n}\n" for n in range(rows // 20))
    members = {"ratings": ("userId,movieId,rating,timestamp", ratings),
               "movies": ("movieId,title,genres", films),
               "links": ("movieId,imdbId,tmdbId", links),
               "tags": ("userId,movieId,tag,timestamp", tags)}  # fmt: skip
    written = 0
    with zipfile.ZipFile(folder / "ml-32m.zip", "w", zipfile.ZIP_DEFLATED, True, 1) as archive:
        for name, (header, lines) in members.items():
            with archive.open(f"ml-32m/{name}.csv", "w", force_zip64=True) as stream:
                written += copy(stream, iter([header + "\n"])) + copy(stream, lines)
    return written


def mind(rows: int, folder: Path) -> int:
    """``rows`` news shown in impressions of 37; one part is one impression long."""
    shown = " ".join(f"N{n}-{int(n == 3)}" for n in range(37))
    log = (f"{n}\tU{n % 50000}\t11/{1 + n % 28}/2019 8:{n % 60:02d}:22 AM\tN1 N2 N3\t{shown}\n"
           for n in range(rows // 37))  # fmt: skip
    written = 0
    for part, lines in (("train", log), ("dev", iter(["1\tU1\t11/15/2019 8:55:22 AM\t\tN1-1\n"]))):
        news = (f"N{n}\tnews\tworld\tTitle {n}\tText {n}\thttps://x\t[]\t[]\n"
                for n in range(50000))  # fmt: skip
        path = folder / f"MINDsmall_{part}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, True, 1) as archive:
            for name, content in (("news.tsv", news), ("behaviors.tsv", lines)):
                with archive.open(name, "w", force_zip64=True) as stream:
                    written += copy(stream, content)
    return written


def gz(path: Path, lines: Iterator[str]) -> int:
    with gzip.open(path, "wb", compresslevel=1) as stream:
        return copy(stream, lines)


def copy(stream: IO[bytes], lines: Iterator[str]) -> int:
    """Write ``lines`` in larger pieces; return the plain bytes."""
    written, waiting = 0, []
    for line in lines:
        waiting.append(line)
        if len(waiting) == 20_000:
            written += stream.write("".join(waiting).encode())
            waiting = []
    return written + stream.write("".join(waiting).encode())


def parse(kind: str, home: str, root: str, answer) -> None:
    """Fetch the set from its raw files, in a process of its own, and send what it took."""
    name, category = SETS[kind]
    before = peak_mb()
    start = time.perf_counter()
    report = fetch_public(name, home=home, data_root=root, category=category,
                          reviews=kind != "mind", agree=lambda source: False)  # fmt: skip
    spent = time.perf_counter() - start
    peak = peak_mb()
    answer.send((report["tables"], spent, before, peak))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kind", choices=SETS, default="amazon")
    arguments.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    arguments.add_argument("--folder", help="where the files are made (default: a temporary one)")
    given = arguments.parse_args()
    name, category = SETS[given.kind]
    print("kind       rows        plain MB  seconds  rows/s    start MB  peak MB  tables")
    for rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            root = Path(folder) / "data"
            chosen = describe.public_sets()[name].choose(category)
            raw = root / chosen.dataset_name / "raw"
            raw.mkdir(parents=True)
            size = globals()[given.kind](rows, raw)
            if given.kind == "movielens":
                (raw / "ml-32m.zip").rename(raw / "ml-32m")  # not checked: not the published file
            here, there = multiprocessing.get_context("spawn").Pipe()
            work = multiprocessing.get_context("spawn").Process(
                target=parse, args=(given.kind, f"{folder}/home", str(root), there)
            )
            work.start()
            there.close()
            tables, spent, before, peak = here.recv()
            work.join()
        numbers = f"{size / 1e6:<9,.0f} {spent:<8.1f} {rows / spent:<9,.0f}"
        print(f"{given.kind:<10} {rows:<11,} {numbers} {before:<9.0f} {peak:<8.0f} {tables}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
