"""Files of one record per line in the formats of their publishers, with the known defects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def lines(records: Iterable[Any]) -> bytes:
    """Return records as JSON lines; strings are taken as they are."""
    rows = [r if isinstance(r, str) else json.dumps(r) for r in records]
    return ("\n".join(rows) + "\n").encode()


def amazon_2014() -> tuple[bytes, bytes]:
    """Return reviews (JSON) and metadata (Python literals in either quoting)."""

    def review(user: str, item: Any, stars: Any = 5.0, day: Any = 1252800000, **more: Any) -> Any:
        return {
            "reviewerID": user, "asin": item, "reviewerName": "J. McDonald", "helpful": [2, 3],
            "reviewText": "I bought this &amp; like it.", "overall": stars, "summary": "Great",
            "unixReviewTime": day, "reviewTime": "09 13, 2009",
        } | more  # fmt: skip

    reviews = [
        review("A1", "0000031852"), review("A2", "0000031852", 3.0, 1252886400),
        review("A1", "B00004"), review("A1", "0000031852"),  # the last repeats the first
        review("", "B00004"), review("A3", "B00004", "five"), review("A3", "B00004", day="then"),
        review("A3", "B00004", day=-1), '{"reviewerID": "A9", "asin": ', review("A4", "BNOMETA"),
    ]  # fmt: skip
    metadata = [
        "{'asin': '0000031852', 'title': 'Girls Ballet Tutu &amp; Zebra', 'price': 3.17, "
        "'imUrl': 'http://ecx.images-amazon.com/images/I/51f.jpg', 'related': {'also_bought': "
        "['B00JHONN1S']}, 'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', "
        "'categories': [['Sports & Outdoors', 'Other Sports', 'Dance'], ['Sports & Outdoors']]}",
        "{'asin': 'B00004', 'description': \"It's a \\\"nice\\\" one\", "
        "'categories': [['Beauty']]}",
        "{'asin': __import__('os').system('touch /nowhere/evil')}",
        "{'title': 'no id'}",
        "{'asin': 'BDEEP', 'title': " + "[" * 500 + "]" * 500 + "}",
    ]
    return lines(reviews), lines(metadata)


def amazon_2018() -> tuple[bytes, bytes]:
    """Return reviews and metadata: votes with commas, page code as titles, repeated records."""

    def review(user: str, item: str, day: int = 1472688000, **more: Any) -> Any:
        return {
            "overall": 5.0, "verified": True, "reviewTime": "09 1, 2016", "reviewerID": user,
            "asin": item, "style": {"Size:": " 7.0 oz"}, "reviewerName": "Shelly F",
            "reviewText": "As advertised.<br />Good", "summary": "Five Stars",
            "unixReviewTime": day,
        } | more  # fmt: skip

    reviews = [
        review("A1", "B1", vote="1,234"), review("A1", "B1", style={"Size:": " 9 oz"}),
        review("A2", "B2", verified=False), review("A2", "B1", 1472774400),
    ]  # fmt: skip
    page = "var aPageStart = (new Date()).getTime(); P.when('A').execute(function(){})"

    def product(item: str, **more: Any) -> Any:
        return {
            "category": [], "tech1": "", "description": ["A <b>bold</b> claim"], "fit": "",
            "title": "Loud &amp; clear", "also_buy": [], "image": [], "tech2": "", "brand": "Koi",
            "feature": [], "rank": "2,938,573 in Beauty (", "also_view": [], "details": {},
            "main_cat": "All Beauty", "similar_item": "", "date": "", "price": "$1,299.00",
            "asin": item,
        } | more  # fmt: skip

    metadata = [
        product("B1", category=["Beauty", "Hair"]), product("B1"),
        product("B2", title=page, price=".a-box-inner{background-color:#fff}"),
        product("B3", title='<span class="a-size">Soap</span> 3 < 4', price="$3 - $9"),
    ]  # fmt: skip
    return lines(reviews), lines(metadata)


def amazon_2023() -> tuple[bytes, bytes]:
    """Return reviews and metadata: parent_asin, milliseconds, empty titles, both key spellings."""

    def review(user: str, item: str, time: int = 1588687728923, **more: Any) -> Any:
        return {
            "rating": 5.0, "title": "Such a scent!", "text": "It&#39;s lovely<br />x", "images": [],
            "asin": "B00YQ6X8EO", "parent_asin": item, "user_id": user, "timestamp": time,
            "helpful_vote": 0, "verified_purchase": True,
        } | more  # fmt: skip

    early = {"sort_timestamp": 1634275259292, "rating": 3.0, "helpful_votes": 7, "title": "Meh",
             "text": "x", "images": [], "asin": "B088", "verified_purchase": False,
             "parent_asin": "B08BBQ29N5", "user_id": "AEY"}  # fmt: skip
    reviews = [review("AG1", "P1"), review("AG1", "P1", 1588687728999), review("AG2", "P1"), early,
               review("AG2", "P9"), review("AG3", "P1", 99)]  # fmt: skip

    def product(item: str, **more: Any) -> Any:
        return {
            "main_category": "All Beauty", "title": "Howard LC0008", "average_rating": 4.8,
            "rating_number": 10, "features": ["One", "Two"], "description": [], "price": 12.5,
            "images": [{"thumb": "t.jpg", "large": "l.jpg", "variant": "MAIN", "hi_res": None}],
            "videos": [], "store": "Howard", "categories": [], "details": {"Brand": "Howard"},
            "parent_asin": item, "bought_together": None,
        } | more  # fmt: skip

    metadata = [product("P1"), product("B08BBQ29N5", title="", price="from 9.99", images=[])]
    return lines(reviews), lines(metadata)


def steam() -> tuple[bytes, bytes]:
    """Return reviews and games as Python literals with u'' strings."""
    reviews = [
        "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', "
        "u'page_order': 0, u'date': u'2017-12-17', u'text': u'It isn\\'t \\u2665', "
        "u'early_access': False, u'page': 1}",
        "{u'username': u'Ariman1', u'hours': 13.2, u'products': 1386, u'product_id': u'328100', "
        "u'page_order': 1, u'date': u'2017-08-02', u'text': u\"Addictive\", u'early_access': True, "
        "u'page': 1, u'user_id': u'76561198006114572', u'compensation': u'Product received for "
        "free'}",
        "{u'username': u'Ariman1', u'product_id': u'328100', u'date': u'2017-08-02', "
        "u'text': u'again'}",
        "{u'product_id': u'328100', u'date': u'2017-08-02', u'text': u'nobody'}",
        "{u'username': u'x', u'product_id': u'328100', u'date': u'2017-13-02'}",
        "{u'username': u'x', u'product_id': u'1', u'date': u'2016-01-02', u'hours': lambda: 1}",
        "{u'username': u'x', u'product_id': u'725280', u'date': u'2016-01-02', u'hours': None}",
    ]
    games = [
        "{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Casual'], u'app_name': u'Lost', "
        "u'title': u'Lost Summoner Kitty', u'url': u'http://store.steampowered.com/app/725280/', "
        "u'release_date': u'2018-01-04', u'tags': [u'Strategy'], u'discount_price': 4.49, "
        "u'specs': [u'Single-player'], u'price': 4.99, u'early_access': False, u'id': u'725280', "
        "u'developer': u'Kotoshiro'}",
        "{u'app_name': u'Only &amp; Name', u'price': u'Free To Play', u'id': u'328100'}",
        "{u'title': u'Without id', u'price': 1.0}",
    ]
    return lines(reviews), lines(games)


def yelp() -> dict[str, bytes]:
    """Return the three files that are read, and one that is not."""
    business = {
        "business_id": "b1", "name": "St Honore Pastries", "address": "935 Race St",
        "city": "Philadelphia", "state": "PA", "postal_code": "19107", "latitude": 39.955505,
        "longitude": -75.155564, "stars": 4.0, "review_count": 80, "is_open": 1,
        "attributes": {"RestaurantsPriceRange2": "1", "BusinessParking": "{'garage': False}"},
        "categories": "Restaurants, Food, Coffee & Tea", "hours": {"Monday": "7:0-20:0"},
    }  # fmt: skip
    businesses = [business, business | {"business_id": "b2", "categories": None,
                                        "attributes": None, "hours": None}]  # fmt: skip
    user = {
        "user_id": "u1", "name": "Walker", "review_count": 585,
        "yelping_since": "2007-01-25 16:47:26", "useful": 7217, "funny": 1259, "cool": 5994,
        "elite": "2007,20,20", "friends": "NSCy54eWehBJyZdG2iE84w, pe42u7DcCH2QmI81NX-8qA",
        "fans": 267, "average_stars": 3.91, "compliment_hot": 250,
    }  # fmt: skip
    review = {
        "review_id": "r1", "user_id": "u1", "business_id": "b1", "stars": 3.0, "useful": 0,
        "funny": 0, "cool": 0, "text": "If you decide\nto eat here", "date": "2018-07-07 22:09:11",
    }  # fmt: skip
    reviews = [review, review | {"user_id": "u2", "business_id": "b2"},
               review | {"date": "yesterday"}, review | {"stars": None},
               review | {"business_id": None}]  # fmt: skip
    prefix = "yelp_academic_dataset_"
    return {
        "Dataset_User_Agreement.pdf": b"%PDF",
        f"{prefix}business.json": lines(businesses),
        f"{prefix}review.json": lines(reviews),
        f"{prefix}user.json": lines([user, user | {"user_id": "u2", "elite": ""}, {"name": "x"}]),
    }


def goodreads() -> tuple[bytes, bytes]:
    """Return books and shelf events: numbers as strings, dates with a zone, ratings of 0."""
    book = {
        "isbn": "", "text_reviews_count": "1", "series": ["189911"], "country_code": "US",
        "language_code": "eng", "popular_shelves": [{"count": "58", "name": "to-read"},
        {"count": "15", "name": "fantasy"}, {"count": "6", "name": "poetry"}], "asin": "B00071IKUY",
        "is_ebook": "false", "average_rating": "4.03", "kindle_asin": "", "similar_books": [],
        "description": "Omnibus book &amp; more", "format": "Hardcover", "link": "https://x",
        "authors": [{"author_id": "10333", "role": ""}], "publisher": "Nelson Doubleday",
        "num_pages": "600", "publication_day": "", "isbn13": "", "publication_month": "",
        "edition_information": "", "publication_year": "1987", "url": "https://x",
        "image_url": "https://x.jpg", "book_id": "7327624", "ratings_count": "140",
        "work_id": "8948723", "title": "The Unschooled Wizard", "title_without_series": "x",
    }  # fmt: skip
    books = [book, book | {"book_id": "402128", "title": "", "num_pages": "", "is_ebook": "true",
                           "popular_shelves": []}, book | {"book_id": ""}]  # fmt: skip
    event = {
        "user_id": "80d52f5e70f023bd0098ab96599a3530", "book_id": "402128", "review_id": "f",
        "is_read": True, "rating": 4, "review_text_incomplete": "",
        "date_added": "Fri Apr 19 08:15:15 -0700 2013", "date_updated": "x", "read_at": "",
        "started_at": "",
    }  # fmt: skip
    events = [event, event | {"rating": 0, "is_read": False, "book_id": "7327624"},
              event | {"date_added": "Sun Feb 30 08:15:15 -0700 2013"},
              event | {"date_added": "Mon Jan 01 00:00:00 +0000 0012"},
              event | {"book_id": "999"}, event | {"user_id": None}]  # fmt: skip
    return lines(books), lines(events)
