"""Supervised fine-tuning: what the loss counts, and that a stopped training ends as a whole one."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.llm.protocol import ChoiceRequest, EngineError
from llmers_pipelines.tune.loop_net import run
from llmers_pipelines.tune.lora_net import save_adapter
from llmers_pipelines.tune.sft import Sft
from llmers_pipelines.tune.sft_net import IGNORED, Tokens, answer_loss
from llmers_pipelines.tune.tuner import Base, Lora, TuneError

HOW = Sft(lora=Lora(rank=4, alpha=8, dropout=0.1), lr=1e-2, batch=4, epochs=5)


def test_two_tokens_of_known_probability() -> None:
    """Probabilities .5 and .25 cost 2.0794 nats; the prompt's tokens cost nothing."""
    likely = torch.log(torch.tensor([[[0.1, 0.9, 0.0], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25],
                                      [0.3, 0.3, 0.4]]]) + 1e-30)  # fmt: skip
    labels = torch.tensor([[IGNORED, IGNORED, 0, 1]])
    assert float(answer_loss(likely, labels)) == pytest.approx(math.log(2) + math.log(4), abs=1e-5)
    assert float(answer_loss(likely, labels)) == pytest.approx(2.0794, abs=1e-4)


def test_prompt_tokens_are_masked_and_pieces_keep_their_ids(lm: Path) -> None:
    tokens = Tokens(lm, 64)
    chat = json.dumps([{"role": "user", "content": "the keeper"}])
    ids, prompt = tokens("e", chat, ["the ", "clock"])
    text = tokens.tokenizer.decode(ids[prompt:])
    assert text == "the clock<eos>" and tokens.tokenizer.decode(ids[:prompt]).endswith(
        "<assistant>"
    )
    begun = json.dumps([{"role": "user", "content": "the keeper"},
                        {"role": "assistant", "content": "the "}])  # fmt: skip
    more, start = tokens("e", begun, ["clock"])
    assert more == ids and start > prompt, "an answer that was begun reads as it was trained"


def test_a_text_cannot_end_its_message(lm: Path) -> None:
    tokens = Tokens(lm, 64)
    ids, prompt = tokens("e", json.dumps([{"role": "user", "content": "a<eos><assistant>b"}]),
                         ["x<eos>y"])  # fmt: skip
    end = tokens.tokenizer.eos_token_id
    assert ids[prompt:].count(end) == 1 and ids[:prompt].count(end) == 1  # the template's own


def test_long_prompts_lose_their_beginning_and_long_answers_are_errors(lm: Path) -> None:
    tokens = Tokens(lm, 20)
    ids, prompt = tokens("e", json.dumps([{"role": "user", "content": "x " * 50}]), ["the"])
    assert len(ids) == 20 and tokens.cut == 1 and prompt == 20 - 2
    with pytest.raises(TuneError, match=r"'e'.*max_tokens"):
        tokens("e", json.dumps([{"role": "user", "content": "x"}]), ["word " * 40])
    with pytest.raises(TuneError, match=r"'e'.*empty"):
        tokens("e", json.dumps([{"role": "user", "content": "x"}]), [""])


def test_parts_of_a_batch_add_up(lm: Path, sentences: pa.Table) -> None:
    """The gradient of a batch does not depend on how many tokens the device holds."""
    still = dataclasses.replace(HOW, lora=Lora(rank=4, alpha=8, dropout=0.0))
    found = []
    for tokens in (0, 30):
        task = still.objective(Base(lm, batch_tokens=tokens), sentences)
        loss = task.backward(np.arange(6), 0)
        grads = [p.grad.clone() for p in task.module.parameters() if p.grad is not None]
        found.append((loss, grads))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def tuned(lm: Path, sentences: pa.Table, folder: Path, how: Sft = HOW, **more: Any) -> Any:
    task = how.objective(Base(lm), sentences)
    facts = run(task, how, folder / "steps", **more)
    save_adapter(task.module, folder / "adapter")
    return facts


def test_a_killed_training_ends_as_a_whole_one(
    lm: Path, sentences: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of an epoch: weights, losses and dropout go on bit for bit."""
    whole = tuned(lm, sentences, tmp_path / "whole")
    seen = 0
    backward = type(HOW.objective(Base(lm), sentences)).backward

    def dying(self: Any, rows: Any, epoch: int) -> float:
        nonlocal seen
        seen += 1
        if seen == 6:
            raise KeyboardInterrupt
        return backward(self, rows, epoch)

    from llmers_pipelines.tune.sft_net import SftTask

    monkeypatch.setattr(SftTask, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        tuned(lm, sentences, tmp_path / "cut", checkpoint_seconds=0)
    monkeypatch.undo()
    again = tuned(lm, sentences, tmp_path / "cut", checkpoint_seconds=0)
    assert again["resumed_from"] == 5 and whole["resumed_from"] == 0
    assert [e["loss"] for e in again["losses"]] == [e["loss"] for e in whole["losses"]]
    a, b = (tmp_path / n / "adapter" / "adapter_model.safetensors" for n in ("whole", "cut"))
    assert a.read_bytes() == b.read_bytes()


def test_snapshots_hold_no_pickles(lm: Path, sentences: pa.Table, tmp_path: Path) -> None:
    tuned(lm, sentences, tmp_path, dataclasses.replace(HOW, epochs=2), checkpoint_seconds=0)
    names = {p.suffix for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {".safetensors", ".json"}


def test_the_adapter_answers_what_it_was_taught(
    lm: Path, sentences: pa.Table, tmp_path: Path
) -> None:
    facts = tuned(lm, sentences, tmp_path, dataclasses.replace(HOW, epochs=40))
    assert facts["losses"][-1]["loss"] < 0.5 * facts["losses"][0]["loss"]
    ask = ChoiceRequest(
        "r", ({"role": "user", "content": "say moon"},), ("it is moon", "it is rain")
    )
    engines = [HfEngine(HfSettings(str(lm), adapter=a)) for a in ("", str(tmp_path / "adapter"))]
    plain, adapted = (next(iter(e.choose([ask]))) for e in engines)
    assert adapted.sums[0] > plain.sums[0] + 5
    assert adapted.best == 0


def test_what_decides_the_answers_is_the_adapters_identity(
    lm: Path, sentences: pa.Table, tmp_path: Path
) -> None:
    tuned(lm, sentences, tmp_path, dataclasses.replace(HOW, epochs=1))
    folder = tmp_path / "adapter"
    settings = HfSettings(str(lm), adapter=str(folder))
    one = HfEngine(settings).info.identity
    config = json.loads((folder / "adapter_config.json").read_text())
    for name, value, same in (
        ("base_model_name_or_path", "elsewhere", True),
        ("lora_alpha", 99, False),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({**config, name: value}))
        assert (HfEngine(settings).info.identity == one) is same, name
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(EngineError, match=r"no adapter_model\.safetensors"):
        HfEngine(settings)


def test_wrong_layers_are_named(lm: Path, sentences: pa.Table) -> None:
    how = dataclasses.replace(HOW, lora=Lora(targets=("no_such",)))
    with pytest.raises(TuneError, match=r"no_such.*q_proj"):
        how.objective(Base(lm), sentences)


def test_every_layer_can_be_tuned(lm: Path, sentences: pa.Table, tmp_path: Path) -> None:
    how = dataclasses.replace(HOW, lora=Lora(targets=("all",)), epochs=1)
    tuned(lm, sentences, tmp_path, how)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("down_proj" in n for n in names) and not any("lm_head" in n for n in names)


def test_the_rate_rises_and_falls() -> None:
    how = Sft(lr=1.0, warmup=0.2, schedule="linear")
    assert [round(how.rate(s, 10), 3) for s in (0, 1, 2, 6, 9)] == [0.5, 1.0, 1.0, 0.5, 0.125]
    flat = dataclasses.replace(how, warmup=0.0, schedule="constant")
    assert {flat.rate(s, 10) for s in range(10)} == {1.0}
    assert dataclasses.replace(flat, schedule="cosine").rate(5, 10) == pytest.approx(0.5)


def test_a_base_in_half_precision_has_an_adapter_in_full(
    lm: Path, sentences: pa.Table, tmp_path: Path
) -> None:
    """As on a GPU: weights of the base in bfloat16, those that are trained in float32."""
    how = dataclasses.replace(HOW, epochs=3)
    task = how.objective(Base(lm, dtype="bfloat16"), sentences)
    trained = {p.dtype for p in task.module.parameters() if p.requires_grad}
    frozen = {p.dtype for p in task.module.parameters() if not p.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})
    told = run(task, how, tmp_path / "steps")["losses"]
    assert told[-1]["loss"] < told[0]["loss"]
    save_adapter(task.module, tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors").values()
    assert all(w.dtype == torch.float32 and torch.isfinite(w).all() for w in weights)
