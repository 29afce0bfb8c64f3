"""Killed at a random moment and started again: no repeated call, and the same bits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graph_shop
import pytest
import test_behaviours
import test_cold_edges
import test_denoised
import test_hard_rounds
import test_masked_fields
import test_rationales
import test_scenario_texts
import test_teacher_states
import test_tuned_models
import test_two_models
import tiny_lm
import told_lm
from killed import OFTEN, Ticks, counted, moments, repeated, work, work_and_die
from shop import SHOP, SMALL, TINY, Shop

from llmers_pipelines.llm import factory
from llmers_pipelines.tune.tiny_model import make_tiny_model

TEDREC = """
[llmers]
dataset = "shop"
[encoder]
name = "tfidf?dim=12"
[evaluation]
controls = ["permuted"]
[[methods]]
recipe = "tedrec"
backbone_settings = {small}
"""


@dataclass(frozen=True)
class Case:
    """How a method stands in a shop: its choice, more of the description, its model's texts."""

    choice: str
    described: str = ""
    said: Callable[[Shop], list[str]] = lambda shop: [r["title"] for r in shop.read("items")]
    lm: Callable[[Path], Path] | None = None  # instead of a model trained on ``said``
    instead: Any = None
    small: str = SMALL

    def open(self, home: Path, models: Path) -> Shop:
        shop = Shop.open(home)
        described = shop.folder / "shop.toml"
        described.write_text(described.read_text() + self.described)
        if self.lm is not None:
            lm = self.lm(models)
        else:
            lm = make_tiny_model(models / "tiny", self.said(shop), steps=40)
        text = self.choice.format(lm=lm, small=self.small, tiny=TINY)
        often = "[tune]\ncheckpoint_seconds = 0\n"
        if "checkpoint_seconds" not in text:
            text = text.replace("[tune]\n", often) if "[tune]" in text else f"{text}\n{often}"
        (shop.home / "llmers.toml").write_text(text + OFTEN)
        return shop


@dataclass(frozen=True)
class GraphCase:
    """A method of the shop with a graph and reviews; a scripted model answers."""

    method: str
    instead: Any = None

    def open(self, home: Path, models: Path) -> Shop:
        shop = graph_shop.opened(home, self.method, llm='engine = "hf"\nmodel = "a-model"')
        toml = shop.home / "llmers.toml"
        toml.write_text(toml.read_text() + OFTEN)
        return shop


def scores_alone(request: Any) -> str | None:
    """Scores are the model's own; it is too small to write a text, so texts are given."""
    return None if '"score"' in str(request.messages) else test_hard_rounds.written(request)


def told_of(request: Any) -> str | None:
    """Facts of each item in words of its own; other questions get the text of another method."""
    told = test_hard_rounds.written(request)
    about = re.search(r"the (?:sea|crime|space) book \d+", request.messages[-1]["content"].lower())
    if "<item>" not in request.messages[-1]["content"] or about is None:
        return told
    return f"{about[0].capitalize()} has calm harbours, long voyages and {len(told)} chapters."


class ScenarioCase(Case):
    """The shop with a place per row."""

    def open(self, home: Path, models: Path) -> Shop:
        shop = super().open(home, models)
        rows = shop.read("interactions")
        for n, row in enumerate(rows):
            row["place"] = ("street", "web")[n % 2]
        shop.write("interactions", rows)
        told = SHOP.replace("rating = [1, 5]", 'rating = [1, 5]\ncolumns = { place = "place" }')
        (shop.folder / "shop.toml").write_text(told + test_scenario_texts.DECLARED)
        return shop


def noisy(shop: Shop) -> list[str]:
    titles = [r["title"] for r in shop.read("items")]
    pairs = zip(titles, titles[3:], strict=False)
    words = (test_denoised.NOISE, test_denoised.REPLACE, test_denoised.END)
    return [f"{words[0]}{a}{words[1]}{b}{words[2]}" for a, b in pairs]


DEEP = SMALL.replace("dim = 8", "dim = 8, layers = 3")
CASES: dict[str, Any] = {
    "llmrg": GraphCase("llmrg"),
    "gacllm": GraphCase("gacllm"),
    "sagcn": GraphCase("sagcn"),
    "colakg": GraphCase("colakg"),
    "harec": GraphCase("harec", instead=told_of),
    "llm_ins": Case(test_cold_edges.CHOICE, test_cold_edges.COLD),
    "llmhd": Case(test_hard_rounds.CHOICE, test_hard_rounds.SPLIT, instead=scores_alone),
    "llm4msr": ScenarioCase(test_scenario_texts.CHOICE, lm=told_lm.make_told_lm, small=TINY),
    "slmrec": Case(test_teacher_states.CHOICE, lm=tiny_lm.make_tiny_lm, small=DEEP),
    "tedrec": Case(TEDREC),
    "bahe": Case(test_behaviours.CHOICE),
    "llm4dsr": Case(test_denoised.CHOICE, said=noisy),
    "slim": Case(test_rationales.CHOICE),
    "hllm": Case(test_two_models.CHOICE, lm=tiny_lm.make_tiny_lm),
    "flip": Case(test_masked_fields.CHOICE, lm=test_masked_fields.make_masked),
    "llmemb": Case(test_tuned_models.CHOICE, lm=tiny_lm.make_tiny_lm),
}
# Pieces of which the last one may be done again: it was done and not yet written.
ONCE_MORE = {"step": 1}


def run(method: str, place: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int) -> None:
    case = CASES[method]
    if isinstance(case, GraphCase):
        engine = graph_shop.Reader()
        monkeypatch.setattr(factory, "make_engine", lambda *a, **k: engine)
        monkeypatch.setattr(factory, "engine_info", lambda *a, **k: engine.info)
    new = case.open(place / "new", place)
    whole, alone = new.copy(place / "whole"), Ticks()
    with counted(alone, case.instead):
        wanted = work(whole, method)
    assert any(kind == "epoch" for kind, _ in alone.done)
    for at in moments(method, len(alone.done), count, seed):
        shop, again = new.copy(place / f"killed_{at}"), Ticks()
        killed = work_and_die(shop, method, at, case.instead)
        assert killed == alone.done[: at - 1], "until then it did what the other run did"
        with counted(again, case.instead):
            found = work(shop, method)
        assert found == wanted, f"killed before piece {at}, {alone.done[at - 1]}"
        more = repeated(alone.done, killed, again.done)
        assert all(n <= ONCE_MORE.get(kind, 0) for kind, n in more.items()), (at, more)
        rest = Ticks()
        with counted(rest, case.instead):
            work(shop, method)
        assert rest.done == [], "a third run has nothing to do"


@pytest.mark.parametrize("method", CASES)
def test_killed_and_started_again(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(method, tmp_path, monkeypatch, count=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", CASES)
def test_killed_at_more_moments(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(method, tmp_path, monkeypatch, count=6, seed=1)
