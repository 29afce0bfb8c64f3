"""What changes a key and what does not: an answer is paid for once, for one question only."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from llmers_pipelines.llm.choosing import choice_json
from llmers_pipelines.llm.keys import description_sha, request_json, row_sha256
from llmers_pipelines.llm.protocol import ChoiceRequest, EngineInfo, GenRequest
from llmers_pipelines.store.responses import response_key

MODEL = EngineInfo("hf", "m", weights_sha256="w", capabilities=frozenset({"prompts"}))
BY_ROW = EngineInfo("recorded", "file", weights_sha256="w")
ASK = GenRequest("1", ({"role": "user", "content": "Ärger?"},), max_tokens=9)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": ({"role": "user", "content": "Other?"},)},
        {"messages": ({"role": "system", "content": "Ärger?"},)},
        {"schema": {"const": 1}},
        {"max_tokens": 10},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"seed": 1},
        {"stop": ("x",)},
    ],
)
def test_what_may_change_an_answer_changes_the_key(change: dict[str, object]) -> None:
    other = dataclasses.replace(ASK, **change)
    assert request_json(other, MODEL) != request_json(ASK, MODEL)


def test_row_ids_and_rows_are_no_part_of_a_prompts_key() -> None:
    other = dataclasses.replace(ASK, row_id="2", row={"a": 1}, without_model=lambda: "x")
    assert request_json(other, MODEL) == request_json(ASK, MODEL)
    assert request_json(other, BY_ROW) != request_json(ASK, BY_ROW)


def test_it_is_canonical_json_that_people_can_read() -> None:
    text = request_json(ASK, MODEL)
    assert "Ärger?" in text and json.loads(text)["sampling"]["max_tokens"] == 9
    schema = [{"b": 1, "a": 2}, {"a": 2, "b": 1}]
    first, second = (request_json(dataclasses.replace(ASK, schema=s), MODEL) for s in schema)
    assert first == second


def test_identity_ignores_how_a_model_is_run() -> None:
    same = dataclasses.replace(MODEL, kind="vllm", dtype="bf16", libraries={"vllm": "1"}, model="n")
    assert same.identity == MODEL.identity == "weights:w"
    full = dataclasses.replace(MODEL, adapter="a", tokenizer_sha256="t")
    assert full.identity == "weights:w+adapter:a+tokenizer:t"
    assert EngineInfo("remote", "org/model").identity == "model:org/model"


def test_labels_tell_what_kind_of_answer_it_is() -> None:
    assert EngineInfo("template", "template").label == "no LLM (template)"
    assert EngineInfo("recorded", "gpt-x", "0123456789abcdef").label == (
        "gpt-x@0123456789ab (recorded)"
    )


def test_keys_of_texts_are_those_under_which_answers_were_stored() -> None:
    messages = ({"role": "system", "content": "s"}, {"role": "user", "content": "Ärger?"})
    ask = GenRequest("1", messages, schema={"type": "object"}, max_tokens=9, seed=3)
    sees = dataclasses.replace(MODEL, image_processor="p")
    for info in (MODEL, sees):  # how a model reads images is no part of a text's key
        assert response_key(info.identity, request_json(ask, info)) == (
            "88e72a6f6faa6cf33fd45703436657d2f336f12116dffc12bf1d989babf9eb7d"
        )
    scores = choice_json(ChoiceRequest("1", messages, ("a", "b")))
    assert hashlib.sha256(scores.encode()).hexdigest() == (
        "dd85c9963bbc49f737b336582027763906b02d215c7c2d82398feeaa69967322"
    )


def test_images_enter_by_their_bytes() -> None:
    def with_image(image: object) -> str:
        parts = [{"type": "text", "text": "see"}, {"type": "image", "image": image}]
        return request_json(GenRequest("1", ({"role": "user", "content": parts},)), MODEL)

    assert hashlib.sha256(b"one").hexdigest() in with_image(b"one")
    assert with_image(b"two") != with_image(b"one")


def test_row_hash() -> None:
    row = {"item_id": "1", "title": "T", "tags": ["a"], "year": None}
    assert row_sha256(row) == row_sha256(dict(reversed(row.items())))
    assert row_sha256(row) == row_sha256(row | {"tags": np.array(["a"], object)})
    assert row_sha256(row) != row_sha256(row | {"title": "U"})


def test_description_sha_of_a_source_record() -> None:
    record = {"title": "Ö", "year": 1900}
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    expected = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert description_sha(record) == expected
    row = {"item_id": "1", "name": "Ö", "year": 1900, "extra": 1}
    assert description_sha(row, (("title", "name"), ("year", "year"))) == expected
