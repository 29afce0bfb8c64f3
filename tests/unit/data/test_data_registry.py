"""Discovery, `add`, `check` and `show`."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.add import to_toml
from llmers_pipelines.data.description import load_description
from llmers_pipelines.data.guess import guess_columns, guess_fields
from llmers_pipelines.data.registry import (
    add_dataset,
    check_dataset,
    dataset_template,
    description_files,
    find_dataset,
    list_datasets,
    show_dataset,
)
from llmers_pipelines.data.schema import DataError

PUBLIC = {"amazon_beauty", "amazon_office", "goodreads", "grocery", "imdb_aspects", "ml100k",
          "ml1m", "ml_latest_small"}  # fmt: skip


def test_packaged_descriptions_are_valid(tmp_path):
    files = description_files(tmp_path)
    assert set(files) >= PUBLIC
    for name in PUBLIC:
        d = find_dataset(name, tmp_path)
        assert d.default_task in d.splits and d.about and d.terms
        for answers in d.recorded.values():
            assert answers.source and (answers.entity == "item" or answers.data_cutoff != "none")


def test_listing_says_what_is_missing(tmp_path):
    rows = {r["name"]: r for r in list_datasets(tmp_path, tmp_path)}
    assert "set the environment variable LLMERS_DATA_ROOT" in rows["ml100k"]["missing"]
    assert "ctr_time" in rows["ml100k"]["tasks"]
    rows = {r["name"]: r for r in list_datasets(tmp_path)}
    assert "LLMERS_DATA_ROOT" in rows["grocery"]["missing"]


def test_project_folders_are_searched(tmp_path):
    (tmp_path / "data" / "datasets").mkdir(parents=True)
    (tmp_path / "data" / "toys").mkdir()
    text = dataset_template("shop")
    (tmp_path / "data" / "datasets" / "shop.toml").write_text(text)
    (tmp_path / "data" / "toys" / "toys.toml").write_text(text.replace('"shop"', '"toys"'))
    (tmp_path / "data" / "toys" / "other.toml").write_text("x")
    extra = tmp_path / "mine"
    extra.mkdir()
    (extra / "wine.toml").write_text(text)
    assert {"shop", "toys", "wine"} <= set(description_files(tmp_path, [extra]))
    assert "other" not in description_files(tmp_path)
    assert find_dataset("toys", tmp_path).folder() == tmp_path / "data" / "toys"
    with pytest.raises(DataError, match="name is 'shop'; it must be 'wine'"):
        find_dataset("wine", tmp_path, [extra])
    with pytest.raises(DataError, match=r"no data set 'shp'; did you mean 'shop'\?"):
        find_dataset("shp", tmp_path)
    (extra / "shop.toml").write_text(text)
    with pytest.raises(DataError, match="both describe a data set 'shop'"):
        find_dataset("shop", tmp_path, [extra])


def test_template_is_a_valid_description(tmp_path):
    (tmp_path / "toys.toml").write_text(dataset_template("toys"))
    d = load_description(tmp_path / "toys.toml")
    assert d.name == "toys" and d.tasks == ("sequential", "collaborative")


def test_bundled_sample_is_whole():
    """The sample needs nothing from outside: every split works, recorded answers find their row."""
    report = check_dataset(find_dataset("sample"))
    assert report["ok"] and not report["quarantined"] and not report["warnings"]
    assert set(report["splits"]) == {"sequential", "collaborative", "ctr"}
    assert report["splits"]["ctr"]["history"] > 0
    for counts in report["recorded"].values():
        assert counts["answers"] > 100 and not counts["empty"]


def write_shop(folder):
    words = "a long enough sentence about the thing, with commas, "
    rows = "".join(
        f'00{n},Thing {n},"{words}number {n}","{"red,big" if n % 2 else "blue,small"}",{n * 1.5}\n'
        for n in range(40)
    )
    (folder / "catalog.csv").write_text("ASIN,product_name,about,tags,price\n" + rows)
    n = 200
    pq.write_table(
        pa.table({
            "reviewerID": [f"r{k % 20}" for k in range(n)],
            "asin": [f"00{k * 3 // 20 % 40}" for k in range(n)],
            "overall": [float(k % 5 + 1) for k in range(n)],
            "unixReviewTime": [1_500_000_000 + 86_400 * k for k in range(n)],
        }),
        folder / "reviews.parquet",
    )  # fmt: skip


def test_add_guesses_validates_and_writes(tmp_path):
    write_shop(tmp_path)
    made = add_dataset("shop", tmp_path / "sets", items=tmp_path / "catalog.csv",
                       interactions=tmp_path / "reviews.parquet")  # fmt: skip
    assert made["report"]["ok"], made["report"]
    d = load_description(tmp_path / "sets" / "shop.toml")
    assert d.items.columns == {"item_id": "ASIN", "title": "product_name"}
    assert {n: f.kind for n, f in d.items.fields.items()} == {
        "title": "text", "about": "text", "tags": "category", "price": "number",
    }  # fmt: skip
    assert d.items.fields["tags"].separator == ","
    assert d.interactions.columns == {
        "user_id": "reviewerID", "item_id": "asin", "rating": "overall",
        "timestamp": "unixReviewTime",
    }  # fmt: skip
    assert d.tasks == ("sequential", "collaborative", "ctr")
    assert made["report"]["splits"]["sequential"]["test"] == 20
    assert json.dumps(made) and json.dumps(show_dataset(d))
    with pytest.raises(DataError, match="exists already"):
        add_dataset("shop", tmp_path / "sets", items=tmp_path / "catalog.csv",
                    interactions=tmp_path / "reviews.parquet")  # fmt: skip


def test_add_takes_a_mapping_and_options(tmp_path):
    catalog = "sku;Größe\n" + "".join(f"{k};groß\n" for k in range(30))
    (tmp_path / "i.csv").write_bytes(catalog.encode("latin-1"))
    (tmp_path / "l.csv").write_text("kunde,ware,sterne\n" + "".join(
        f"k{k % 4},{k},{k % 7}\n" for k in range(30)))  # fmt: skip
    files = {"items": tmp_path / "i.csv", "interactions": tmp_path / "l.csv"}
    mapping = {"interactions.user_id": "kunde", "interactions.item_id": "ware",
               "interactions.rating": "sterne"}  # fmt: skip
    with pytest.raises(DataError, match="latin-1"):
        add_dataset("laden", tmp_path, **files, mapping=mapping)
    options = {"items.encoding": "latin-1"}
    with pytest.raises(DataError, match=r"no column could be told to be user_id.*kunde"):
        add_dataset("laden", tmp_path, **files, options=options)
    options["interactions.rating"] = "0,5"
    made = add_dataset("laden", tmp_path, **files, mapping=mapping, options=options)
    assert made["report"]["quarantined"] == {"interactions.rating_out_of_range": 4}
    d = load_description(tmp_path / "laden.toml")
    assert d.items.encoding == "latin-1" and d.interactions.rating == (0.0, 5.0)
    assert d.tasks == ("collaborative",)  # no time: no leave-one-out
    assert d.items.path == "i.csv"  # relative to the toml
    with pytest.raises(DataError, match=r"write TABLE\.COLUMN"):
        add_dataset("x", tmp_path, **files, mapping={"item_id": "sku"})


def test_add_writes_nothing_when_validation_fails(tmp_path):
    (tmp_path / "i.csv").write_text("item_id,title\na,A\n")
    (tmp_path / "l.csv").write_text("user_id,item_id\nu,zz\n")
    made = add_dataset("bad", tmp_path, items=tmp_path / "i.csv", interactions=tmp_path / "l.csv")
    assert made["file"] == "" and not (tmp_path / "bad.toml").exists()
    assert "no valid interactions left" in made["report"]["errors"][0]


def test_add_leaves_out_splits_that_the_log_cannot_give(tmp_path):
    (tmp_path / "i.csv").write_text("item_id,title\n" + "".join(f"i{k},T{k}\n" for k in range(9)))
    (tmp_path / "l.csv").write_text(
        "user_id,item_id,rating,timestamp\n"
        + "".join(f"u{k},i{k % 9},{k % 5 + 1},{1_500_000_000 + k}\n" for k in range(90))
    )
    made = add_dataset("once", tmp_path, items=tmp_path / "i.csv", interactions=tmp_path / "l.csv")
    assert made["report"]["ok"] and load_description(tmp_path / "once.toml").tasks == ("ctr",)
    assert any("left out" in w and "'sequential'" in w for w in made["report"]["warnings"])


def test_add_leaves_out_a_split_without_validation_rows(tmp_path):
    (tmp_path / "i.csv").write_text("item_id,title\n" + "".join(f"i{k},T{k}\n" for k in range(9)))
    rows = [
        f"u{u},i{(u + n) % 9},{n % 5 + 1},2020-01-0{1 + (n > 2)}\n"
        for u in range(9) for n in range(6)
    ]  # fmt: skip
    (tmp_path / "l.csv").write_text("user_id,item_id,rating,timestamp\n" + "".join(rows))
    made = add_dataset("days", tmp_path, items=tmp_path / "i.csv", interactions=tmp_path / "l.csv")
    assert made["report"]["ok"]
    d = load_description(tmp_path / "days.toml")
    assert d.tasks == ("sequential", "collaborative") and d.default_task == "sequential"
    (told,) = made["report"]["warnings"]
    for word in ("left out", "'ctr' (time) has no validation rows", "days.toml", "valid_from"):
        assert word in told


def test_add_says_what_a_log_without_time_costs(tmp_path):
    rows = "".join(f"u{n % 9},{n % 7}\n" for n in range(60))
    (tmp_path / "i.csv").write_text("id,title\n" + "".join(f"{n},T{n}\n" for n in range(7)))
    (tmp_path / "l.csv").write_text("user,item\n" + rows)
    made = add_dataset("flat", tmp_path, items=tmp_path / "i.csv", interactions=tmp_path / "l.csv")
    told = [w for w in made["report"]["warnings"] if "split at random" in w]
    assert told
    assert "interactions.timestamp=COLUMN" in told[0]


def test_guessing_columns():
    found = guess_columns(["ID", "Movie Title", "movieId"], ["item_id", "title"])
    assert found == {"item_id": "movieId", "title": "Movie Title"}
    wanted = ["user_id", "item_id", "timestamp", "position"]
    both = guess_columns(["uid", "item", "order", "ts"], wanted)
    assert both == {"user_id": "uid", "item_id": "item", "timestamp": "ts"}
    assert guess_columns(["a", "b"], ["item_id"], {"item_id": "b"}) == {"item_id": "b"}


def test_guessing_kinds():
    n = 60
    table = pa.table({
        "genre": [["x", "y"][k % 2] for k in range(n)],
        "genres": ["x|y" if k % 2 else "z" for k in range(n)],
        "lists": [["x"] for _ in range(n)],
        "bytes": [[b"x", b"y"][k % 2] for k in range(n)],
        "plot": [f"A rather long text, number {k}, that says something" for k in range(n)],
        "cover": [f"/img/{k}.jpg" for k in range(n)],
        "price": [float(k) for k in range(n)],
        "level": [k % 3 for k in range(n)],
        "shop_id": list(range(n)),
        "nothing": pa.nulls(n, pa.string()),
    })  # fmt: skip
    assert guess_fields(table, skip=[]) == {
        "genre": {"kind": "category"},
        "genres": {"kind": "category", "separator": "|"},
        "lists": {"kind": "category", "separator": "|"},
        "bytes": {"kind": "category"},
        "plot": {"kind": "text"},
        "cover": {"kind": "image"},
        "price": {"kind": "number"},
        "level": {"kind": "category"},
    }


def test_a_slip_leaves_a_column_of_numbers_one():
    prices = [str(n / 4) for n in range(99)]
    field = guess_fields(pa.table({"price": [*prices, "12,5o"]}), [])
    assert field == {"price": {"kind": "number"}}
    half = guess_fields(pa.table({"price": prices[:50] + ["n/a"] * 49 + ["12,5o"]}), [])
    assert half["price"] != {"kind": "number"}


def test_toml_round_trip(tmp_path):
    import tomllib

    raw = {
        "name": "x", "items": {"path": 'a "b"\\c\n', "columns": {"item_id": "Größe"},
        "fields": {"my col": {"kind": "category", "separator": "|"}}},
        "splits": {"ctr": {"protocol": "time", "shares": [0.8, 0.1, 0.1]}}, "flag": True,
    }  # fmt: skip
    assert tomllib.loads(to_toml(raw)) == raw


def test_check_reports_instead_of_raising(make):
    log = "user_id,item_id,timestamp\n" + "".join(f"u,a,150000000{k}\n" for k in range(9))
    d = make(log=log + "u,zz,1500000009\n", items="item_id,name\na,A\n",
             splits={"sequential": {"protocol": "leave_one_out"}},
             recorded={"item_knowledge": {"path": "none.csv", "data_cutoff": "none"}})  # fmt: skip
    report = check_dataset(d)
    assert not report["ok"] and report["counts"]["interactions"] == 9
    assert report["quarantined"] == {"interactions.unknown_item": 1}
    assert "'zz'" in report["faults"][0]
    assert [w for w in report["warnings"] if "10.0% of the interactions" in w]
    assert [w for w in report["warnings"] if "no item has a title" in w]
    assert "no test rows" in report["errors"][0] and "none.csv" in report["errors"][1]
    assert json.dumps(report)


def test_check_tells_what_is_wrong_beside_the_log(make, tmp_path):
    (tmp_path / "reviews.csv").write_text("user_id,item_id\nu1,a\nghost,a\n,a\n")
    (tmp_path / "users.csv").write_text("user_id,age\nu1,3\n")
    extra = {"users": {"path": "users.csv"}, "reviews": {"path": "reviews.csv"}}
    report = check_dataset(make(splits={"sequential": {"protocol": "leave_one_out"}}, **extra))
    assert report["ok"] and report["quarantined"] == {"reviews.null_id": 1}
    assert "reviews.csv, row 3, column 'user_id'" in report["faults"][0]
    assert any("users.csv lacks 1 of the 2 users" in w for w in report["warnings"])
    assert any("'ghost'" in w and "reviews.csv" in w for w in report["warnings"])


def test_show_counts_by_hand(make):
    facts = show_dataset(make())
    assert (facts["users"], facts["items"], facts["interactions"]) == (2, 4, 6)
    assert facts["density"] == 0.75 and facts["per_item"]["most"] == 2
    assert facts["time"]["first"] == "2017-07-14T02:40:00+00:00"
    assert facts["ratings"] == {"mean": 3.8333, "counts": {"2": 1, "3": 1, "4": 2, "5": 2}}
    # counts 1 1 2 2: sum (2i - 5) x = -3 - 1 + 2 + 6 = 4; 4 / (4 * 6)
    assert facts["head"] == {
        "items_in_head": 1, "share_of_head": 0.333333, "items_without_interaction": 0,
        "gini": 0.166667,
    }  # fmt: skip
    assert facts["text_coverage"] == {"title": 1.0}


def test_a_home_that_is_another_copy_of_the_project_speaks_for_itself(tmp_path):
    source = find_dataset("sample").file
    (tmp_path / "data" / "sample").mkdir(parents=True)
    own = tmp_path / "data" / "sample" / "sample.toml"
    own.write_text(source.read_text())
    assert find_dataset("sample", tmp_path).file == own
    assert find_dataset("sample").file == source
