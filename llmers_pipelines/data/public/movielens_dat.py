"""MovieLens 100K and 1M: files without header, Latin-1, separated by tabs, bars or "::"."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .archives import open_raw
from .delimited import Block, read_delimited
from .describe import PublicSet
from .movielens import write_ratings
from .tables import Build

LOG = ("user", "item", "rating", "timestamp")
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
# Codes of users.dat, as its README explains them.
AGES = {"1": "Under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49",
        "50": "50-55", "56": "56+"}  # fmt: skip
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student",
    "customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker",
    "K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist",
    "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip


def parse(source: PublicSet, raw: Path, build: Build) -> None:
    """Write items, users and interactions of the edition that ``options`` name."""
    archive = source.files[0].name
    if source.options["edition"] == "100k":
        _hundred_thousand(raw, archive, build)
    else:
        _million(raw, archive, build)


def _hundred_thousand(raw: Path, archive: str, build: Build) -> None:
    names = ("item", "title", "released", "video", "imdb_url", *GENRES)
    items = build.table("items", item_id="text", title="text", release_date="text",
                        imdb_url="text", genres="text")  # fmt: skip
    with open_raw(raw, archive, "ml-100k/u.item") as stream:
        for block in read_delimited(stream, names, "|", "items", "u.item", build.faults,
                                    encoding="latin-1"):  # fmt: skip
            block.need("item")
            marks = [pc.equal(block.columns[g], "1") for g in GENRES]
            words = [pc.if_else(m, g, None) for m, g in zip(marks, GENRES, strict=True)]
            genres = pc.binary_join_element_wise(*words, "|", null_handling="skip")
            items.write(
                pa.table(
                    {"item_id": block.text("item"), "title": block.text("title"),
                     "release_date": block.text("released"), "imdb_url": block.text("imdb_url"),
                     "genres": pc.if_else(pc.equal(genres, ""), None, genres)}
                )
            )  # fmt: skip
    _users(raw, archive, "ml-100k/u.user", "|", ("user", "age", "gender", "occupation", "zip"),
           build)  # fmt: skip
    with open_raw(raw, archive, "ml-100k/u.data") as stream:
        write_ratings(stream, LOG, "\t", "u.data", build, header=False)


def _million(raw: Path, archive: str, build: Build) -> None:
    items = build.table("items", item_id="text", title="text", genres="text")
    with open_raw(raw, archive, "ml-1m/movies.dat") as stream:
        for block in read_delimited(stream, ("item", "title", "genres"), "::", "items",
                                    "movies.dat", build.faults, encoding="latin-1"):  # fmt: skip
            block.need("item")
            items.write(pa.table({"item_id": block.text("item"), "title": block.text("title"),
                                  "genres": block.text("genres")}))  # fmt: skip
    _users(raw, archive, "ml-1m/users.dat", "::", ("user", "gender", "age", "occupation", "zip"),
           build, coded=True)  # fmt: skip
    with open_raw(raw, archive, "ml-1m/ratings.dat") as stream:
        write_ratings(stream, LOG, "::", "ratings.dat", build, header=False)


def _users(
    raw: Path, archive: str, member: str, delimiter: str, names: tuple[str, ...], build: Build,
    *, coded: bool = False,
) -> None:  # fmt: skip
    users = build.table("users", user_id="text", age="text", gender="text", occupation="text",
                        zip_code="text")  # fmt: skip
    file = member.rpartition("/")[2]
    with open_raw(raw, archive, member) as stream:
        for block in read_delimited(stream, names, delimiter, "users", file, build.faults,
                                    encoding="latin-1"):  # fmt: skip
            block.need("user")
            age, occupation = block.text("age"), block.text("occupation")
            if coded:
                age = _decoded(block, "age", AGES)
                occupation = _decoded(block, "occupation",
                                      {str(i): o for i, o in enumerate(OCCUPATIONS)})  # fmt: skip
            users.write(
                pa.table({"user_id": block.text("user"), "age": age, "gender": block.text("gender"),
                          "occupation": occupation, "zip_code": block.text("zip")})
            )  # fmt: skip


def _decoded(block: Block, name: str, words: dict[str, str]) -> pa.ChunkedArray:
    """Return the words that the codes of a column stand for; an unknown code is cleared."""
    codes = block.text(name).to_pylist()
    for row, code in zip(block.rows.tolist(), codes, strict=True):
        if code is not None and code not in words:
            block.faults.note(block.table, block.file, row, name, code, "unknown_code", "cleared")
    return pa.chunked_array([pa.array([words.get(c) for c in codes], pa.string())])
