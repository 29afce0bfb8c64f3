"""The generative process behind the bundled sample: simulated readers of real books.

Run ``python -m llmers_pipelines.data.sample_process --out data/sample``. It reads ``items.csv``
and ``process.toml`` of that folder and writes ``interactions.csv`` and ``users.csv``; one seed
gives the same bytes.

A reader mixes one to three of the named tastes, leans to single subjects, likes one era and one or
two authors. The mood (one of the reader's tastes) drifts from book to book; a book is often
followed by the next of its series or by another of its author. The popularity of a book is drawn
at random: it has nothing to do with the book's fame. Nothing is read from descriptions or recorded
answers.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import click
import numpy as np

Item = Mapping[str, str]
DAY = 86_400  # seconds


@dataclass(frozen=True)
class Process:
    """Settings of the simulation; strengths are in units of log choice weight."""

    seed: int = 20261120
    users: int = 1200
    start: date = date(2024, 1, 1)
    days: int = 730
    fewest: int = 5  # books per reader
    most: int = 60
    median: float = 16.0
    tail: float = 1.15  # popularity weight is (rank + head) ** -tail
    head: float = 12.0
    cold: int = 30  # books that nobody reads; every second one gets a single reader
    taste: float = 1.15  # strength of the mood's taste, per standard deviation over the catalog
    leaning: float = 0.5  # strength of the reader's own leaning to single subjects
    era: float = 0.3  # lost per step between the book's era and the reader's
    author: float = 1.0  # gained by a favourite author
    stay: float = 0.85  # chance that the mood stays for the next book
    follow: float = 0.22  # chance to go on with the series or author of the last book
    stray: float = 0.08  # chance of a book taken for its popularity alone


@dataclass(frozen=True)
class Planted:
    """Content of ``process.toml``: the vocabulary, eras, tastes (name -> subject -> weight) and
    series (titles in reading order)."""

    subjects: tuple[str, ...]
    eras: tuple[int, ...]
    tastes: Mapping[str, Mapping[str, float]]
    series: tuple[tuple[str, ...], ...]

    @classmethod
    def load(cls, folder: Path) -> Planted:
        raw = tomllib.loads((folder / "process.toml").read_text(encoding="utf-8"))
        series = tuple(map(tuple, raw["series"]))
        return cls(tuple(raw["subjects"]), tuple(raw["eras"]), raw["tastes"], series)


@dataclass(frozen=True)
class Simulated:
    """``interactions`` rows (user_id, item_id, rating, timestamp), by time; ``users`` rows
    (user_id, joined); ``mixtures`` float64[U, T] holds the planted tastes and is never written."""

    interactions: list[tuple[str, str, int, int]]
    users: list[tuple[str, str]]
    mixtures: np.ndarray


class _Catalog:
    """What the simulated readers know of the books: arrays over N items."""

    def __init__(
        self, items: Sequence[Item], planted: Planted, process: Process, rng: np.random.Generator
    ) -> None:
        n = len(items)
        self.ids = [item["item_id"] for item in items]
        row = {name: k for k, name in enumerate(planted.subjects)}
        self.subjects = np.zeros((n, len(row)))
        for i, item in enumerate(items):
            for subject in item["subjects"].split("|"):
                if subject not in row:
                    raise ValueError(
                        f"item {item['item_id']}: subject {subject!r} is not in the vocabulary; "
                        "add it to process.toml or correct the row"
                    )
                self.subjects[i, row[subject]] = 1.0
        self.subjects /= np.sqrt(self.subjects.sum(1, keepdims=True))
        weights = np.zeros((len(planted.tastes), len(row)))
        for k, taste in enumerate(planted.tastes.values()):
            for subject, weight in taste.items():
                weights[k, row[subject]] = weight
        self.fit = _standard(self.subjects @ weights.T)  # [N, T]
        years = [int(item["year"]) for item in items]
        self.era = np.searchsorted(planted.eras, years, side="right")  # [N]
        names = [item["author"] for item in items]
        known = {name: k for k, name in enumerate(dict.fromkeys(names))}
        self.author = np.array([known[name] for name in names])
        self.signed = np.array([name != "Anonymous" for name in names])
        rank = np.argsort(np.argsort(rng.random(n)))
        self.popularity = (rank + process.head) ** -process.tail
        self.cold = np.argsort(rng.random(n))[: process.cold]
        self.popularity[self.cold] = 0.0
        self.quality = 0.35 * rng.standard_normal(n)
        place = {item["title"]: i for i, item in enumerate(items)}
        self.next: dict[int, int] = {}
        for titles in planted.series:
            parts = [place[title] for title in titles if title in place]
            self.next |= dict(pairwise(parts))


def simulate(items: Sequence[Item], planted: Planted, process: Process | None = None) -> Simulated:
    """Return the log of simulated readers over ``items`` (rows of ``items.csv``).

    Raises ``ValueError`` when a subject is not in the vocabulary.
    """
    process = process or Process()
    rng = np.random.default_rng(process.seed)
    catalog = _Catalog(items, planted, process, rng)
    users, log, mixtures = [], [], np.zeros((process.users, len(planted.tastes)))
    for u in range(process.users):
        user_id = f"u{u + 1:04d}"
        reader = _Reader(catalog, process, rng)
        mixtures[u] = reader.mixture
        books = reader.read()
        ratings = reader.rate(books)
        joined, times = _calendar(len(books), process, rng)
        users.append((user_id, joined.isoformat()))
        log += [[t, user_id, i, r] for t, i, r in zip(times, books, ratings, strict=True)]
    _lend_cold_books(log, catalog, mixtures, rng)
    log.sort(key=lambda row: (row[0], row[1]))
    return Simulated([(u, catalog.ids[i], r, t) for t, u, i, r in log], users, mixtures)


class _Reader:
    """One reader: draws a taste, then reads and rates."""

    def __init__(self, catalog: _Catalog, process: Process, rng: np.random.Generator) -> None:
        self.catalog, self.process, self.rng = catalog, process, rng
        n_tastes, n_subjects = catalog.fit.shape[1], catalog.subjects.shape[1]
        tastes = np.argsort(rng.random(n_tastes))[: 1 + _draw(np.array([0.3, 0.45, 0.25]), rng)]
        share = -np.log(1.0 - rng.random(len(tastes))) + 0.25
        self.mixture = np.zeros(n_tastes)
        self.mixture[tastes] = share / share.sum()
        leaning = _standard(catalog.subjects @ rng.standard_normal(n_subjects))
        era = _draw(np.bincount(catalog.era).astype(float), rng)
        own = process.leaning * leaning - process.era * np.abs(catalog.era - era)
        liked = catalog.fit @ self.mixture + 0.4 * leaning
        favourites = [catalog.author[_draw(catalog.signed * np.exp(liked), rng)] for _ in range(2)]
        beloved = np.isin(catalog.author, favourites)
        self.match = _standard(liked + 0.8 * beloved)  # [N], what ratings depend on
        weights = process.taste * catalog.fit.T + own + process.author * beloved
        self.weights = np.exp(weights) * catalog.popularity  # [T, N]

    def read(self) -> list[int]:
        """Return positions of different items in reading order."""
        process, rng, catalog = self.process, self.rng, self.catalog
        length = process.median * np.exp(0.75 * rng.standard_normal())
        length = int(np.clip(round(length), process.fewest, process.most))
        unread = np.ones(len(catalog.ids))
        mood = _draw(self.mixture, rng)
        books: list[int] = []
        while len(books) < length:
            if rng.random() > process.stay:
                mood = _draw(self.mixture, rng)
            way = rng.random()
            book = self._follower(books[-1], unread) if books and way < process.follow else None
            if book is None:
                stray = way > 1.0 - process.stray
                book = _draw((catalog.popularity if stray else self.weights[mood]) * unread, rng)
            unread[book] = 0.0
            books.append(book)
        return books

    def _follower(self, last: int, unread: np.ndarray) -> int | None:
        """Return the unread next of the series or another book of the author, None if none."""
        catalog = self.catalog
        after = catalog.next.get(last)
        if after is not None and unread[after] and catalog.popularity[after]:
            return after
        same = (catalog.author == catalog.author[last]) & catalog.signed
        weight = same * unread * catalog.popularity
        return _draw(weight, self.rng) if weight.any() else None

    def rate(self, books: list[int]) -> list[int]:
        """Return ratings 1..5: taste, quality and habit plus noise, rounded."""
        habit = 3.1 + 0.35 * self.rng.standard_normal()
        noise = 0.65 * self.rng.standard_normal(len(books))
        felt = habit + 0.55 * self.match[books] + self.catalog.quality[books] + noise
        return [int(r) for r in np.clip(np.rint(felt), 1, 5)]


def _calendar(n: int, process: Process, rng: np.random.Generator) -> tuple[date, list[int]]:
    """Return the day of joining and ``n`` rising timestamps (seconds, UTC) until the last day."""
    joined = int(rng.random() * 0.8 * process.days)
    gaps = -np.log(1.0 - rng.random(n + 1)) + 0.02  # the last gap leads to the end of reading
    active = (process.days - joined) * (0.35 + 0.65 * rng.random())
    elapsed = active * np.cumsum(gaps)[:n] / gaps.sum()
    first = process.start + timedelta(days=joined)
    midnight = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp())
    return first, [midnight + int(x * DAY) + k for k, x in enumerate(elapsed)]


def _lend_cold_books(
    log: list[list], catalog: _Catalog, mixtures: np.ndarray, rng: np.random.Generator
) -> None:
    """Put every second cold item in place of one book of a reader whose tastes it fits.

    The row keeps its time and rating.
    """
    start: dict[str, int] = {}
    size: dict[str, int] = {}
    for n, row in enumerate(log):
        start.setdefault(row[1], n)
        size[row[1]] = size.get(row[1], 0) + 1
    taken: set[int] = set()
    for item in catalog.cold[::2]:
        weight = np.exp(1.5 * (mixtures @ catalog.fit[item]))
        user = f"u{_draw(weight, rng) + 1:04d}"
        row = start[user] + int(rng.random() * size[user])
        if row not in taken:
            taken.add(row)
            log[row][2] = int(item)


def _draw(weight: np.ndarray, rng: np.random.Generator) -> int:
    """Return one index with chance proportional to ``weight``; uniform draws alone, so that the
    stream does not depend on how a library implements weighted choice."""
    total = np.cumsum(weight)
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / (x.std(0) + 1e-12)


def read_items(folder: Path) -> list[dict[str, str]]:
    """Return the rows of ``items.csv`` in ``folder``."""
    with (folder / "items.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(folder: Path, made: Simulated) -> None:
    """Write ``interactions.csv`` and ``users.csv`` to ``folder``."""
    tables = {
        "interactions.csv": (("user_id", "item_id", "rating", "timestamp"), made.interactions),
        "users.csv": (("user_id", "joined"), made.users),
    }
    for name, (header, rows) in tables.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(header)
            out.writerows(rows)


@click.command()
@click.option("--out", type=click.Path(path_type=Path, exists=True), default="data/sample")
@click.option("--seed", default=Process.seed, show_default=True)
def main(out: Path, seed: int) -> None:
    """Write the simulated log of the bundled sample."""
    made = simulate(read_items(out), Planted.load(out), Process(seed=seed))
    write(out, made)
    click.echo(f"{out}: {len(made.users)} users, {len(made.interactions)} interactions")


if __name__ == "__main__":
    main()
