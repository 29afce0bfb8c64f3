"""Splits of cold users: the first rows of some users train, all later ones are held out."""

from __future__ import annotations

import numpy as np
import pytest
from test_splits import ITEMS97, LOO, T0, build

from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.training import TEST, TRAIN, VALID
from llmers_pipelines.models.histories import history_before


def cold_users(make, rows, **more):
    return build(make, rows, {"protocol": "cold_user", "cold_share": 0.5, **more},
                 task="collaborative", items=ITEMS97)  # fmt: skip


@pytest.mark.parametrize("first", [1, 2, 3, 5])
def test_of_cold_users_the_first_rows_alone_train(make, first):
    """The others of such a user are held out together; all rows of the other users train."""
    rows = [(f"u{u:02}", f"i{(u * 7 + k * 3) % 97}", T0 + k * 60 + u)
            for u in range(40) for k in range(u % 9 + 1)]  # fmt: skip
    data = cold_users(make, rows[::-1], first=first)
    lengths = {u: u % 9 + 1 for u in range(40)}
    long = sum(n > first for n in lengths.values())
    kinds = {"TEST": 0, "VALID": 0, "warm": 0}
    for at, name in enumerate(data.users.ids, start=1):
        mine = data.user == at
        parts, times = data.split[mine], data.time[mine]
        assert mine.sum() == lengths[int(name[1:])] and (np.diff(times) > 0).all()
        held = set(parts[first:].tolist()) - {TRAIN}
        if not held:
            assert (parts == TRAIN).all()
            kinds["warm"] += 1
            continue
        assert (parts[:first] == TRAIN).all() and held <= {VALID, TEST} and len(held) == 1
        assert (parts[first:] == held.pop()).all() and len(parts) > first
        kinds["TEST" if parts[-1] == TEST else "VALID"] += 1
    cold = kinds["TEST"] + kinds["VALID"]
    assert cold == round(0.5 * long) and abs(kinds["TEST"] - kinds["VALID"]) <= 1
    assert data.info["cold_users"] == {"first": first, "valid": kinds["VALID"],
                                       "test": kinds["TEST"]}  # fmt: skip
    assert data.info["users_too_short"] == 40 - long
    # the history of a test user is what was given, and nothing else
    seen = history_before(data, TEST)
    for u in np.unique(data.user[data.split == TEST]):
        assert len(seen.of(u)) == first
    # the same users whatever the order of the file
    again = cold_users(make, rows, first=first)
    held = [{d.users.ids[u - 1] for u in d.user[d.split == TEST]} for d in (data, again)]
    assert held[0] == held[1]
    other = cold_users(make, rows, first=first, seed=1)
    assert held[0] != {other.users.ids[u - 1] for u in other.user[other.split == TEST]}


def test_an_option_that_came_later_leaves_the_digest_of_other_splits(make):
    splits = {"sequential": LOO, "collaborative": {"protocol": "cold_user"},
              "collaborative_one": {"protocol": "cold_user", "first": 1}}  # fmt: skip
    d = make(log="user_id,item_id,timestamp\nu,a,1\n", splits=splits)
    one, three = d.split("collaborative_one"), d.split("collaborative")
    assert "first" not in d.split("sequential").identity()
    assert (one.identity()["first"], three.identity()["first"]) == (1, 3)
    assert d.split_digest("collaborative") != d.split_digest("collaborative_one")


def test_cold_users_that_cannot_be_are_refused(make):
    rows = [(f"u{u}", f"i{k}", T0 + k) for u in range(6) for k in range(3)]
    for first in (0, 4, 6):
        with pytest.raises(DataError, match=rf"first is {first}; .*1, 2, 3 or 5 first rows"):
            cold_users(make, rows, first=first)
    with pytest.raises(DataError, match=r"'cold_user' needs users with more than 3 rows"):
        cold_users(make, rows, first=3)
    with pytest.raises(DataError, match=r"no meaning for protocol 'leave_one_out'"):
        build(make, rows, LOO | {"first": 3}, items=ITEMS97)
