"""The page of public data sets is made from the descriptions, and the commands tell them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import raw_files
from click.testing import CliRunner
from public_place import Place

from llmers_pipelines import cli
from llmers_pipelines.data.public.describe import public_sets
from llmers_pipelines.data.public.overview import rewrite
from llmers_pipelines.data.schema import DataError

PAGE = Path(__file__).parents[4] / "docs" / "public-data.md"


def test_the_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    mend = "python -m llmers_pipelines.data.public.overview docs/public-data.md"
    assert rewrite(page) == page, f"docs/public-data.md is behind: run {mend}"
    assert all(f"| `{name}`" in page for name in public_sets())
    with pytest.raises(DataError, match="the page has no lines"):
        rewrite("# nothing")


@pytest.fixture
def ask(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Run a command in the place; return exit code, stdout and stderr."""
    monkeypatch.setenv("LLMERS_HOME", str(place.home))
    monkeypatch.setenv("LLMERS_DATA_ROOT", str(place.root))
    place.home.mkdir(parents=True)

    def run(*words: str):
        return CliRunner().invoke(cli.main, ["datasets", *words])

    return run


def test_the_list_names_what_can_be_fetched(ask, place: Place) -> None:
    rows = {r["name"]: r for r in json.loads(ask("--json").stdout)}
    assert rows["movielens_20m"]["fetch"] and "llmers datasets fetch" in rows["steam"]["missing"]
    assert rows["yelp"]["how"] == "by hand" and rows["ml100k"].get("fetch") is None
    place.raw("steam").joinpath("steam_reviews.json.gz").write_bytes(b"x")
    place.raw("steam").joinpath("steam_games.json.gz").write_bytes(b"x")
    text = ask().stdout
    assert "Can be fetched" in text and "movielens_32m" in text
    assert any(line.split()[:3] == ["steam", "raw", "files"] for line in text.splitlines())


def test_show_prints_terms_and_addresses(ask) -> None:
    text = ask("show", "ml-20m").stdout
    assert "terms: Research use with citation" in text and "ml-20m-README.html" in text
    assert "url: https://files.grouplens.org/datasets/movielens/ml-20m.zip\n" in text
    assert "checksum: md5 cd245b17a1ae2cc31bb14903e1204af3\n" in text
    facts = json.loads(ask("show", "mind-small", "--json").stdout)
    assert "msnews.github.io" in facts["get"] and facts["get"].endswith("mind_small/raw")
    told = str(ask("check", "ml-20m").exception)
    assert "MovieLens 20M can be fetched with `llmers datasets fetch ml-20m`" in told


def test_fetch_tells_terms_counts_and_the_quarantine(ask, place: Place, unchecked: None) -> None:
    refused = ask("fetch", "ml-1m")
    assert refused.exit_code != 0 and "ml-1m-README.txt" in refused.stderr
    assert "--accept-terms" in str(refused.exception), "there is no terminal to ask at"
    raw_files.zip_file(place.raw("movielens_1m") / "ml-1m.zip", raw_files.movielens_1m())
    done = ask("fetch", "ml-1m")
    assert done.exit_code == 0, done.exception
    assert "interactions.malformed_row" in done.stdout and "1000209" in done.stdout
    assert "warning: interactions: 4 found, 1000209 published" in done.stderr
    assert "\r" not in done.stderr, "progress is for terminals"
    report = json.loads(ask("fetch", "ml-1m", "--json").stdout)
    assert report["status"] == "prepared already" and report["tables"]["users"] == 3
    assert "Cite: F. Maxwell Harper" in ask("show", "movielens_1m").stdout
    assert "movielens_1m" in {r["name"] for r in json.loads(ask("--json").stdout)}
