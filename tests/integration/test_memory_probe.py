"""`llmers prompts memory`: asked once, kept, and refused where no language model is."""

from __future__ import annotations

from pathlib import Path

import pytest
from shop import BOOKS, Shop, same_environment, title

from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine

CHOICE = """
[llmers]
dataset = "shop"
[llm]
engine = "hf"
model = "a-model"
[[methods]]
recipe = "sasrec"
"""


def test_a_model_that_knows_the_titles_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop.open(tmp_path / "home")
    (shop.home / "llmers.toml").write_text(CHOICE)
    known = {f"title:b{i:02}": title(i) for i in range(1, BOOKS + 1)}
    engine = FakeEngine({**known, **{f"next:u{u:02}": "b01" for u in range(1, 41)}})
    monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
    assert shop.ask("prompts", "memory") is None
    told = shop.ask("prompts", "memory", "--ask", "--count", "20")
    kinds = {r["kind"]: r for r in told["kinds"]}
    assert kinds["title"]["share"] == 1.0 and kinds["title"]["known"]
    assert not kinds["next"]["known"] and told["known"]
    assert told["llm_calls"] == len(engine.asked) == 20 + 20
    again = shop.ask("prompts", "memory", "--ask", "--count", "20")
    assert again["llm_calls"] == 0 and len(engine.asked) == 40
    assert again["kinds"] == told["kinds"] == shop.ask("prompts", "memory")["kinds"]
    shown = shop.invoke("prompts", "memory")
    assert "the title of an item id" in shown.output and "on another one" in shown.output


def test_without_a_model_nothing_is_probed(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "home")
    with same_environment():
        result = shop.invoke("prompts", "memory", "--ask")
    assert result.exit_code != 0
    assert "a memory is a language model's" in result.stderr + str(result.exception)
