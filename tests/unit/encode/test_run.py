import numpy as np
import pytest

from llmers_pipelines.data.text import Texts
from llmers_pipelines.encode import run
from llmers_pipelines.encode.run import embed_texts
from llmers_pipelines.encode.tfidf import TfidfEncoder
from llmers_pipelines.store.vectors import VectorStore
from llmers_pipelines.testing.encoders import HashingEncoder


def texts(*words, own=None):
    mask = [bool(w) for w in words] if own is None else own
    return Texts("item", tuple(f"i{k}" for k in range(len(words))), words, np.array(mask, bool))


def test_each_distinct_text_is_encoded_once(tmp_path):
    encoder, store = HashingEncoder(16), VectorStore(tmp_path)
    table, counts = embed_texts(texts("a b", "c", "a b", "d"), encoder, store)
    assert encoder.calls == 3 and (counts.distinct, counts.encoded, counts.cached) == (3, 3, 0)
    assert (table.vectors == HashingEncoder(16).encode(["a b", "c", "a b", "d"])).all()
    assert table.mask.all() and table.ids == ("i0", "i1", "i2", "i3") and table.entity == "item"


def test_k_new_texts_encode_exactly_k_and_one_edit_one(tmp_path):
    store = VectorStore(tmp_path)
    first, _ = embed_texts(texts("a", "b", "c"), HashingEncoder(16), store)
    encoder = HashingEncoder(16)
    grown, counts = embed_texts(texts("a", "b", "c", "d", "e"), encoder, store)
    assert encoder.calls == counts.encoded == 2 and counts.cached == 3
    assert (grown.vectors[:3] == first.vectors).all()
    encoder = HashingEncoder(16)
    edited, counts = embed_texts(texts("a", "B!", "c", "d", "e", "f f"), encoder, store)
    assert encoder.calls == 2
    encoder = HashingEncoder(16)
    again, counts = embed_texts(texts("f f", "c", "B!"), encoder, store)
    assert encoder.calls == 0 and counts.encoded == 0
    assert (again.vectors[1] == edited.vectors[2]).all()


def test_other_encoders_do_not_share_vectors(tmp_path):
    store = VectorStore(tmp_path)
    embed_texts(texts("a"), HashingEncoder(16), store)
    assert embed_texts(texts("a"), HashingEncoder(8), store)[1].encoded == 1


def test_rows_without_text_hold_the_mean_and_are_masked(tmp_path):
    table, counts = embed_texts(texts("a", "", "b c"), HashingEncoder(16), VectorStore(tmp_path))
    np.testing.assert_allclose(table.vectors[1], table.vectors[[0, 2]].mean(0), atol=1e-7)
    assert table.mask.tolist() == [True, False, True]
    assert (counts.rows, counts.own, counts.stand_in, counts.mean) == (3, 2, 0, 1)


def test_a_stand_in_text_is_encoded_but_masked_and_out_of_the_mean():
    table, counts = embed_texts(texts("a", "title", "", own=[1, 0, 0]), HashingEncoder(16), None)
    assert (table.vectors[1] == HashingEncoder(16).encode(["title"])[0]).all()
    assert table.mask.tolist() == [True, False, False] and counts.stand_in == 1
    assert (table.vectors[2] == table.vectors[0]).all()
    table, _ = embed_texts(texts("title", "", own=[0, 0]), HashingEncoder(16), None)
    assert (table.vectors[1] == table.vectors[0]).all() and table.vectors.any()


@pytest.mark.parametrize("words", [(), ("", "")])
def test_nothing_to_encode_gives_zeros(words):
    encoder = HashingEncoder(16)
    table, counts = embed_texts(texts(*words), encoder, None)
    assert table.vectors.shape == (len(words), 16) and not table.vectors.any()
    assert encoder.calls == 0 and counts.distinct == 0 and counts.asdict()["mean"] == len(words)


def test_a_killed_run_keeps_what_was_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "FLUSH", 10)

    class Dies(HashingEncoder):
        def encode(self, texts, progress=None):
            if self.calls >= 4:
                raise KeyboardInterrupt
            return super().encode(texts, progress)

    words = [f"word{k}" for k in range(20)]  # 5 characters each: two per flush
    with pytest.raises(KeyboardInterrupt):
        embed_texts(texts(*words), Dies(16), VectorStore(tmp_path))
    encoder = HashingEncoder(16)
    table, counts = embed_texts(texts(*words), encoder, VectorStore(tmp_path))
    assert counts.cached >= 4 and counts.encoded == encoder.calls == 20 - counts.cached
    assert (table.vectors == HashingEncoder(16).encode(words)).all()


def test_progress_counts_up_to_the_number_of_misses(monkeypatch):
    monkeypatch.setattr(run, "FLUSH", 3)
    seen = []
    embed_texts(texts(*"abcdefgh", "a"), HashingEncoder(4), None, lambda *step: seen.append(step))
    assert seen[-1] == (8, 8) and [s[0] for s in seen] == sorted({s[0] for s in seen})


def test_an_encoder_that_fits_is_prepared_on_the_texts_and_kept(tmp_path):
    words = ["war drama", "comedy film", "war film", "pen"]
    first, _ = embed_texts(texts(*words), TfidfEncoder(3, state_folder=tmp_path), None)
    store = VectorStore(tmp_path / "vectors")
    embed_texts(texts(*words), TfidfEncoder(3, state_folder=tmp_path), store)
    grown, counts = embed_texts(
        texts(*words, "new words"), TfidfEncoder(3, state_folder=tmp_path), store
    )
    assert counts.encoded == 1 and (grown.vectors[:4] == first.vectors).all()
