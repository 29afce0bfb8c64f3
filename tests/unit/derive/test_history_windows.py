"""Windows of histories and texts of items: tables that tuning reads."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from llmers_pipelines.data.text import AttributeText, ItemText
from llmers_pipelines.data.training import HISTORY, TRAIN
from llmers_pipelines.derive.history_windows import HistoryWindows
from llmers_pipelines.derive.item_texts import ItemTexts
from llmers_pipelines.orchestrate.steps.derive_checks import entity_checks, example_checks
from llmers_pipelines.testing.planted import planted_rings

pytestmark = pytest.mark.proof("hllm", "equations")


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=12, n_items=12, seed=1).data


@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_each_row_after_the_first_is_told_once(data, most: int) -> None:
    table, told = HistoryWindows(most=most).apply((data,), log=data)
    assert all(c.passed for c in example_checks(table, data)) and told["users_without"] == 0
    for user, name in enumerate(data.users.ids, 1):
        own = data.item[(data.user == user) & (data.split == TRAIN)]
        train = [data.items.ids[i - 1] for i in own]
        mine = [r["history"] for r in table.to_pylist() if r["user_id"] == name][::-1]
        assert all(2 <= len(w) <= most + 1 for w in mine)
        steps = [pair for w in mine for pair in pairwise(w)]
        assert steps == list(pairwise(train))
    assert table["history"].equals(table["shown"])


def test_the_newest_windows_alone(data) -> None:
    table, _ = HistoryWindows(most=3, newest=1).apply((data,), log=data)
    assert table.num_rows == data.n_users
    own = data.item[(data.user == 1) & (data.split == TRAIN)][-4:]
    assert table["history"][0].as_py() == [data.items.ids[i - 1] for i in own]
    with pytest.raises(ValueError, match="most=0"):
        HistoryWindows(most=0)


def test_where_a_cut_is_declared_what_lies_behind_it_is_not_told(data) -> None:
    place = np.arange(len(data.item)) - data.user_start[data.user]
    split = np.where((data.split == TRAIN) & (place < 2), HISTORY, data.split).astype(np.int8)
    cut = dataclasses.replace(data, split=split)
    table, _ = HistoryWindows().apply((cut,), log=cut)
    assert {len(w) for w in table["history"].to_pylist()} == {2}


def test_texts_are_those_that_the_encoder_gets() -> None:
    items = pa.table({"item_id": ["a", "b", "c"], "title": ["One", "", "Two"]})
    fields = {"fields": {"title": "text"}}
    for text in (AttributeText(instruction="Compress:"), ItemText()):
        table, told = ItemTexts(text).apply((items,), context=fields)
        assert all(c.passed for c in entity_checks(table, None))
        assert table["item_id"].to_pylist() == ["a", "c"] and told["without_text"] == 1
        same = text.texts(table=items, fields=fields["fields"])
        assert table["text"].to_pylist() == [same.texts[0], same.texts[2]]
