"""The packaged model on a public catalog."""

import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.text import ItemText
from llmers_pipelines.derive.neighbours import NearestNeighbours
from llmers_pipelines.encode import invariants as inv
from llmers_pipelines.encode.encoder import make_encoder
from llmers_pipelines.encode.run import embed_texts
from llmers_pipelines.store.vectors import VectorStore


@pytest.mark.data
def test_films_lie_near_films_of_their_genre(data_root, tmp_path):
    columns = ["item_id", "title", "genres"]
    items = pq.read_table(data_root / "ml100k" / "items.parquet", columns=columns).slice(0, 240)
    texts = ItemText().texts(table=items, fields={"genres": "category"})
    encoder, store = make_encoder("minilm"), VectorStore(tmp_path)
    table, counts = embed_texts(texts, encoder, store)
    assert counts.encoded == counts.distinct == len(set(texts.texts))
    again, counts = embed_texts(texts, encoder, store)
    assert counts.encoded == 0 and again.content_hash() == table.content_hash()
    rows = zip(texts.ids, items["genres"].to_pylist(), strict=True)
    genres = {i: set(g.split("|")) for i, g in rows}
    check = inv.geometry(table, genres)
    assert check.passed and check.details["category_purity"] > 0.7
    assert check.details["category_purity"] > 1.5 * check.details["purity_by_chance"]
    assert inv.determinism(table, texts, encoder).passed
    near, _ = NearestNeighbours(k=1).apply([table])
    pairs = dict(zip(near["item_id"].to_pylist(), near["other_id"].to_pylist(), strict=True))
    title = dict(zip(texts.ids, items["title"].to_pylist(), strict=True))
    of = {title[a]: title[b] for a, b in pairs.items()}
    assert of["Star Trek IV: The Voyage Home (1986)"].startswith("Star Trek")
