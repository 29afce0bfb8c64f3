"""MIND, Amazon, Steam, Yelp and Goodreads, from files in their published formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import json_files
import pytest
import raw_files
from public_place import Place

from llmers_pipelines.data.public import records

pytestmark = pytest.mark.usefixtures("unchecked")


def gz(place: Place, name: str, files: dict[str, bytes]) -> None:
    for file, content in files.items():
        raw_files.gz_file(place.raw(name) / file, content)


def by(rows: list[dict[str, Any]], key: str) -> dict[Any, dict[str, Any]]:
    return {r[key]: r for r in rows}


def test_mind(place: Place) -> None:
    train, dev = raw_files.mind()
    raw = place.raw("mind_small")
    raw_files.zip_file(raw / "MINDsmall_train.zip", train)
    raw_files.zip_file(raw / "MINDsmall_dev.zip", dev)
    report = place.fetch("mind-small")
    assert report["tables"] == {"items": 4, "interactions": 8, "impressions": 4}
    news = by(place.rows("mind_small", "items"), "item_id")
    assert set(news) == {"N1", "N2", "N4", "N5"}, "N2 is in both parts"
    assert news["N1"]["title"] == 'The "Brands the Queen Swears By'
    assert news["N2"]["abstract"] is None and '"WikidataId": "Q43"' in news["N1"]["title_entities"]
    log = place.rows("mind_small", "interactions")
    assert [(r["item_id"], r["clicked"], r["event"]) for r in log[:2]] == [
        ("N1", 1, "click"), ("N2", 0, "view"),
    ]  # fmt: skip
    assert log[0]["timestamp"] == 1573634217, "2019-11-13 08:36:57 UTC"
    assert next(r for r in log if r["impression_id"] == "train-5")["timestamp"] == 1573516800
    assert {r["impression_id"] for r in log} == {"train-1", "train-2", "train-5", "dev-1"}
    shown = by(place.rows("mind_small", "impressions"), "impression_id")
    assert shown["train-2"]["history"] is None and shown["train-2"]["clicked"] == "N4|N1"
    assert shown["dev-1"]["history"] == "N4|N2|N1" and shown["dev-1"]["shown"] == "N5|N4"
    assert place.faults("mind_small") == [
        ("items", "train/news.tsv", 3, "", "malformed_row", "dropped"),
        ("interactions", "train/behaviors.tsv", 3, "time", "unparsable_time", "dropped"),
        ("interactions", "train/behaviors.tsv", 4, "", "malformed_row", "dropped"),
        ("interactions", "train/behaviors.tsv", 5, "impressions", "no_label", "dropped"),
    ]


def test_amazon_2014(place: Place) -> None:
    reviews, metadata = json_files.amazon_2014()
    name = "amazon_2014_beauty"
    gz(place, name, {"reviews_Beauty_5.json.gz": reviews, "meta_Beauty.json.gz": metadata})
    report = place.fetch("amazon-2014", category="beauty", reviews=True)
    assert report["tables"] == {"items": 2, "interactions": 4, "reviews": 4}
    items = by(place.rows(name, "items"), "item_id")
    assert items["0000031852"]["title"] == "Girls Ballet Tutu & Zebra"
    assert items["0000031852"]["categories"] == "Sports & Outdoors|Other Sports|Dance"
    assert items["B00004"]["description"] == 'It\'s a "nice" one'
    log = place.rows(name, "interactions")
    assert log[0] == {"user_id": "A1", "item_id": "0000031852", "rating": 5.0,
                      "timestamp": 1252800000, "verified": None, "helpful": 2,
                      "source_row": 1}  # fmt: skip
    assert place.rows(name, "reviews")[0]["text"] == "I bought this & like it."
    meta, file = "meta_Beauty.json.gz", "reviews_Beauty_5.json.gz"
    assert sorted(f[1:5] for f in place.faults(name)) == [
        (meta, 3, "", "malformed_row"), (meta, 4, "asin", "null_id"),
        (meta, 5, "", "malformed_row"), (file, 4, "item_id", "duplicate_row"),
        (file, 5, "reviewerID", "null_id"), (file, 6, "overall", "unparsable_rating"),
        (file, 7, "unixReviewTime", "unparsable_time"),
        (file, 8, "unixReviewTime", "implausible_time"), (file, 9, "", "malformed_row"),
    ]  # fmt: skip
    catalog = place.catalog(name)
    assert set(catalog.items["item_id"].to_pylist()) == {"0000031852", "B00004", "BNOMETA"}
    assert catalog.extras["reviews"].num_rows == 4


def test_amazon_2018(place: Place) -> None:
    reviews, metadata = json_files.amazon_2018()
    name = "amazon_2018_all_beauty"
    gz(place, name, {"All_Beauty_5.json.gz": reviews, "meta_All_Beauty.json.gz": metadata})
    report = place.fetch("amazon_2018", category="All_Beauty")
    assert report["tables"] == {"items": 4, "interactions": 3}
    items = place.rows(name, "items")
    assert [i["title"] for i in items] == ["Loud & clear", "Loud & clear", None, "Soap 3 < 4"]
    assert [i["price"] for i in items] == [1299.0, 1299.0, None, None]
    assert items[0]["description"] == "A bold claim" and items[0]["categories"] == "Beauty|Hair"
    assert place.rows(name, "interactions")[0]["helpful"] == 1234
    assert [f[2:] for f in place.faults(name)] == [
        (3, "title", "html_title", "cleared"), (4, "title", "html_title", "mended"),
        (2, "item_id", "duplicate_row", "dropped"),
    ]  # fmt: skip
    assert place.catalog(name).info["quarantined"] == {"items.duplicate_id": 1}


def test_amazon_2023(place: Place) -> None:
    reviews, metadata = json_files.amazon_2023()
    name = "amazon_2023_all_beauty"
    gz(place, name, {"All_Beauty.jsonl.gz": reviews, "meta_All_Beauty.jsonl.gz": metadata})
    report = place.fetch("amazon-2023", category="All_Beauty")
    assert report["tables"] == {"items": 2, "interactions": 4}
    log = place.rows(name, "interactions")
    assert [(r["item_id"], r["timestamp"], r["verified"], r["helpful"]) for r in log] == [
        ("P1", 1588687728, True, 0), ("P1", 1588687728, True, 0),
        ("B08BBQ29N5", 1634275259, False, 7), ("P9", 1588687728, True, 0),
    ]  # fmt: skip
    items = by(place.rows(name, "items"), "item_id")
    assert items["B08BBQ29N5"]["title"] is None and items["B08BBQ29N5"]["price"] is None
    assert items["P1"]["features"] == "One Two" and items["P1"]["image_url"] == "l.jpg"
    assert [f[2:5] for f in place.faults(name)] == [
        (6, "timestamp", "implausible_time"), (2, "item_id", "duplicate_row"),
    ]  # fmt: skip
    assert report["counts"]["users"] == {"found": 3, "published": "632.0K"}
    assert any(w.startswith("users: 3 found, 632.0K published") for w in report["warnings"])


def test_steam(place: Place) -> None:
    reviews, games = json_files.steam()
    gz(place, "steam", {"steam_reviews.json.gz": reviews, "steam_games.json.gz": games})
    report = place.fetch("steam", reviews=True)
    assert report["tables"] == {"items": 2, "interactions": 3, "reviews": 3}
    items = by(place.rows("steam", "items"), "item_id")
    assert items["328100"]["title"] == "Only & Name" and items["328100"]["price"] is None
    assert items["725280"]["genres"] == "Action|Casual"
    log = place.rows("steam", "interactions")
    assert [(r["user_id"], r["hours"], r["free"], r["steam_id"]) for r in log] == [
        ("Chaos Syren", 0.1, False, None), ("Ariman1", 13.2, True, "76561198006114572"),
        ("x", None, False, None),
    ]  # fmt: skip
    assert log[0]["timestamp"] == 1513468800
    assert place.rows("steam", "reviews")[0]["text"] == "It isn't ♥"
    assert [f[1:5] for f in place.faults("steam")] == [
        ("steam_games.json.gz", 3, "id", "null_id"),
        ("steam_reviews.json.gz", 4, "username", "null_id"),
        ("steam_reviews.json.gz", 5, "date", "unparsable_time"),
        ("steam_reviews.json.gz", 6, "", "malformed_row"),
        ("steam_reviews.json.gz", 3, "item_id", "duplicate_row"),
    ]


def test_yelp_is_read_from_a_tar_inside_a_zip(place: Place) -> None:
    raw_files.zip_file(
        place.raw("yelp") / "Yelp-JSON.zip",
        {"Yelp JSON/yelp_dataset.tar": raw_files.tar_bytes(json_files.yelp()),
         "__MACOSX/Yelp JSON/._yelp_dataset.tar": b"x", "Yelp JSON/Terms.pdf": b"%PDF"},
    )  # fmt: skip
    report = place.fetch("yelp", reviews=True)
    assert report["tables"] == {"items": 2, "users": 2, "interactions": 2, "reviews": 2}
    items = by(place.rows("yelp", "items"), "item_id")
    assert items["b1"]["categories"] == "Restaurants|Food|Coffee & Tea"
    assert items["b1"]["price_range"] == "1" and items["b2"]["categories"] is None
    users = by(place.rows("yelp", "users"), "user_id")
    assert users["u1"]["elite"] == "2007|2020" and users["u2"]["elite"] is None
    assert "name" not in users["u1"] and "friends" not in users["u1"]
    assert place.rows("yelp", "interactions")[0]["timestamp"] == 1531001351
    assert [f[1:5] for f in place.faults("yelp")] == [
        ("yelp_academic_dataset_user.json", 3, "user_id", "null_id"),
        ("yelp_academic_dataset_review.json", 3, "date", "unparsable_time"),
        ("yelp_academic_dataset_review.json", 4, "stars", "unparsable_rating"),
        ("yelp_academic_dataset_review.json", 5, "business_id", "null_id"),
    ]


def test_goodreads(place: Place) -> None:
    books, events = json_files.goodreads()
    name = "goodreads_ucsd_poetry"
    gz(place, name, {"goodreads_books_poetry.json.gz": books,
                     "goodreads_interactions_poetry.json.gz": events})  # fmt: skip
    report = place.fetch("goodreads-ucsd", category="Poetry")
    assert report["tables"] == {"items": 2, "interactions": 3}
    items = by(place.rows(name, "items"), "item_id")
    assert items["7327624"]["shelves"] == "fantasy|poetry" and items["7327624"]["pages"] == 600
    assert items["7327624"]["is_ebook"] is False and items["402128"]["is_ebook"] is True
    assert items["402128"]["title"] == "x" and items["402128"]["pages"] is None
    log = place.rows(name, "interactions")
    assert [(r["rating"], r["event"]) for r in log] == [
        (4.0, "read"), (None, "shelved"), (4.0, "read"),
    ]  # fmt: skip
    assert log[0]["timestamp"] == 1366384515, "08:15:15 at -0700 is 15:15:15 UTC"
    assert [f[2:5] for f in place.faults(name)] == [
        (3, "book_id", "null_id"), (3, "date_added", "unparsable_time"),
        (4, "date_added", "implausible_time"), (6, "user_id", "null_id"),
    ]  # fmt: skip


def test_a_literal_is_data_and_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for code in (f"open({str(mark)!r}, 'w')", "[x for x in (1,)]", "(lambda: 1)()", "10**10**10",
                 "'a' * 10**9", "[" * 10**5, "-" * 10**5 + "1", "1" * 10**5):  # fmt: skip
        assert records.read_literal(code) is None
    assert not mark.exists()
    assert records.read_literal("{u'a': [1, u'\\u2665', None]}") == {"a": [1, "♥", None]}


def test_odd_records_do_not_stop_a_parse(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE", 4000)
    monkeypatch.setattr(records, "MAX_LITERAL", 1000)
    reviews, metadata = json_files.amazon_2023()
    first = reviews.splitlines()[0]
    half = first.replace(b"Such a scent!", b"half \\ud83d character").replace(b"AG1", b"AG8")
    huge = first.replace(b'"helpful_vote": 0', b'"helpful_vote": 1e300').replace(b"AG1", b"AG9")
    odd = [b'"' + b"x" * 5000 + b'"', b"[1, 2]", b"[" * 900, b"{'a': '" + b"y" * 1500 + b"'}",
           b"", b"\xff\xfe", half, huge]  # fmt: skip
    name = "amazon_2023_all_beauty"
    gz(place, name, {"All_Beauty.jsonl.gz": b"\n".join([first, *odd]),
                     "meta_All_Beauty.jsonl.gz": metadata})  # fmt: skip
    report = place.fetch("amazon-2023", category="All_Beauty", reviews=True)
    assert report["tables"]["interactions"] == 3
    assert place.rows(name, "reviews")[1]["title"] == "half ? character"
    assert place.rows(name, "interactions")[2]["helpful"] is None
    assert [f[2:5] for f in place.faults(name)] == [
        (2, "", "oversized_line"), (3, "", "malformed_row"), (4, "", "malformed_row"),
        (5, "", "oversized_line"), (7, "", "bad_encoding"), (7, "", "malformed_row"),
    ]  # fmt: skip
