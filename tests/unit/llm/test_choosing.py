"""Scores of choices from a real (random, tiny) language model, through the response store."""

from __future__ import annotations

import pytest

from llmers_pipelines.llm.choosing import choice_json, choose_all
from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.teach.language_model_ranking import LanguageModelRanking
from llmers_pipelines.testing.planted import planted_rings


def test_a_real_engine_teaches_and_the_store_gives_the_same_answer(tiny_lm, tmp_path):
    data = planted_rings(n_users=3, n_items=10, length=(6, 7), seed=1).data
    rows = [{"item_id": i, "title": f"Salt Road {n}"} for n, i in enumerate(data.items.ids)]
    teacher = LanguageModelRanking(k=3, candidates=4)
    requests, asked = teacher.requests(data, rows, None, {"domain": "books"})
    store = ResponseStore(tmp_path)
    engine = HfEngine(HfSettings(str(tiny_lm), device="cpu"))
    chosen = choose_all(requests, engine, store, task="t", revision="r", progress=False)
    assert chosen.counts["llm_calls"] == 3
    first = teacher.taught(data, asked, chosen, "m")
    for request in requests:
        (direct,) = engine.choose([request])
        assert chosen.results[request.row_id].means == pytest.approx(direct.means, rel=1e-6)
        best = max(range(4), key=lambda n: direct.means[n])
        user, _, position = request.row_id.partition("@")
        mine = [r for r in first.rows.to_pylist()
                if r["user_id"] == user and r["position"] == int(position)]  # fmt: skip
        assert mine[0]["distance"] == pytest.approx(-direct.means[best], rel=1e-5)
        assert rows[int(mine[0]["item_id"][1:]) - 1]["title"] == request.choices[best]
    again = choose_all(requests, engine, store, task="t", revision="r2", progress=False)
    assert again.counts == {
        "llm_calls": 0, "cache_hits": 3, "deduped": 0, "failed": 0, "tokens_in": 0
    }  # fmt: skip
    assert teacher.taught(data, asked, again, "m").rows.equals(first.rows)
    assert store.verify() == []


def test_equal_questions_are_one_call_and_other_choices_are_another(tiny_lm, tmp_path):
    from llmers_pipelines.llm.protocol import ChoiceRequest

    message = ({"role": "user", "content": "which"},)
    given = (("a", ("one", "two")), ("b", ("one", "two")), ("c", ("two", "one")))
    asks = [ChoiceRequest(row, message, choices) for row, choices in given]
    assert choice_json(asks[0]) == choice_json(asks[1]) != choice_json(asks[2])
    engine = HfEngine(HfSettings(str(tiny_lm), device="cpu"))
    found = choose_all(asks, engine, ResponseStore(tmp_path), task="t", revision="r",
                       progress=False)  # fmt: skip
    assert (found.counts["llm_calls"], found.counts["deduped"]) == (2, 1)
    assert found.results["a"].means == found.results["b"].means
    assert found.results["b"].row_id == "b"
