"""From a name to a usable data set: local copies first, terms, checks, the description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import raw_files
from faulty_server import Served, Server, serve
from public_place import Place, never

from llmers_pipelines.data.public import counting, describe, fetch, prepare
from llmers_pipelines.data.public.counting import distinct, repeated_rows
from llmers_pipelines.data.public.describe import PublicSet, RawFile, read_count
from llmers_pipelines.data.public.download import Download
from llmers_pipelines.data.public.progress import Progress
from llmers_pipelines.data.public.tables import Build
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.data.schema import DataError


def films(users: int = 24, items: int = 30) -> dict[str, bytes]:
    """Return an ml-100k archive large enough for every split."""
    rng = np.random.default_rng(0)
    rows, start = [], 880_000_000
    for user in range(1, users + 1):
        for place, item in enumerate(rng.choice(items, 12, replace=False) + 1):
            rows.append(f"{user}\t{item}\t{rng.integers(1, 6)}\t{start + user * 999 + place * 7}")
    movies = [f"{i}|Film {i} (199{i % 10})|||x|{raw_files.genre_marks(1 + i % 18)}"
              for i in range(1, items + 1)]  # fmt: skip
    people = [f"{u}|{20 + u}|{'MF'[u % 2]}|writer|0{u}" for u in range(1, users + 1)]
    return {
        "ml-100k/u.data": "\n".join(rows).encode(), "ml-100k/u.item": "\n".join(movies).encode(),
        "ml-100k/u.user": "\n".join(people).encode(),
    }  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def served(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """MovieLens 100K on the loopback server, with the checksum of what is there."""
    archive = raw_files.zip_file(tmp_path / "src" / "ml-100k.zip", films()).read_bytes()
    server.files["ml-100k.zip"] = Served(archive)
    use(monkeypatch, server, md5=hashlib.md5(archive, usedforsecurity=False).hexdigest())
    return server


def use(monkeypatch: pytest.MonkeyPatch, server: Server, **more: object) -> None:
    """Point MovieLens 100K at the server; ``more`` changes its file."""
    genuine = describe.public_sets()["movielens_100k"]
    values: dict = {"md5": "", "published": True} | more
    file = RawFile("ml-100k.zip", (server.url("ml-100k.zip"),), **values)
    changed = {"movielens_100k": replace(genuine, files=(file,), counts={})}
    monkeypatch.setattr(describe, "public_sets", lambda: changed)


def quiet() -> Download:
    return Download(Progress(shown=False), lambda seconds: None, timeout=5)


def yes(source: PublicSet) -> bool:
    return True


def test_a_fetched_set_is_a_usable_data_set(place: Place, served: Server) -> None:
    served.files["ml-100k.zip"].faults = ["drop:700"]
    asked = []
    report = place.fetch("ml-100k", agree=lambda s: bool(asked.append(s.name)) or True,
                         download=quiet())  # fmt: skip
    assert asked == ["movielens_100k"] and report["status"] == "prepared"
    assert report["warnings"] == [] and report["quarantined"] == {}
    assert [r[1] for r in served.requests] == ["", "bytes=700-"], "it was resumed"
    checked = place.check("movielens_100k")
    assert checked["ok"], checked["errors"]
    assert checked["counts"] == {"items": 30, "users": 24, "interactions": 288}
    assert set(checked["splits"]) == {"ctr", "sequential", "collaborative"}
    described = find_dataset("movielens_100k", place.home)
    assert described.root == "$data/movielens_100k" and "files.grouplens.org" in described.terms
    manifest = json.loads((place.root / "movielens_100k" / "fetched.json").read_text())
    assert manifest["files"][0]["checked"] is True


def test_a_prepared_copy_needs_neither_network_nor_terms(place: Place, served: Server) -> None:
    place.fetch("ml-100k", agree=yes, download=quiet())
    served.requests.clear()
    again = place.fetch("ml-100k", agree=never)
    assert again["status"] == "prepared already" and again["tables"]["interactions"] == 288
    other = Place(place.home.parent / "another-home", place.root)
    assert other.fetch("ml-100k", agree=never)["status"] == "prepared already"
    assert other.check("movielens_100k")["ok"], "the copy is described in the other home as well"
    (place.root / "movielens_100k" / ".lock").unlink()
    place.fetch("ml-100k", agree=never)
    assert not (place.root / "movielens_100k" / ".lock").exists(), "it may be a read-only copy"
    assert place.fetch("ml-100k", agree=never, again=True)["status"] == "prepared"
    assert served.requests == [], "--again reads the raw file that is here"


def test_a_table_that_is_gone_is_made_again(place: Place, served: Server) -> None:
    place.fetch("ml-100k", agree=yes, download=quiet())
    (place.root / "movielens_100k" / "items.parquet").unlink()
    assert place.fetch("ml-100k", agree=never)["status"] == "prepared"
    assert len(place.rows("movielens_100k", "items")) == 30


def test_nothing_is_downloaded_without_a_yes(place: Place, served: Server) -> None:
    with pytest.raises(DataError, match=r"terms of MovieLens 100K were not accepted.*accept-terms"):
        place.fetch("ml-100k", agree=lambda source: False, download=quiet())
    assert served.requests == []


def test_a_wrong_checksum_goes_to_quarantine(
    place: Place, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "0" * 32
    use(monkeypatch, served, md5=wrong)
    with pytest.raises(DataError, match=rf"but its publisher gives {wrong}.*It was moved to"):
        place.fetch("ml-100k", agree=yes, download=quiet())
    raw = place.root / "movielens_100k" / "raw"
    assert not (raw / "ml-100k.zip").exists() and len(list((raw / "quarantine").iterdir())) == 1
    assert not (place.root / "movielens_100k" / "fetched.json").exists()
    place.raw("movielens_100k").joinpath("ml-100k.zip").write_bytes(b"PK local")
    with pytest.raises(DataError, match="It was moved to"):
        place.fetch("ml-100k")  # a local copy is checked as well


def test_a_checksum_that_others_recorded_only_warns(
    place: Place, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, served, md5="0" * 32, published=False)
    report = place.fetch("ml-100k", agree=yes, download=quiet())
    assert "others recorded 0000" in report["warnings"][0]


def test_a_length_that_nobody_tells_is_said(
    place: Place, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = served.files["ml-100k.zip"]
    archive.faults = ["no_length"]
    assert place.fetch("ml-100k", agree=yes, download=quiet())["warnings"] == [], "by its checksum"
    (place.root / "movielens_100k" / "raw" / "ml-100k.zip").unlink()
    archive.faults = ["no_length"]
    use(monkeypatch, served)
    report = place.fetch("ml-100k", agree=yes, again=True, download=quiet())
    assert "ml-100k.zip: its length could not be checked" in report["warnings"][0]


def test_a_changing_file_is_checked_against_its_publishers_checksum(
    place: Place, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, served, checksum_url=served.url("ml-100k.zip.md5"))
    report = place.fetch("ml-100k", agree=yes, download=quiet())
    assert "has no checksum: ml-100k.zip is unchecked" in report["warnings"][0]
    served.files["ml-100k.zip.md5"] = Served(b"MD5 (ml-100k.zip) = " + b"0" * 32)
    (place.root / "movielens_100k" / "raw" / "ml-100k.zip").unlink()
    with pytest.raises(DataError, match="but its publisher gives 0000"):
        place.fetch("ml-100k", agree=yes, again=True, download=quiet())


def test_a_page_in_place_of_the_file_is_told(
    place: Place, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, served)
    served.files["ml-100k.zip"] = Served(b"<!DOCTYPE html><p>please log in")
    with pytest.raises(DataError, match=r"is a web page, not the file\. It was moved to"):
        place.fetch("ml-100k", agree=yes, download=quiet())


def test_a_file_that_is_gone_says_where_to_look_and_where_to_put_it(
    place: Place, served: Server
) -> None:
    served.files.clear()
    with pytest.raises(DataError, match=r"answers 404 .*grouplens.org/datasets/movielens/100k"):
        place.fetch("ml-100k", agree=yes, download=quiet())


def test_sets_that_a_person_must_download_say_how(place: Place) -> None:
    with pytest.raises(DataError, match=r"(?s)msnews\.github\.io.*MINDsmall_train\.zip and MINDsm"):
        place.fetch("mind-small")
    raw = place.root / "yelp" / "raw"
    with pytest.raises(DataError, match=rf"Put it into {raw}, then run this again. Terms: Yelp"):
        place.fetch("yelp")


def test_a_family_wants_one_of_its_categories(place: Place) -> None:
    with pytest.raises(DataError, match=r"choose one with --category: .*Beauty"):
        place.fetch("amazon-2014")
    with pytest.raises(DataError, match=r"no category 'Beuty'; did you mean 'Beauty'"):
        place.fetch("amazon-2014", category="Beuty")
    with pytest.raises(DataError, match="has no categories"):
        place.fetch("steam", category="Action")
    with pytest.raises(DataError, match=r"no public data set 'ml-100'; did you mean 'ml-100k'"):
        place.fetch("ml-100")
    assert describe.find_public("ml100k") is None, "that is the name of a cleaned local export"


def test_without_a_data_root_the_set_lies_in_the_home(place: Place, served: Server) -> None:
    report = fetch.fetch_public("ml-100k", home=place.home, data_root=None, agree=yes,
                                download=quiet())  # fmt: skip
    assert report["folder"] == str(place.home / "data" / "public" / "movielens_100k")
    assert Place(place.home, None).check("movielens_100k")["ok"]  # type: ignore[arg-type]


def test_a_description_of_ones_own_is_kept(place: Place, served: Server) -> None:
    report = place.fetch("ml-100k", agree=yes, download=quiet())
    file = Path(report["description"])
    file.write_text(file.read_text().replace("history = 30", "history = 5"))
    place.fetch("ml-100k", again=True)
    assert find_dataset("movielens_100k", place.home).split("ctr").history == 5
    file.write_text(file.read_text().replace("$data/movielens_100k", "/elsewhere"))
    with pytest.raises(DataError, match="remove or rename it"):
        place.fetch("ml-100k")


def test_two_fetches_of_one_set_do_not_meet(place: Place, served: Server) -> None:
    def second(source: PublicSet) -> bool:
        with pytest.raises(DataError, match="is being fetched by another process"):
            place.fetch("ml-100k", agree=never)
        return True

    assert place.fetch("ml-100k", agree=second, download=quiet())["status"] == "prepared"


def test_a_stop_in_the_middle_leaves_the_old_tables(
    place: Place, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.fetch("ml-100k", agree=yes, download=quiet())
    monkeypatch.setattr(prepare, "compare", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        place.fetch("ml-100k", again=True)
    folder = place.root / "movielens_100k"
    assert not (folder / ".building").exists()
    assert place.fetch("ml-100k")["status"] == "prepared already"


@pytest.mark.parametrize("part", [7, 1000])
def test_counts_and_repetitions_are_exact_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(counting, "PART", part)
    rng = np.random.default_rng(1)
    rows = [(f"u{a}", f"i{b}", int(t)) for a, b, t in rng.integers(0, 6, (200, 3))]
    build = Build(tmp_path / "build")
    table = build.table("log", user_id="text", item_id="text", timestamp="int")
    for row in rows:
        table.add(*row)
    build.close()
    path = build.path("log")
    assert distinct(path, "user_id", tmp_path) == len({r[0] for r in rows})
    seen: set = set()
    wanted = [i for i, r in enumerate(rows) if r in seen or seen.add(r)]
    found = repeated_rows(path, ("user_id", "item_id", "timestamp"), tmp_path)
    assert found.tolist() == wanted


def test_rounded_counts_match_what_rounds_to_them() -> None:
    assert read_count("701.5K").matches(701_528) and not read_count("701.5K").matches(701_600)
    assert read_count("2.5M").matches(2_549_999) and not read_count("2.5M").matches(2_560_000)
    assert read_count(100000).matches(100_000) and not read_count(100000).matches(99_999)
    assert read_count("641").matches(641) and not read_count("641").matches(640)


def test_every_packaged_description_makes_a_valid_data_set(place: Place) -> None:
    from llmers_pipelines.data.description import load_description

    sets = describe.public_sets()
    assert len(sets) == 15
    for source in sets.values():
        member = source.choose(next(iter(source.categories), ""))
        target, _ = fetch.describe(member, place.root / member.dataset_name, place.home, place.root,
                                   reviews=True)  # fmt: skip
        described = load_description(target)
        assert described.name == member.dataset_name and described.splits
        assert described.default_task in described.splits
        assert all(u.startswith(("https://", "http://")) for f in source.files for u in f.urls)
        assert source.terms and source.terms_url and source.citation and source.defects


def test_a_wrong_packaged_description_names_the_mend(tmp_path: Path) -> None:
    good = (describe.FOLDER / "steam.toml").read_text()
    for old, new, told in (
        ('parser = "steam"', 'parser = "steem"', r"did you mean 'steam'"),
        ("[[files]]", "[[fils]]", r"fils.*is not a known setting|files.*is empty"),
        ('name = "steam"', 'name = "vapor"', "it must be 'steam'"),
        ("interactions = 7793069", 'interactions = "many"', "expected a number, or one like"),
    ):
        (tmp_path / "steam.toml").write_text(good.replace(old, new))
        with pytest.raises(DataError, match=told):
            describe.load_public(tmp_path / "steam.toml")


def test_goodreads_genres_and_amazon_categories_have_addresses_of_their_own() -> None:
    chosen = describe.public_sets()["amazon_2018"].choose("sports and outdoors")
    assert chosen.dataset_name == "amazon_2018_sports_and_outdoors"
    assert [f.name for f in chosen.files] == [
        "Sports_and_Outdoors_5.json.gz", "meta_Sports_and_Outdoors.json.gz",
    ]  # fmt: skip
    assert chosen.files[0].urls[0].endswith("/categoryFilesSmall/Sports_and_Outdoors_5.json.gz")
