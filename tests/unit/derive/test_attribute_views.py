"""Views of attributes: what is kept, what is left out, what they depend on."""

from __future__ import annotations

import pyarrow as pa
import pytest

from llmers_pipelines.data.schema import DataError
from llmers_pipelines.data.text import AttributeText
from llmers_pipelines.derive.attribute_views import AttributeViews

KINDS = {"brand": "category", "color": "category", "about": "text"}
ITEMS = pa.table({
    "item_id": ["a", "b", "c"], "title": ["Lamp", "Only a title", None],
    "brand": ["Lux", None, None], "color": ["red|blue", None, None],
    "about": ["x" * 300, None, None], "sales_rank": [1, 2, 3],
})  # fmt: skip


def made(**settings: object) -> tuple[pa.Table, dict]:
    return AttributeViews(**settings).apply([ITEMS], context={"fields": KINDS})


def test_items_with_one_attribute_are_left_out() -> None:
    """Their views would be equal, or the bare instruction."""
    table, info = made()
    assert table["example_id"].to_pylist() == ["a"]
    assert info == {"items": 3, "one_attribute_or_none": 2}


def test_views_drop_a_share_and_shuffle() -> None:
    table, _ = made(drop=0.5, views=40)
    texts = table["first"][0].as_py() + table["second"][0].as_py()
    assert len(texts) == 80 and {t.count(" is ") for t in texts} == {2}
    assert all(t.startswith("The item has the following attributes: ") for t in texts)
    assert {t.split(": ", 1)[1].split(" is ")[0] for t in texts} == {
        "title",
        "brand",
        "color",
        "about",
    }
    assert max(map(len, texts)) < 200, "values are cut at 100 letters"
    whole, _ = made(drop=0.0, views=40)
    assert {t.count(" is ") for t in whole["first"][0].as_py()} == {4}
    assert "color is red, blue" in whole["first"][0].as_py()[0]


def test_behaviour_columns_are_not_read_unless_declared() -> None:
    assert not any("sales" in t for t in made(views=30)[0]["first"][0].as_py())


def test_views_of_an_item_depend_on_it_alone() -> None:
    more = pa.concat_tables([ITEMS.slice(1), ITEMS.slice(0, 1)])
    other, _ = AttributeViews().apply([more], context={"fields": KINDS})
    assert other.equals(made()[0])
    assert not made(seed=1)[0].equals(made()[0])


def test_the_text_that_is_encoded_holds_every_attribute() -> None:
    texts = AttributeText().texts(table=ITEMS, fields=KINDS)
    assert texts.texts[0].startswith("The item has the following attributes: title is Lamp; brand")
    assert texts.texts[1].endswith("attributes: title is Only a title")
    assert texts.texts[2] == "" and texts.mask.tolist() == [True, True, False]
    with pytest.raises(DataError, match="'nothing'"):
        AttributeText(fields=("nothing",)).texts(table=ITEMS, fields=KINDS)
