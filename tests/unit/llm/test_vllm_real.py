"""Real vLLM beside the transformers engine, on the same random model and the same prompts.

Run by `make test-vllm`, in an environment of its own; elsewhere these tests are skipped.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.llm.protocol import ChoiceRequest, Engine, EngineError, GenRequest
from llmers_pipelines.llm.vllm import VllmEngine, VllmSettings, installed

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not installed(), reason="vLLM is not installed: `make test-vllm`"),
]

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
SMALL: dict[str, Any] = {"max_batch": 8, "kv_cache_gib": 0.25}


def chat(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "system", "content": "answer"}, {"role": "user", "content": text})


def ask(n: int, text: str, **more: Any) -> GenRequest:
    return GenRequest(str(n), chat(text), **({"max_tokens": 12} | more))


def by_id(results: Any) -> dict[str, Any]:
    return {r.row_id: r for r in results}


@pytest.fixture(scope="module")
def own(wide_lm: Path) -> Iterator[VllmEngine]:
    engine = VllmEngine(VllmSettings(str(wide_lm), **SMALL))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def hf(wide_lm: Path) -> HfEngine:
    return HfEngine(HfSettings(str(wide_lm)))


def test_it_is_an_engine_of_the_same_identity(own: VllmEngine, hf: HfEngine) -> None:
    assert isinstance(own, Engine)
    assert own.info.identity == hf.info.identity and own.info.kind == "vllm"


def test_greedy_answers_are_those_of_transformers(own: VllmEngine, hf: HfEngine) -> None:
    requests = [
        ask(n, f"{text} {more}", max_tokens=8 + n)
        for n, (text, more) in enumerate((t, m) for t in TEXTS for m in ("", "tide", "clock", "b"))
    ]
    answers = by_id(own.generate(requests))
    assert answers == by_id(hf.generate(requests))
    assert len({a.text for a in answers.values()}) > 12  # the model says more than nothing
    assert {a.finish_reason for a in answers.values()} == {"stop", "length"}
    assert own.device == "cpu" and own.info.dtype == "float32"
    assert own.info.libraries["device"] == "cpu" and own.info.libraries["vllm"] == installed()


def test_prompts_are_those_of_vllms_own_chat(own: VllmEngine) -> None:
    from vllm import SamplingParams

    chats = [list(chat(text)) for text in TEXTS]
    outputs = own.machine().chat(chats, SamplingParams(max_tokens=1), use_tqdm=False)
    assert [list(o.prompt_token_ids) for o in outputs] == [own._prompt(chat(t)) for t in TEXTS]


def test_structured_answers_are_valid_and_those_of_transformers(
    own: VllmEngine, hf: HfEngine
) -> None:
    other = json.loads(json.dumps(SCHEMA))
    other["properties"]["title"] = {"const": "Salt Road"}
    requests = [
        ask(n, text, schema=other if n % 2 else SCHEMA, max_tokens=150)
        for n, text in enumerate(TEXTS)
    ]
    requests.append(ask(9, "free"))
    results = by_id(own.generate(requests))
    for n in range(len(TEXTS)):
        value = json.loads(results[str(n)].text, strict=False)
        assert value["title"] == ("Salt Road" if n % 2 else "The Tide Clock")
        assert len(value["summary"]) <= 12 and set(value["themes"]) <= {"sea", "clock"}
    assert results == by_id(hf.generate(requests))


def test_a_schema_that_cannot_be_enforced_fails_its_row_alone(own: VllmEngine) -> None:
    bad = {"type": "array", "items": {"const": 1}, "uniqueItems": True}
    results = by_id(own.generate([ask(0, "a", schema=bad), ask(1, "a")]))
    assert "uniqueItems" in results["0"].error and not results["1"].error


def test_a_cut_answer_says_so(own: VllmEngine) -> None:
    (result,) = own.generate([ask(0, "a", schema=SCHEMA, max_tokens=3)])
    assert result.finish_reason == "length" and result.tokens_out == 3


def test_rows_that_do_not_fit_or_hold_images_fail_alone(own: VllmEngine) -> None:
    picture = ({"role": "user", "content": [{"type": "image", "image": b"x"}]},)
    requests = [ask(0, "the sea " * 1400), GenRequest("1", picture), ask(2, "a")]
    results = by_id(own.generate(requests))
    assert "exceed the model's context of 2048" in results["0"].error
    assert "reads text only" in results["1"].error and not results["2"].error


def test_seeds_repeat_and_rows_draw_apart(own: VllmEngine) -> None:
    def draw(seed: int, text: str = "a", **more: Any) -> GenRequest:
        return ask(seed, text, temperature=1.0, seed=seed, max_tokens=20, **more)

    together = by_id(own.generate([draw(1), draw(2), draw(3), ask(9, "the sea " * 5)]))
    (alone,) = own.generate([draw(1)])
    assert alone.text == together["1"].text
    assert len({together[str(n)].text for n in (1, 2, 3)}) == 3
    (greedy,) = own.generate([ask(0, "a", max_tokens=20)])
    (narrow,) = own.generate([draw(1, top_p=1e-6)])
    assert narrow.text == greedy.text != alone.text


def test_stop_strings_end_a_row(own: VllmEngine, hf: HfEngine) -> None:
    free = max(
        own.generate([ask(n, t, max_tokens=30) for n, t in enumerate(TEXTS)]),
        key=lambda result: len(result.text),
    )
    stop = free.text[4:7]
    request = ask(0, TEXTS[int(free.row_id)], max_tokens=30, stop=(stop,))
    (cut,) = own.generate([request])
    assert cut.text == free.text[: free.text.index(stop)] and cut.finish_reason == "stop"
    (other,) = hf.generate([request])
    assert cut.text == other.text


def test_a_request_that_vllm_refuses_fails_its_row_alone(own: VllmEngine) -> None:
    results = by_id(own.generate([ask(0, "a", stop=("",)), ask(1, "a")]))
    assert "empty string" in results["0"].error and not results["1"].error


def test_results_come_while_others_wait_and_halt_ends_the_rest(own: VllmEngine) -> None:
    seen: list[str] = []
    requests = [ask(n, f"row {n}", max_tokens=4) for n in range(40)]
    for result in own.generate(requests, halt=lambda: len(seen) >= 3):
        seen.append(result.row_id)
    assert 3 <= len(seen) <= 3 + SMALL["max_batch"]  # at most what was in flight
    assert not own.machine().llm_engine.has_unfinished_requests()


def test_a_caller_that_stops_reading_leaves_nothing_behind(own: VllmEngine) -> None:
    stream = own.generate([ask(n, f"row {n}", max_tokens=30 + n) for n in range(8)])
    next(stream)
    stream.close()
    (after,) = own.generate([ask(0, "a")])
    assert not after.error and not own.machine().llm_engine.has_unfinished_requests()


def test_a_shared_beginning_is_read_from_the_prefix_cache(own: VllmEngine) -> None:
    from vllm import SamplingParams

    machine = own.machine()
    prompt = {"prompt_token_ids": own._prompt(chat("the keeper mends the clock " * 40))}
    short = SamplingParams(max_tokens=1, temperature=0.0)
    machine.generate([prompt], short, use_tqdm=False)
    (again,) = machine.generate([prompt], short, use_tqdm=False)
    assert again.num_cached_tokens >= 128


CHOICES = ("sea", "the clock", "a", "the keeper mends the clock", "the keeper", "sea")


def test_choices_are_scored_as_transformers_does(own: VllmEngine, hf: HfEngine) -> None:
    requests = [ChoiceRequest(str(n), chat(text), CHOICES) for n, text in enumerate(TEXTS)]
    # More followers of one beginning than a single question may name.
    many = tuple(hf.tokenizer.decode([token]) for token in range(33, 233))
    many = tuple(c for c in dict.fromkeys(many) if c and "�" not in c)
    requests.append(ChoiceRequest("many", chat("a"), many + CHOICES))
    ours, theirs = by_id(own.choose(requests)), by_id(hf.choose(requests))
    assert ours.keys() == theirs.keys()
    for row, result in ours.items():
        np.testing.assert_allclose(result.sums, theirs[row].sums, atol=2e-3)
        np.testing.assert_allclose(result.means, theirs[row].means, atol=2e-3)
        assert result.best == theirs[row].best
        assert all(math.isfinite(s) and s < 0 for s in result.sums)


def test_choices_that_cannot_be_scored_are_errors(own: VllmEngine) -> None:
    requests = [
        ChoiceRequest("empty", chat("x"), ("a", "")),
        ChoiceRequest("one", chat("x"), ("a",)),
        ChoiceRequest("long", chat("x"), ("the sea " * 1400,)),
    ]
    results = by_id(own.choose(requests))
    assert "a choice is empty" in results["empty"].error and "context" in results["long"].error
    assert len(results["one"].sums) == 1
    assert by_id(own.choose([requests[0]])).keys() == {"empty"}


def test_the_models_own_sampling_defaults_do_not_apply(
    own: VllmEngine, wide_lm: Path, tmp_path: Path
) -> None:
    requests = [ask(n, text, max_tokens=30) for n, text in enumerate(TEXTS)]
    plain = by_id(own.generate(requests))
    copy = tmp_path / "copy"
    shutil.copytree(wide_lm, copy)
    path = copy / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"repetition_penalty": 5.0, "do_sample": True}))
    own.close()
    changed = VllmEngine(VllmSettings(str(copy), **SMALL))
    try:
        assert by_id(changed.generate(requests)) == plain
    finally:
        changed.close()


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_pooled_vectors_are_those_of_transformers(
    own: VllmEngine, hf: HfEngine, pooling: str
) -> None:
    texts = [*TEXTS, "", "the sea " * 1600]  # the last one is cut at the context
    vectors = own.embed(texts, pooling=pooling)
    assert vectors.dtype == np.float32 and vectors.shape == (len(texts), 32)
    np.testing.assert_allclose(vectors, hf.embed(texts, pooling=pooling), atol=1e-4)


def test_one_engine_answers_after_it_embedded(own: VllmEngine, hf: HfEngine) -> None:
    own.embed(["a"])
    assert by_id(own.generate([ask(0, "a")])) == by_id(hf.generate([ask(0, "a")]))
    assert own.embed([]).shape == (0, 32)


def test_other_layers_are_for_transformers(own: VllmEngine) -> None:
    with pytest.raises(EngineError, match=r'last layer only.*llm\.engine = "hf"'):
        own.embed(["a"], layer=1)
    with pytest.raises(ValueError, match="pooling 'max'"):
        own.embed(["a"], pooling="max")


def test_an_adapter_changes_answers_as_it_does_in_transformers(
    own: VllmEngine, wide_lm: Path, tmp_path: Path
) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(wide_lm)
    shape = peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    folder = tmp_path / "adapter"
    peft.get_peft_model(base, shape).save_pretrained(folder)
    requests = [ask(n, text, max_tokens=20) for n, text in enumerate(TEXTS)]
    plain = by_id(own.generate(requests))
    own.close()
    hf = HfEngine(HfSettings(str(wide_lm), adapter=str(folder)))
    adapted = VllmEngine(VllmSettings(str(wide_lm), adapter=str(folder), **SMALL))
    try:
        assert adapted.info.identity == hf.info.identity != own.info.identity
        answers = by_id(adapted.generate(requests))
        assert answers == by_id(hf.generate(requests))
        assert answers != plain
        (ours,) = adapted.choose([ChoiceRequest("0", chat("a"), CHOICES)])
        (theirs,) = hf.choose([ChoiceRequest("0", chat("a"), CHOICES)])
        np.testing.assert_allclose(ours.sums, theirs.sums, atol=2e-3)
        vectors = adapted.embed(TEXTS)
        np.testing.assert_allclose(vectors, hf.embed(TEXTS), atol=1e-4)
    finally:
        adapted.close()


def test_a_model_that_vllm_cannot_run_is_named(tiny_lm: Path) -> None:
    engine = VllmEngine(VllmSettings(str(tiny_lm), **SMALL))  # heads of 8: not on a CPU
    try:
        with pytest.raises(EngineError, match=r"vLLM .*head"):
            list(engine.generate([ask(0, "a")]))
    finally:
        engine.close()


@pytest.fixture
def book_rows(books: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*books, *({"item_id": f"c{n}", "title": f"Volume {n}"} for n in range(6))]


def test_a_run_is_paid_for_once_whichever_engine_comes_next(
    own: VllmEngine, hf: HfEngine, book_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    from llmers_pipelines.llm.protocol import Sampling
    from llmers_pipelines.llm.runner import run_task
    from llmers_pipelines.prompts.item_summary import ItemSummary
    from llmers_pipelines.store.responses import ResponseStore

    def run(engine: Engine, store: ResponseStore) -> Any:
        return run_task(
            ItemSummary(),
            book_rows,
            engine,
            store,
            sampling=Sampling(max_tokens=48),
            progress=False,
        )

    ours, theirs = (ResponseStore(tmp_path / name) for name in ("ours", "theirs"))
    first = run(own, ours)
    assert first.counts["llm_calls"] >= 11 and first.counts["tokens_out"] > 11
    own.close()
    again = run(own, ours)
    switched = run(hf, ours)
    for later in (again, switched):
        assert later.counts["llm_calls"] == 0 and later.counts["cache_hits"] >= 11
        assert later.rows.equals(first.rows)
    assert own._machine is None and own.info.kind == "vllm"  # served from the store: not started
    paid = run(hf, theirs)
    assert paid.counts["llm_calls"] == first.counts["llm_calls"]
    assert paid.rows.equals(first.rows)
    assert run(own, theirs).counts["llm_calls"] == 0 and own._machine is None


PROCESSES = """
import json, sys
import psutil
from llmers_pipelines.llm.protocol import GenRequest
from llmers_pipelines.llm.vllm import VllmEngine, VllmSettings

def main():
    me = psutil.Process()
    ask = [GenRequest("0", ({"role": "user", "content": "the keeper"},), max_tokens=12)]
    engine = VllmEngine(VllmSettings(sys.argv[1], max_batch=2, kv_cache_gib=0.25,
                                     tensor_parallel=int(sys.argv[2])))
    (first,) = engine.generate(ask)
    running = len(me.children(recursive=True))
    engine.close()
    left = sum(p.status() == "zombie" or "resource_tracker" not in str(p.cmdline())
               for p in me.children(recursive=True))
    print(json.dumps({"text": first.text, "running": running, "left": left}))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(("tensor_parallel", "method"), [(1, "spawn"), (2, "fork")])
def test_processes_of_vllm_end_with_the_engine(
    hf: HfEngine, wide_lm: Path, tmp_path: Path, tensor_parallel: int, method: str
) -> None:
    script = tmp_path / "run.py"
    script.write_text(PROCESSES)
    more = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_WORKER_MULTIPROC_METHOD": method}
    if tensor_parallel > 1:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < tensor_parallel:
            pytest.skip(f"{tensor_parallel} workers need as many cores; there is {len(cores)}")
        more["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(map(str, cores[:tensor_parallel]))
    done = subprocess.run(
        [sys.executable, str(script), str(wide_lm), str(tensor_parallel)],
        capture_output=True, text=True, check=False, env=os.environ | more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    (expected,) = hf.generate(
        [GenRequest("0", ({"role": "user", "content": "the keeper"},), max_tokens=12)]
    )
    assert told["running"] >= tensor_parallel and told["left"] == 0
    assert told["text"] == expected.text
