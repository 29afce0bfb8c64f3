"""MovieLens, Last.fm and Book-Crossing, from files in their published formats."""

from __future__ import annotations

import pytest
import raw_files
from public_place import Place

pytestmark = pytest.mark.usefixtures("unchecked")


def test_movielens_100k(place: Place) -> None:
    name = "movielens_100k"
    raw_files.zip_file(place.raw(name) / "ml-100k.zip", raw_files.movielens_100k())
    report = place.fetch("ml-100k")
    assert report["tables"] == {"items": 4, "users": 4, "interactions": 4}
    titles = {r["item_id"]: r["title"] for r in place.rows(name, "items")}
    assert titles["2"] == "Misérables, Les (1995)" and titles["267"] == "unknown"
    genres = {r["item_id"]: r["genres"] for r in place.rows(name, "items")}
    assert genres == {"1": "Animation|Children's|Comedy", "2": "Drama|Musical",
                      "267": "unknown", "269": "Comedy"}  # fmt: skip
    assert place.rows(name, "interactions")[2] == {
        "user_id": "22", "item_id": "267", "rating": 1.0, "timestamp": 878887116,
    }  # fmt: skip
    codes = [r["zip_code"] for r in place.rows(name, "users")]
    assert codes == ["55105", "V5A2B", "40206", "01581"]
    assert sorted(place.faults(name)) == [
        ("interactions", "u.data", 4, "rating", "unparsable_rating", "dropped"),
        ("interactions", "u.data", 5, "timestamp", "unparsable_time", "dropped"),
        ("interactions", "u.data", 7, "", "malformed_row", "dropped"),
        ("items", "u.item", 4, "", "malformed_row", "dropped"),
    ]
    assert report["counts"]["interactions"] == {"found": 4, "published": "100000"}
    assert any(w.startswith("interactions: 4 found, 100000 published") for w in report["warnings"])
    items = place.catalog(name).items.to_pylist()
    assert items[0]["year"] == "1995" and items[2]["genres"] is None, "unknown is no genre"


def test_movielens_1m(place: Place) -> None:
    name = "movielens_1m"
    raw_files.zip_file(place.raw(name) / "ml-1m.zip", raw_files.movielens_1m())
    report = place.fetch("ml-1m")
    assert report["tables"] == {"items": 3, "users": 3, "interactions": 4}
    assert [r["title"] for r in place.rows(name, "items")][1:] == [
        "Misérables, Les (1995)", "Star Wars: Episode IV - A New Hope (1977)",
    ]  # fmt: skip
    users = place.rows(name, "users")
    assert [(u["age"], u["occupation"]) for u in users] == [
        ("Under 18", "K-12 student"), ("56+", "self-employed"), ("25-34", None),
    ]  # fmt: skip
    assert place.faults(name) == [
        ("users", "users.dat", 3, "occupation", "unknown_code", "cleared"),
        ("interactions", "ratings.dat", 5, "", "malformed_row", "dropped"),
        ("interactions", "ratings.dat", 6, "rating", "unparsable_rating", "dropped"),
    ]


@pytest.mark.parametrize(
    ("alias", "folder"),
    [("ml-20m", "ml-20m"), ("ml-32m", "ml-32m"), ("ml-latest-small", "ml-latest-small")],
)
def test_movielens_csv(place: Place, alias: str, folder: str) -> None:
    name = "movielens_" + alias.removeprefix("ml-").replace("-", "_")
    raw_files.zip_file(place.raw(name) / f"{folder}.zip", raw_files.movielens_csv(folder))
    report = place.fetch(alias)
    assert report["tables"] == {"items": 5, "interactions": 4, "tags": 2}
    items = {r["item_id"]: r for r in place.rows(name, "items")}
    assert items["11"]["title"] == "American President, The (1995)"
    assert items["2000"]["title"] == 'Say "Hello" (1999)'
    assert items["99999"]["imdb_id"] == "0000001" and items["99999"]["tmdb_id"] is None
    assert items["6"]["title"] == "Heat (1995)", "the row after a stray quotation mark"
    assert place.rows(name, "tags")[0]["tag"] == 'funny, for "kids"'
    assert place.faults(name) == [
        ("items", "movies.csv", 5, "", "malformed_row", "dropped"),
        ("interactions", "ratings.csv", 4, "rating", "unparsable_rating", "dropped"),
        ("interactions", "ratings.csv", 5, "timestamp", "unparsable_time", "dropped"),
        ("tags", "tags.csv", 3, "timestamp", "unparsable_time", "dropped"),
    ]
    assert place.catalog(name).items.to_pylist()[3]["genres"] is None, "no genres listed"


def test_a_movielens_edition_with_other_columns_is_refused(place: Place) -> None:
    from llmers_pipelines.data.schema import DataError

    files = raw_files.movielens_csv("ml-32m")
    files["ml-32m/ratings.csv"] = b"userId,movieId,stars\n1,1,3\n"
    raw_files.zip_file(place.raw("movielens_32m") / "ml-32m.zip", files)
    with pytest.raises(DataError, match=r"its columns are userId, movieId, stars; expec"):
        place.fetch("ml-32m")
    assert not (place.root / "movielens_32m" / "items.parquet").exists(), "nothing half-made stays"


def test_lastfm(place: Place) -> None:
    name = "lastfm_hetrec"
    raw_files.zip_file(place.raw(name) / "hetrec2011-lastfm-2k.zip", raw_files.lastfm())
    report = place.fetch("lastfm")
    assert report["tables"] == {"tags": 5, "items": 4, "interactions": 3, "friends": 2}
    items = place.rows(name, "items")
    assert [i["title"] for i in items] == [
        "MALICE MIZER", 'Diary of "Dreams', "Sigur Rós", "Café del Mar",
    ]  # fmt: skip
    assert items[0]["tags"] == "metal|français", "by how often they were given"
    assert [t["timestamp"] for t in place.rows(name, "tags")][2:4] == [1238536800, None]
    assert {r["listens"] for r in place.rows(name, "interactions")} == {13883, 11690, 1}
    assert sorted(place.faults(name)) == [
        ("interactions", "user_artists.dat", 4, "weight", "unparsable_number", "dropped"),
        ("items", "artists.dat", 4, "", "bad_encoding", "mended"),
        ("tags", "user_taggedartists-timestamps.dat", 4, "timestamp", "implausible_time",
         "cleared"),
        ("tags", "user_taggedartists-timestamps.dat", 6, "tagID", "unknown_code", "dropped"),
    ]  # fmt: skip
    assert place.catalog(name).info["clock"] == "none"


def test_bookcrossing(place: Place) -> None:
    name = "bookcrossing"
    raw_files.zip_file(place.raw(name) / "BX-CSV-Dump.zip", raw_files.bookcrossing())
    report = place.fetch("bx")
    assert report["tables"] == {"items": 5, "users": 6, "interactions": 7}
    books = {r["item_id"]: r for r in place.rows(name, "items")}
    assert books["0684867621"]["title"] == 'The Girl; Loved "Tom" Gordon'
    assert books["0684867621"]["author"] == "King & Co"
    shifted = books["078946697X"]
    assert (shifted["title"], shifted["author"], shifted["year"], shifted["publisher"]) == (
        "DK Readers: X-Men (Level 4)", "Michael Teitelbaum", "2000", "DK",
    )  # fmt: skip
    assert books["3257224281"]["author"] == "Peter Høeg"
    assert books["3257224281"]["year"] is None and books["0380000059"]["year"] is None
    users = {r["user_id"]: r for r in place.rows(name, "users")}
    assert users["4"]["location"] == "cernusco s , milan, italy" and users["4"]["age"] == 33
    assert users["3"]["age"] is None and users["5"]["country"] is None
    assert users["7"]["country"] == "portugal", "the row after one whose quote never closes"
    log = place.rows(name, "interactions")
    assert (log[0]["event"], log[0]["rating"]) == ("implicit", None)
    assert [r["item_id"] for r in log][2:5] == ["0684867621", "078946697X", "3257224281"]
    assert sorted(f[1:] for f in place.faults(name)) == [
        ("BX-Book-Ratings.csv", 3, "ISBN", "stray_characters", "mended"),
        ("BX-Book-Ratings.csv", 5, "ISBN", "stray_characters", "mended"),
        ("BX-Book-Ratings.csv", 7, "Book-Rating", "unparsable_rating", "dropped"),
        ("BX-Book-Ratings.csv", 8, "ISBN", "null_id", "dropped"),
        ("BX-Books.csv", 3, "Book-Title", "shifted_columns", "mended"),
        ("BX-Books.csv", 5, "Year-Of-Publication", "implausible_year", "cleared"),
        ("BX-Books.csv", 6, "", "malformed_row", "dropped"),
        ("BX-Users.csv", 3, "Age", "implausible_age", "cleared"),
        ("BX-Users.csv", 5, "Age", "implausible_age", "cleared"),
        ("BX-Users.csv", 6, "", "malformed_row", "dropped"),
    ]
    assert place.catalog(name).info["quarantined"] == {"interactions.unknown_item": 1}
