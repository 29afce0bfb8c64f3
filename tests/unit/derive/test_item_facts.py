from __future__ import annotations

import pyarrow as pa
import pytest

from llmers_pipelines.derive.item_facts import ItemFacts

pytestmark = pytest.mark.proof("colakg", "equations")

LINK = pa.table({"item_id": ["i1", "i2", "i3", "i4"], "entity_id": ["e1", "e2", "e3", "e9"]})
ROWS = [
    ("e1", "Film_One", "directed_by", "p1", "Ann_Lee"),
    ("e1", "Film_One", "directed_by", "p1", "Ann_Lee"),  # twice in the file
    ("e1", "Film_One", "belong_to_category", "c1", "Category:Sea_films"),
    ("e2", "Film_Two", "belong_to_category", "c1", "Category:Sea_films"),
    ("e2", "Film_Two", "starred_by", "p1", "Ann_Lee"),  # the same person in another relation
    ("e3", "Film_Three", "related_to_wikipage", "w", "Sea"),
    ("e1", "Film_One", "directed_by", None, None),
    ("x", "Elsewhere", "directed_by", "p1", "Ann_Lee"),  # no item
]


def graph(rows=ROWS):
    names = ("head_id", "head", "relation", "tail_id", "tail")
    columns = {n: list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)}
    return pa.table({n: pa.array(c, pa.string()) for n, c in columns.items()})


def told(rows=ROWS, **settings):
    table, info = ItemFacts(**settings).apply([graph(rows), LINK])
    return {r["item_id"]: r for r in table.to_pylist()}, info


def test_facts_and_items_that_share_them():
    found, info = told()
    assert found["i1"]["facts"] == ["belong to category: Sea films", "directed by: Ann Lee"]
    assert found["i1"]["related"] == ["belong to category Sea films, as do: Film Two"]
    assert found["i2"]["related"] == ["belong to category Sea films, as do: Film One"]
    assert set(found) == {"i1", "i2"}  # weak relations are told of nothing, e9 has no triple
    assert info == {"items": 2, "triples": 4, "without_facts": 2}


def test_a_tail_that_nearly_all_share_relates_nobody():
    found, _ = told(common=1)
    assert found["i1"]["related"] == [] and found["i1"]["facts"]


def test_what_is_kept_depends_on_ids_alone():
    many = [("e1", "Film_One", "starred_by", f"p{n}", f"Actor_{n}") for n in range(30)]
    one, _ = told(many, tails=3)
    two, _ = told([*reversed(many), *ROWS[3:5]], tails=3)
    assert one["i1"]["facts"] == two["i1"]["facts"]
    assert one["i1"]["facts"][0].endswith(" and 27 more")


def test_a_graph_without_names_is_refused_with_the_mend():
    with pytest.raises(ValueError, match="without names cannot be told"):
        ItemFacts().apply([graph().drop_columns(["tail"]), LINK])
    with pytest.raises(ValueError, match="links of items to entities"):
        ItemFacts().apply([graph()])
    with pytest.raises(ValueError, match="at least 1"):
        ItemFacts(tails=0)
