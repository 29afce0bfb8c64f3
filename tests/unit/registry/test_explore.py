"""Requests that explore along the tree of a served model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from registry_samples import N, U, factors, make_log, write

from llmers_pipelines.enhance.hierarchy_tree import HierarchyTree
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.served import fold
from llmers_pipelines.registry.explore import Explore
from llmers_pipelines.registry.index import IndexSettings
from llmers_pipelines.registry.scorer import Scorer

pytestmark = pytest.mark.proof("harec", "served")


def hyperbolic():
    model = HGCF(dim=4, layers=2, negatives=1, table_std=1.0).build(make_log(), 0)
    attach_parts(model, (HierarchyTree(layers=3),), make_log(), {}, 0)
    return fold(model)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer.load(write(tmp_path_factory.mktemp("tree") / "b", hyperbolic()))


def ids(answer: dict) -> list[str]:
    return [row["item_id"] for row in answer["items"]]


def test_at_temperature_zero_the_list_is_the_plain_one(scorer: Scorer) -> None:
    for user in [f"u{n}" for n in range(1, U + 1)]:
        assert scorer.recommend(user, 5, explore=Explore(0.0)) == scorer.recommend(user, 5)


def test_the_end_is_explored_below_the_ancestor_without_seen_and_listed_items(
    scorer: Scorer,
) -> None:
    users, items, layers = scorer.ranker.served.net.hooks[0].places()
    log, some = make_log(), 0
    for number, user in enumerate(log.users.ids, start=1):
        plain, seen = scorer.recommend(user, 4), set(log.item[log.user == number].tolist())
        for layer in (0, 1, 2):
            answer = scorer.recommend(user, 4, explore=Explore(0.5, layer))
            new = [row for row in answer["items"] if row.get("explored")]
            assert len(new) <= 2 and ids(answer)[: 4 - len(new)] == ids(plain)[: 4 - len(new)]
            for row in new:
                place = int(row["item_id"][1:])
                assert place not in seen and row["item_id"] not in ids(plain)
                assert items[place] >> (layers - layer) == users[number] >> (layers - layer)
                whole = scorer.recommend(user, N)["items"]  # the score is the model's own
                own = {r["item_id"]: r["score"] for r in whole}
                assert row["score"] == pytest.approx(own[row["item_id"]], rel=1e-5)
            some += len(new)
    assert some > U


def test_equal_seeds_draw_equally_and_others_do_not(scorer: Scorer) -> None:
    one, two = (ids(scorer.recommend("u1", 4, explore=Explore(0.5, 0, 3))) for _ in range(2))
    assert one == two
    drawn = {tuple(ids(scorer.recommend("u1", 4, explore=Explore(0.5, 0, s)))) for s in range(9)}
    assert len(drawn) > 1


def test_who_has_no_place_in_the_tree_gets_the_plain_list_and_is_told(scorer: Scorer) -> None:
    for given in (None, ["b2", "b5"]):
        answer = scorer.recommend("stranger", 4, history=given, explore=Explore(0.5))
        assert "no place" in answer["note"]
        assert ids(answer) == ids(scorer.recommend("stranger", 4, history=given))


def test_a_model_without_a_tree_says_what_to_serve(tmp_path: Path) -> None:
    plain = Scorer.load(write(tmp_path / "b", fold(factors())))
    with pytest.raises(LookupError, match="no tree"):
        plain.recommend("u1", 4, explore=Explore(0.5))


def test_an_index_over_points_ranks_as_the_distance(scorer: Scorer, tmp_path: Path) -> None:
    folder = write(tmp_path / "b", hyperbolic(), index=IndexSettings(kind="flat"))
    indexed = Scorer.load(folder)
    assert indexed.index is not None
    for user in ("u1", "u4"):
        assert ids(indexed.recommend(user, 2)) == ids(scorer.recommend(user, 2))
        scores = [row["score"] for row in indexed.recommend(user, 2)["items"]]
        assert np.all(np.diff(scores) <= 0) and scores[0] <= -1  # <u, i>_L of two points
