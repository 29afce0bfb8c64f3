from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from registry_samples import N

from llmers_pipelines.registry.bundle import load_bundle
from llmers_pipelines.registry.explain import Explainer
from llmers_pipelines.registry.scorer import Scorer


@pytest.fixture(scope="module")
def bundle(folder: Path):
    return load_bundle(folder)


def test_nearest_history_items_are_those_of_highest_cosine(bundle) -> None:
    table = np.zeros((N + 1, 2), np.float32)
    table[7] = [1, 0]
    table[2], table[4], table[5], table[6] = [10, 0], [1, 1], [0, 3], [-1, 0]
    why = Explainer(bundle, table).why(7, np.array([5, 4, 2, 6, 4, 7]))
    assert why["by"] == "item vectors" and why["history"] == 4  # once each, without itself
    assert why["nearest"] == [
        {"item_id": "b2", "title": "Book 2", "similarity": 1.0},
        {"item_id": "b4", "title": "Book 4", "similarity": 0.7071},
    ]  # right angles and opposites explain nothing


def test_shared_attributes_count_history_items(bundle) -> None:
    # item 7: Ann; crime, drama. Items 1, 5 are Ann's; 1, 4, 5 are crime and drama; 6, 9 poetry
    why = Explainer(bundle, None).why(7, np.array([1, 4, 5, 6]))
    assert why["shared"] == {"author": {"Ann": 2}}  # two thirds of the catalog is crime and drama
    why = Explainer(bundle, None).why(9, np.array([1, 4, 5, 6]))
    assert why["shared"] == {"author": {"Ann": 2}, "genres": {"poetry": 1}}
    assert Explainer(bundle, None).why(7, np.array([6]))["shared"] == {}
    assert Explainer(bundle, None).why(3, np.array([1, 4]))["shared"] == {}  # no catalog row


def test_co_occurrence_is_the_cosine_of_user_sets(bundle, log) -> None:
    users = {i: set(log.user[log.item == i].tolist()) for i in range(1, N + 1)}
    explainer = Explainer(bundle, None)
    others = np.arange(2, N + 1)
    found = explainer.likeness(1, others)
    for j, value in zip(others, found, strict=True):
        both = len(users[1] & users[int(j)])
        expected = both / max(1.0, (len(users[1]) * len(users[int(j)])) ** 0.5)
        assert value == pytest.approx(expected)


def test_long_histories_are_explained_by_their_newest_part(bundle, monkeypatch) -> None:
    monkeypatch.setattr("llmers_pipelines.registry.explain.NEWEST", 2)
    table = np.ones((N + 1, 2), np.float32)
    why = Explainer(bundle, table).why(9, np.array([1, 2, 3, 4]))
    assert {n["item_id"] for n in why["nearest"]} == {"b3", "b4"}


def test_answers_carry_explanations_only_on_request(folder: Path) -> None:
    scorer = Scorer.load(folder)
    assert all("why" not in i for i in scorer.recommend("u1", 3)["items"])
    explained = scorer.recommend("u1", 3, explain=True)["items"]
    past = {scorer.bundle.items.id(int(p)) for p in scorer.bundle.seen[scorer.bundle.rows(6)]}
    for item in explained:
        assert {n["item_id"] for n in item["why"]["nearest"]} <= past
    popular = scorer.recommend("stranger", 1, explain=True)["items"][0]
    assert popular["why"] == {"by": "popularity", "interactions": 6}
