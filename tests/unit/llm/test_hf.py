"""The transformers engine on a tiny random model: equal to the plain way of doing each thing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmers_pipelines.llm.hf import HfEngine, HfSettings, describe
from llmers_pipelines.llm.hf_tokens import prompt_ids
from llmers_pipelines.llm.protocol import ChoiceRequest, Engine, EngineError, GenRequest

TEXTS = ["the keeper", "a", "the keeper mends the clock " * 4, "sea sea", "mends", "the sea " * 9]
SCHEMA = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "maxLength": 12},
        "themes": {"type": "array", "items": {"enum": ["sea", "clock"]}, "maxItems": 2},
        "title": {"const": "The Tide Clock"},
    },
    "required": ["summary", "themes", "title"],
    "additionalProperties": False,
}


def chat(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "system", "content": "answer"}, {"role": "user", "content": text})


def ask(n: int, text: str, **more: Any) -> GenRequest:
    return GenRequest(str(n), chat(text), **({"max_tokens": 12} | more))


@pytest.fixture(scope="module")
def engine(tiny_lm: Path) -> HfEngine:
    return HfEngine(HfSettings(str(tiny_lm), max_batch=4))


def by_id(results: Any) -> dict[str, Any]:
    return {r.row_id: r for r in results}


def test_it_is_an_engine(engine: HfEngine) -> None:
    assert isinstance(engine, Engine)


def test_batches_answer_as_one_by_one(engine: HfEngine) -> None:
    requests = [ask(n, text, max_tokens=6 + n) for n, text in enumerate(TEXTS)]
    batched = by_id(engine.generate(requests))
    for request in requests:
        (alone,) = engine.generate([request])
        assert alone == batched[request.row_id]
        assert alone.tokens_out <= request.max_tokens
        assert (alone.finish_reason == "length") == (alone.tokens_out == request.max_tokens) or (
            alone.finish_reason == "stop"
        )


def test_it_answers_as_plain_transformers_does(engine: HfEngine, tiny_lm: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    ids = tokenizer.apply_chat_template(
        list(chat(TEXTS[2])), add_generation_prompt=True, return_dict=False, return_tensors="pt"
    )
    with torch.inference_mode():
        out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    (result,) = engine.generate([ask(0, TEXTS[2])])
    assert result.text == tokenizer.decode(out, skip_special_tokens=True)
    assert result.tokens_in == ids.shape[1]


def test_grammar_gives_valid_json_and_the_rows_own_values(engine: HfEngine) -> None:
    other = json.loads(json.dumps(SCHEMA))
    other["properties"]["title"] = {"const": "Salt Road"}
    requests = [
        ask(0, TEXTS[0], schema=SCHEMA, max_tokens=150),
        ask(1, TEXTS[1], max_tokens=20),
        ask(2, TEXTS[2], schema=other, max_tokens=150),
    ]
    results = by_id(engine.generate(requests))
    for row, title in (("0", "The Tide Clock"), ("2", "Salt Road")):
        assert results[row].finish_reason == "stop"
        value = json.loads(results[row].text, strict=False)  # xgrammar admits control characters
        assert value["title"] == title and len(value["summary"]) <= 12
        assert set(value["themes"]) <= {"sea", "clock"} and len(value["themes"]) <= 2
    (free,) = engine.generate([requests[1]])
    assert results["1"] == free  # a row without a schema is not touched by its neighbours'


def test_the_summary_task_is_enforced(engine: HfEngine) -> None:
    from llmers_pipelines.prompts.item_summary import ItemSummary

    row = {"item_id": "1", "title": "The Tide Clock"}
    task = ItemSummary()
    schema = task.row_schema(row)
    for name in ("summary", "mood", "audience"):
        schema["properties"][name]["maxLength"] = 8
    schema["properties"]["themes"]["items"]["maxLength"] = 5
    (result,) = engine.generate(
        [GenRequest("1", tuple(task.render(row)), schema=schema, max_tokens=200)]
    )
    assert result.finish_reason == "stop" and task.parse(result.text).status == "ok"


def test_a_schema_that_cannot_be_enforced_fails_its_row_alone(engine: HfEngine) -> None:
    bad = {"type": "array", "items": {"const": 1}, "uniqueItems": True}
    results = by_id(engine.generate([ask(0, "a", schema=bad), ask(1, "a")]))
    assert "uniqueItems" in results["0"].error and not results["1"].error


def test_a_cut_answer_says_so(engine: HfEngine) -> None:
    (result,) = engine.generate([ask(0, "a", schema=SCHEMA, max_tokens=3)])
    assert result.finish_reason == "length" and result.tokens_out == 3


def test_an_over_long_prompt_fails_its_row_alone(engine: HfEngine) -> None:
    results = by_id(engine.generate([ask(0, "the sea " * 1400), ask(1, "a")]))
    assert "exceed the model's context of 2048" in results["0"].error
    assert results["0"].finish_reason == "error" and not results["1"].error


def test_an_image_fails_its_row_alone(engine: HfEngine) -> None:
    picture = ({"role": "user", "content": [{"type": "image", "image": b"x"}]},)
    results = by_id(engine.generate([GenRequest("0", picture), ask(1, "a", max_tokens=2)]))
    assert "reads text only" in results["0"].error and not results["1"].error


def test_sampling_depends_on_seed_and_prompt_but_not_on_the_batch(engine: HfEngine) -> None:
    def draw(seed: int, **more: Any) -> GenRequest:
        return ask(seed, "a", temperature=1.0, seed=seed, **more)

    together = by_id(engine.generate([draw(1), draw(2), draw(3), ask(9, "the sea " * 5)]))
    (alone,) = engine.generate([draw(1)])
    assert alone.text == together["1"].text
    assert len({together[str(n)].text for n in (1, 2, 3)}) == 3
    greedy = [r.text for r in engine.generate([ask(0, "a"), draw(1, top_p=1e-6)])]
    assert greedy[0] == greedy[1]  # the smallest nucleus is the likeliest token


def test_sampling_follows_the_models_distribution() -> None:
    import torch

    from llmers_pipelines.llm.hf_decode import RowSampler

    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    n = 3000
    requests = [ask(i, "x", temperature=2.0, seed=i) for i in range(n)]
    scores = RowSampler(requests, [[1]] * n)(torch.zeros(n, 1), logits.repeat(n, 1).clone())
    found = torch.bincount(scores.argmax(1), minlength=4) / n
    assert torch.allclose(found, (logits / 2).softmax(0), atol=0.03)
    requests = [ask(i, "x", temperature=1.0, top_p=0.7, seed=i) for i in range(n)]
    scores = RowSampler(requests, [[1]] * n)(torch.zeros(n, 1), logits.repeat(n, 1).clone())
    drawn = torch.bincount(scores.argmax(1), minlength=4) / n
    assert drawn[0] == drawn[3] == 0  # .66 + .24 reach .7: two tokens are left
    assert torch.allclose(drawn[1:3], logits[1:3].softmax(0), atol=0.03)


def test_stop_strings_end_a_row(engine: HfEngine) -> None:
    (free,) = engine.generate([ask(0, "a", max_tokens=30)])
    stop = free.text[4:7]
    (cut,) = engine.generate([ask(0, "a", max_tokens=30, stop=(stop,))])
    assert cut.text == free.text[: free.text.index(stop)] and cut.finish_reason == "stop"
    assert cut.tokens_out <= free.tokens_out


def test_many_requests_come_in_shards(
    engine: HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(n, text, max_tokens=3) for n, text in enumerate(TEXTS)]
    whole = by_id(engine.generate(requests))
    monkeypatch.setattr("llmers_pipelines.llm.hf.SHARD", 2)
    results = list(engine.generate(requests))
    assert by_id(results) == whole
    assert [{r.row_id for r in results[i : i + 2]} for i in (0, 2, 4)] == [
        {"0", "1"}, {"2", "3"}, {"4", "5"},
    ]  # fmt: skip


def test_halt_ends_between_batches(engine: HfEngine) -> None:
    seen: list[str] = []
    requests = [ask(n, "a", max_tokens=2) for n in range(10)]
    for result in engine.generate(requests, halt=lambda: len(seen) >= 4):
        seen.append(result.row_id)
    assert len(seen) == 4  # batches of four: the first is finished, the second not begun


def test_a_full_device_halves_the_batch(
    engine: HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from llmers_pipelines.llm import hf_decode

    real, sizes = hf_decode.decode, []

    def small(
        model: Any, tokenizer: Any, grammars: Any, batch: list[Any], vision: Any
    ) -> list[Any]:
        sizes.append(len(batch))
        if len(batch) > 1 or batch[0].request.row_id == "2":
            raise torch.cuda.OutOfMemoryError("full")
        return real(model, tokenizer, grammars, batch, vision)

    monkeypatch.setattr(hf_decode, "decode", small)
    results = by_id(engine.generate([ask(n, "a", max_tokens=2) for n in range(4)]))
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert "out of memory" in results["2"].error
    assert [bool(results[i].error) for i in "013"] == [False] * 3


def naive_scores(engine: HfEngine, prefix: list[int], tokens: list[int]) -> float:
    import torch

    with torch.inference_mode():
        logits = engine.model(torch.tensor([prefix + tokens])).logits[0].log_softmax(-1)
    at = range(len(prefix) - 1, len(prefix) + len(tokens) - 1)
    return float(sum(logits[i, t] for i, t in zip(at, tokens, strict=True)))


@pytest.mark.parametrize("batch_tokens", [0, 60])
def test_shared_prefix_scores_equal_full_forwards(tiny_lm: Path, batch_tokens: int) -> None:
    engine = HfEngine(HfSettings(str(tiny_lm), batch_tokens=batch_tokens))
    choices = ("sea", "the clock", "a", "the keeper mends the clock", "sea")
    (result,) = engine.choose([ChoiceRequest("7", chat("which"), choices)])
    prefix = prompt_ids(engine.tokenizer, chat("which"))
    for choice, total, mean in zip(choices, result.sums, result.means, strict=True):
        tokens = engine.tokenizer(choice, add_special_tokens=False)["input_ids"]
        expected = naive_scores(engine, prefix, tokens)
        assert abs(total - expected) < 1e-4
        assert abs(mean - expected / len(tokens)) < 1e-4
    assert result.means[0] == pytest.approx(result.means[4], abs=1e-5)
    assert result.best == int(np.argmax(np.round(result.means, 5)))


def test_choices_that_cannot_be_scored_are_errors(engine: HfEngine) -> None:
    results = by_id(engine.choose([
        ChoiceRequest("empty", chat("x"), ("a", "")),
        ChoiceRequest("none", chat("x"), ()),
        ChoiceRequest("long", chat("x"), ("the sea " * 1400,)),
        ChoiceRequest("one", chat("x"), ("a",)),
    ]))  # fmt: skip
    assert "a choice is empty" in results["empty"].error
    assert "no choices" in results["none"].error
    assert "context" in results["long"].error
    assert len(results["one"].sums) == 1


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_pooled_states_equal_the_plain_way(engine: HfEngine, pooling: str, layer: int) -> None:
    import torch

    vectors = engine.embed(TEXTS, pooling=pooling, layer=layer)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 32)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = torch.tensor([engine.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            states = engine.model(ids, output_hidden_states=True).hidden_states[layer][0]
        expected = {"mean": states.mean(0), "last": states[-1], "cls": states[0]}[pooling]
        np.testing.assert_allclose(vector, expected.numpy(), atol=2e-5)


def test_embed_of_nothing_and_of_long_texts(engine: HfEngine) -> None:
    assert engine.embed([]).shape == (0, 32)
    vectors = engine.embed(["", "the sea " * 1600])
    assert np.isfinite(vectors).all()
    with pytest.raises(ValueError, match="pooling 'max'"):
        engine.embed(["a"], pooling="max")


def test_identity_is_that_of_the_files(tiny_lm: Path, tmp_path: Path) -> None:
    import hashlib

    info = describe(HfSettings(str(tiny_lm)))
    weights = (tiny_lm / "model.safetensors").read_bytes()
    assert info.weights_sha256 == hashlib.sha256(weights).hexdigest()
    copy = tmp_path / "copy"
    shutil.copytree(tiny_lm, copy)
    assert describe(HfSettings(str(copy))).identity == info.identity
    (copy / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert describe(HfSettings(str(copy))).identity != info.identity
    assert {"schema", "logprobs", "prefix_score", "hidden_layers"} <= info.capabilities
    assert set(info.libraries) == {"torch", "transformers", "tokenizers", "xgrammar"}


def test_nothing_is_loaded_before_it_is_needed(tiny_lm: Path) -> None:
    engine = HfEngine(HfSettings(str(tiny_lm)))
    assert list(engine.generate([])) == []
    assert "model" not in vars(engine)
    engine.embed(["a"])
    assert vars(engine)["model"].dtype is not None and engine.info.dtype == "float32"
    engine.close()
    assert "model" not in vars(engine)


def test_the_models_own_sampling_defaults_do_not_apply(tiny_lm: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_lm, copy)
    path = copy / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"repetition_penalty": 5.0, "do_sample": True}))
    plain = HfEngine(HfSettings(str(tiny_lm)))
    changed = HfEngine(HfSettings(str(copy)))
    request = ask(0, "a", max_tokens=30)
    assert list(plain.generate([request])) == list(changed.generate([request]))


def test_models_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such folder"):
        HfEngine(HfSettings(str(tmp_path / "none")))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(EngineError, match=r"no \.safetensors weights"):
        HfEngine(HfSettings(str(tmp_path)))


def test_a_template_without_system_role_gets_it_from_the_user(engine: HfEngine) -> None:
    from llmers_pipelines.llm.batching import chat_text

    tokenizer = engine.tokenizer
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            + before
        )
        assert chat_text(tokenizer, chat("hello")) == "<user>answer\n\nhello<eos><assistant>"
        tokenizer.chat_template = None
        assert chat_text(tokenizer, chat("hello")) == "answer\n\nhello\n\n"
    finally:
        tokenizer.chat_template = before
    assert chat_text(tokenizer, chat("x")) == "<system>answer<eos><user>x<eos><assistant>"


def test_a_lora_adapter_changes_answers_and_identity(tiny_lm: Path, tmp_path: Path) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_lm)
    lora = peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    tuned = peft.get_peft_model(base, lora)
    tuned.save_pretrained(tmp_path / "adapter")
    plain = HfEngine(HfSettings(str(tiny_lm)))
    adapted = HfEngine(HfSettings(str(tiny_lm), adapter=str(tmp_path / "adapter")))
    assert adapted.info.identity != plain.info.identity
    a, b = (e.embed(["the sea"]) for e in (plain, adapted))
    assert np.abs(a - b).max() > 1e-3


LOADS = """
import sys, time
from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.llm.protocol import GenRequest
engine = HfEngine(HfSettings(sys.argv[1], device="cpu"))
began = time.perf_counter()
list(engine.generate([GenRequest("1", ({"role": "user", "content": "the sea"},), max_tokens=1)]))
print(engine.load_seconds / (time.perf_counter() - began))
"""


def test_what_the_libraries_take_to_import_counts_as_loading(tiny_lm: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(tiny_lm)], capture_output=True, text=True, check=True
    )
    # Of a process that asks one token nearly all is loading: counted as work, it would tell the
    # next plan that each token takes seconds.
    assert 0.8 < float(done.stdout) <= 1.0
