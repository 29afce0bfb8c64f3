"""Other sights of a data set: nested shares, planted noise, titles without meaning."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.split_spec import SplitSpec
from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.data.view_names import check_view, sees
from llmers_pipelines.data.views import (
    INJECTED,
    injected_places,
    opaque_items,
    opaque_rows,
    seen_log,
    split_columns,
)
from llmers_pipelines.derive.noisy_positions import NoisyPositions, found_noise
from llmers_pipelines.testing.planted import planted_rings


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=40, n_items=30, seed=2).data


def pairs(data, train=True):
    rows = data.split == TRAIN if train else data.split != TRAIN
    return list(zip(data.user[rows], data.item[rows], data.time[rows], strict=True))


def test_shares_are_nested_and_every_user_keeps_rows(data):
    kept = [set(pairs(seen_log(data, f"share{s}"))) for s in (10, 25, 50)]
    assert kept[0] < kept[1] < kept[2] < set(pairs(data))
    count = np.bincount(data.user[data.split == TRAIN], minlength=data.n_users + 1)
    for share, view in ((0.1, "share10"), (0.25, "share25"), (0.5, "share50")):
        seen = seen_log(data, view)
        left = np.bincount(seen.user[seen.split == TRAIN], minlength=data.n_users + 1)
        assert left.tolist() == np.ceil(np.round(share * count, 9)).astype(int).tolist()
        assert pairs(seen, train=False) == pairs(data, train=False), "held-out rows stand"
        assert seen.users == data.users and seen.items == data.items
        order = np.lexsort((np.arange(len(seen.user)), seen.user))
        assert (order == np.arange(len(order))).all(), "rows keep their order"


def test_shares_of_users_are_nested_and_by_hash(data):
    every = {u for u, *_ in pairs(data)}
    ranked = sorted(every, key=lambda u: hashlib.sha256(data.users.ids[u - 1].encode()).digest())
    for view, count in (("users1", 1), ("users5", 2), ("users10", 4), ("users50", 20)):
        seen = seen_log(data, view)
        kept = set(ranked[:count])  # of 40
        assert pairs(seen) == [p for p in pairs(data) if p[0] in kept], "whole users, in order"
        assert pairs(seen, train=False) == pairs(data, train=False), "held-out rows stand"
        assert seen.users == data.users and seen.items == data.items
        assert seen.info["training users kept"] == count
        assert seen.info["training users in all"] == 40
    older = dataclasses.replace(data, split=np.where(data.user == ranked[0], 2, data.split))
    assert {u for u, *_ in pairs(seen_log(older, "users1"))} == {ranked[1]}, "who has rows counts"


def test_a_share_of_a_hand_made_log(data):
    rows = np.flatnonzero(data.user == 1)
    n = int((data.split[rows] == TRAIN).sum())
    assert n > 3
    seen = seen_log(data, "share1")
    assert int(((seen.user == 1) & (seen.split == TRAIN)).sum()) == 1


def test_planted_noise_is_told_and_was_never_met(data):
    noisy = seen_log(data, "noise10")
    rows = np.flatnonzero(data.split == TRAIN)
    changed = np.flatnonzero(noisy.item != data.item)
    assert len(changed) == round(0.1 * len(rows)) and set(changed) <= set(rows)
    met = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    assert not {(int(noisy.user[r]), int(noisy.item[r])) for r in changed} & met
    told = injected_places(noisy)
    found = set()
    for r in changed:
        mine = rows[data.user[rows] == data.user[r]]
        found.add((int(data.user[r]), int(np.flatnonzero(mine == r)[0])))
    assert told == found and injected_places(data) == set()
    assert pairs(noisy, train=False) == pairs(data, train=False)
    with pytest.raises(ValueError, match="not of task 'ctr'"):
        seen_log(dataclasses.replace(data, task="ctr", label=np.zeros(len(data.user))), "noise10")


def test_recall_of_planted_noise_by_hand(data):
    ids = data.users.ids
    log = dataclasses.replace(data, info={INJECTED: [[1, 0], [1, 3], [2, 1], [3, 9]]})
    place = [(1, 0), (1, 1), (1, 3), (2, 1), (2, 2), (2, 3)]
    scored = pa.table({
        "user_id": [ids[u - 1] for u, _ in place], "position": [p for _, p in place],
        "window": [0] * 6, "logp": [-1.0, -6.0, -5.0, -2.0, -7.0, -8.0],
    })  # fmt: skip
    told = found_noise(scored.take([0, 1, 3]), scored, log)
    assert told == {"injected": 4, "injected_scored": 3, "recall": 2 / 3, "precision": 2 / 3,
                    "by_chance": 0.5}  # fmt: skip
    _, counts = NoisyPositions(percentile=0.5, top=3, most=2).apply([scored, log])
    assert counts["selected"] == 3 and counts["recall"] == 1.0
    assert "recall" not in NoisyPositions().apply([scored, data])[1]


def test_opaque_items_keep_categories_alone():
    kinds = {"title": "text", "kind": "category", "story": "text", "year": "number"}
    items = pa.table({"item_id": ["a", "b"], "title": ["Heat", "Sea"], "kind": ["x", "y"],
                      "story": ["of a heist", "of waves"], "year": [1995, 2001]})  # fmt: skip
    seen = opaque_items(items, kinds)
    assert seen.schema == items.schema
    assert seen["story"].null_count == 2 and seen["kind"].to_pylist() == ["x", "y"]
    titles = seen["title"].to_pylist()
    assert len(set(titles)) == 2 and not set(titles) & {"Heat", "Sea"}
    assert seen["year"].to_pylist() == [1995, 2001] and opaque_items(items, kinds) == seen


def test_opaque_items_keep_nothing_that_is_not_declared():
    """A coded text is a text; an address and an id of another catalog name the item."""
    kinds = {"title": "text", "brand": "category", "year": "number", "code": "text",
             "cover": "image"}  # fmt: skip
    items = pa.table({"item_id": ["a", "b"], "imdb_url": ["us.imdb/Heat", "x"], "title": ["H", "S"],
                      "tmdb_id": [7, 8], "brand": ["3", "4"], "year": [1995, 2001],
                      "code": ["heat", "sea"], "cover": ["h.jpg", "s.jpg"]})  # fmt: skip
    seen = opaque_items(items, kinds)
    assert seen.schema == items.schema
    empty = [c for c in seen.column_names if seen[c].null_count == 2]
    assert empty == ["imdb_url", "tmdb_id", "code", "cover"]
    assert [c for c in seen.column_names if seen[c] == items[c]] == ["item_id", "brand", "year"]


def test_opaque_rows_hold_no_free_text():
    split = dict(protocol="given", task="ctr")
    splits = [SplitSpec("ctr", column="part", label="mood == 'good'", **split),
              SplitSpec("multi", scenario="page", impression="shown", **split)]  # fmt: skip
    read = split_columns(splits)
    assert read == {"part", "mood", "page", "shown"}
    log = pa.table({
        "user_id": ["u"], "item_id": ["i"], "row": [1], "rating": [4.0], "event": ["click"],
        "timestamp": [9], "part": ["train"], "mood": ["good"], "page": ["p"], "shown": ["s"],
        "review": ["A heist."], "note": ["loved Heat"], "tags": [["heist"]], "kind": ["x"],
    })  # fmt: skip
    seen = opaque_rows(log, {"review": "text", "kind": "category"}, read)
    assert seen.schema == log.schema
    assert [c for c in seen.column_names if seen[c].null_count] == ["review", "note", "tags"]
    users = pa.table({"user_id": ["u"], "age": [9], "job": ["nurse"], "bio": ["I act in Heat"]})
    seen = opaque_rows(users, {"job": "category", "age": "number"}, ())
    assert seen.to_pylist() == [{"user_id": "u", "age": 9, "job": "nurse", "bio": None}]


def test_names_of_views():
    for good in ("", "opaque", "share5", "share99", "users1", "users50", "noise10"):
        check_view(good)
    for wrong in ("share0", "share100", "shares25", "users0", "users100", "titles", "noise"):
        with pytest.raises(ValueError, match="expected 'opaque'"):
            check_view(wrong)
    assert all(sees("opaque", t) for t in ("items", "users", "interactions"))
    assert not sees("opaque", "splits")
    assert sees("share10", "splits") and not sees("", "items")
