from __future__ import annotations

import pyarrow as pa

from llmers_pipelines.registry.ids import Ids, sorting


def test_every_id_is_found_at_its_position_and_nothing_else() -> None:
    ids = ["b10", "b9", "ä", "z", "", "日本", "😀", "b1", "Ä", "\uffff"]
    found = Ids(pa.array(ids), sorting(ids))
    assert [found.position(i) for i in ids] == list(range(1, len(ids) + 1))
    assert [found.id(p) for p in range(1, len(ids) + 1)] == ids
    for absent in ("b", "b11", "zz", "a", "\U0010ffff"):
        assert found.position(absent) == 0


def test_no_ids_at_all() -> None:
    assert Ids(pa.array([], pa.string()), sorting([])).position("x") == 0
