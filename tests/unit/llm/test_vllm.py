"""What of the vLLM engine needs no vLLM: identity, arguments, sampling, the tree of choices.

That the engine works is shown by `make test-vllm` alone, with real vLLM.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmers_pipelines.config import ConfigError, Settings, load_settings
from llmers_pipelines.llm import hf, vllm
from llmers_pipelines.llm.factory import engine_info, make_engine
from llmers_pipelines.llm.hf_decode import Work, row_seed
from llmers_pipelines.llm.protocol import EngineError, GenRequest
from llmers_pipelines.llm.vllm import VllmEngine, VllmSettings
from llmers_pipelines.llm.vllm_choose import questions
from llmers_pipelines.llm.vllm_machine import arguments

ASK = GenRequest("1", ({"role": "user", "content": "a"},), max_tokens=4)


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "installed", lambda: "")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 12, "peft_type": "LORA"}))
    return folder


def test_identity_is_that_of_hf_and_settings_of_speed_are_no_part_of_it(
    tiny_lm: Path, adapter: Path
) -> None:
    plain = VllmSettings(str(tiny_lm))
    same = hf.describe(hf.HfSettings(str(tiny_lm))).identity
    assert vllm.describe(plain).identity == same
    faster = dataclasses.replace(
        plain, tensor_parallel=4, gpu_memory=0.5, max_batch=7, context=99, dtype="float16"
    )
    assert vllm.describe(faster).identity == same
    quantized = vllm.describe(dataclasses.replace(plain, quantization="fp8")).identity
    assert quantized != same and "quantization:fp8" in quantized
    adapted = vllm.describe(dataclasses.replace(plain, adapter=str(adapter))).identity
    assert adapted == hf.describe(hf.HfSettings(str(tiny_lm), adapter=str(adapter))).identity
    assert adapted != same
    assert "hidden_layers" not in vllm.describe(plain).capabilities


def test_settings_reach_the_engine(tiny_lm: Path, adapter: Path, no_vllm: None) -> None:
    settings = Settings(
        engine="vllm", model=str(tiny_lm), adapter=str(adapter), quantization="fp8",
        dtype="float16", batch_tokens=5, vllm_tensor_parallel=2, vllm_gpu_memory_utilization=0.7,
        vllm_max_model_len=64, vllm_max_num_seqs=3, vllm_kv_cache_gib=2.0, vllm_enforce_eager=True,
    )  # fmt: skip
    engine = make_engine(settings)
    assert isinstance(engine, VllmEngine) and engine.info == engine_info(settings)
    assert engine.settings == VllmSettings(
        str(tiny_lm), adapter=str(adapter), dtype="float16", batch_tokens=5, max_batch=3,
        context=64, quantization="fp8", tensor_parallel=2, gpu_memory=0.7, kv_cache_gib=2.0,
        eager=True,
    )  # fmt: skip
    adapted = make_engine(Settings(engine="hf", model=str(tiny_lm), adapter=str(adapter)))
    assert isinstance(adapted, hf.HfEngine) and adapted.settings.adapter == str(adapter)


def test_both_engines_have_one_name_in_code_versions() -> None:
    settings = Settings(engine="hf", model="m", model_revision="r")
    assert settings.engine_identity == "hf:m@r"
    other = dataclasses.replace(settings, engine="vllm", vllm_tensor_parallel=8)
    assert other.engine_identity == "hf:m@r"
    for change in ({"adapter": "a"}, {"quantization": "fp8"}):
        assert dataclasses.replace(other, **change).engine_identity != "hf:m@r"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[llm]\nengine = "vllm"\n', '"vllm" needs llm.model'),
        ('[llm]\nengine = "hf"\nmodel = "m"\n[vllm]\nquantization = "fp8"\n', "as they are"),
        ('[llm]\ndtype = "int8"\n', "llm.dtype = 'int8'; expected one of auto, float32"),
        ("[vllm]\ntensor_parallel = 0\n", "at least 1"),
        ("[vllm]\ngpu_memory_utilization = 90\n", "a share of the device's memory"),
        ("[vllm]\ntensor_paralel = 2\n", "vllm.tensor_parallel"),
    ],
)
def test_wrong_settings_say_the_mend(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "llmers.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_settings(config=path, home=tmp_path)


def test_settings_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "llmers.toml"
    path.write_text(
        '[llm]\nengine = "vllm"\nmodel = "m"\nadapter = "a"\ndtype = "bfloat16"\n'
        '[vllm]\ntensor_parallel = 2\ngpu_memory_utilization = 0.8\nmax_model_len = 4096\n'
        'max_num_seqs = 64\nkv_cache_gib = 1.5\nenforce_eager = true\nquantization = "fp8"\n'
    )  # fmt: skip
    found = load_settings(config=path, home=tmp_path)
    assert (found.engine, found.adapter, found.dtype, found.quantization) == (
        "vllm", "a", "bfloat16", "fp8",
    )  # fmt: skip
    assert found.vllm_tensor_parallel == 2 and found.vllm_gpu_memory_utilization == 0.8
    assert found.vllm_max_model_len == 4096 and found.vllm_max_num_seqs == 64
    assert found.vllm_kv_cache_gib == 1.5 and found.vllm_enforce_eager is True


def test_arguments_on_cuda_and_on_cpu(tiny_lm: Path) -> None:
    settings = VllmSettings(str(tiny_lm), tensor_parallel=2, gpu_memory=0.6, context=128)
    cuda = arguments(settings, "", "cuda")
    assert cuda == {
        "model": str(tiny_lm), "dtype": "bfloat16", "trust_remote_code": False, "seed": 0,
        "tensor_parallel_size": 2, "enforce_eager": False, "disable_log_stats": True,
        "load_format": "safetensors", "gpu_memory_utilization": 0.6, "max_model_len": 128,
        "enable_prefix_caching": True, "max_logprobs": 128,
        "structured_outputs_config": {"backend": "xgrammar"},
    }  # fmt: skip
    cpu = arguments(settings, "", "cpu")
    # vLLM's own choice for float32 weights is half precision, and most of the memory.
    assert cpu["dtype"] == "float32" and cpu["kv_cache_memory_bytes"] == 2**30
    assert cpu["enforce_eager"] and "kv_cache_memory_bytes" not in cuda
    quantized = arguments(dataclasses.replace(settings, quantization="fp8"), "", "cuda")
    assert quantized["quantization"] == "fp8" and "load_format" not in quantized


def test_vectors_have_a_machine_of_their_own(tiny_lm: Path) -> None:
    given = arguments(VllmSettings(str(tiny_lm)), "last", "cuda")
    assert (given["runner"], given["convert"]) == ("pooling", "embed")
    assert given["pooler_config"] == {"seq_pooling_type": "LAST", "use_activation": False}
    assert "structured_outputs_config" not in given


def test_an_adapters_rank_is_read_and_bounded(tiny_lm: Path, adapter: Path) -> None:
    settings = VllmSettings(str(tiny_lm), adapter=str(adapter))
    given = arguments(settings, "", "cuda")
    assert given["enable_lora"] and given["max_loras"] == 1
    assert given["max_lora_rank"] == 16  # 12 is not offered
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({"r": 8, "rank_pattern": {"q_proj": 40}}))
    assert arguments(settings, "", "cuda")["max_lora_rank"] == 64
    config.write_text(json.dumps({"r": 1024}))
    with pytest.raises(EngineError, match="rank 1024; vLLM takes up to 512"):
        arguments(settings, "", "cuda")
    config.write_text("{}")
    with pytest.raises(EngineError, match=r"adapter_config\.json cannot be read"):
        arguments(settings, "", "cuda")


def test_sampling_says_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmers_pipelines.llm.structured import grammar_text
    from llmers_pipelines.llm.vllm_decode import sampling

    fake: Any = SimpleNamespace(SamplingParams=lambda **given: given)
    inner: Any = SimpleNamespace(StructuredOutputsParams=lambda **given: given)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", inner)
    assert sampling(Work(0, ASK, [5])) == {
        "max_tokens": 4, "temperature": 0.0, "top_p": 1.0, "seed": None, "stop": None,
        "detokenize": False, "structured_outputs": None,
    }  # fmt: skip
    schema = {"type": "object", "properties": {"a": {"const": "x"}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    drawn = dataclasses.replace(
        ASK, temperature=0.5, top_p=0.9, seed=3, stop=("\n",), schema=schema
    )
    given = sampling(Work(0, drawn, [5]))
    assert (given["temperature"], given["top_p"], given["stop"]) == (0.5, 0.9, ["\n"])
    assert given["detokenize"] is True  # or stop strings would not be seen
    assert given["seed"] == row_seed(3, [5]) != row_seed(3, [6])
    assert given["structured_outputs"] == {"grammar": grammar_text(schema)}
    assert '"\\"x\\""' in grammar_text(schema)


def test_the_tree_of_choices_asks_each_beginning_once() -> None:
    asked = list(questions([[1, 2], [1, 3], [1, 2, 4], [7], [1, 2]]))
    assert asked == [((), [1, 7]), ((1,), [2, 3]), ((1, 2), [4])]
    wide = list(questions([[token] for token in range(300)]))
    assert [len(follow) for _, follow in wide] == [128, 128, 44]
    assert [node for node, _ in wide] == [()] * 3


def test_without_vllm_the_store_serves_and_the_first_call_says_how_to_install(
    tiny_lm: Path, no_vllm: None
) -> None:
    engine = make_engine(Settings(engine="vllm", model=str(tiny_lm)))
    assert engine.info.identity and "vllm" not in engine.info.libraries
    assert list(engine.generate([])) == [] and list(engine.choose([])) == []
    for call in (
        lambda: list(engine.generate([ASK])),
        lambda: engine.embed(["a"]),
    ):
        with pytest.raises(EngineError, match=r"not installed here: `make setup-gpu`"):
            call()
    engine.close()


def test_a_process_that_had_to_be_killed_is_waited_for() -> None:
    from llmers_pipelines.llm.vllm_machine import stop

    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.name = "EngineCore"
    child.start()
    seen: list[float] = []

    def shutdown(timeout: float) -> None:
        seen.append(timeout)
        os.kill(child.pid or 0, signal.SIGKILL)

    core = SimpleNamespace(shutdown=shutdown)
    stop(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core)))
    assert seen == [60.0] and child.exitcode == -signal.SIGKILL
    assert not Path(f"/proc/{child.pid}").exists()  # not even as a zombie


def test_doctor_knows_vllm(tiny_lm: Path, tmp_path: Path, no_vllm: None) -> None:
    from llmers_pipelines.cli.doctor import _checks

    def row(**settings: Any) -> dict[str, Any]:
        found = {r["check"]: r for r in _checks(Settings(home=tmp_path, **settings))}
        return found["vllm"] | {
            "model": found.get("llm model"),
            "adapter": found.get("llm adapter"),
        }

    wanted = row(engine="vllm", model=str(tiny_lm), adapter="/no/such/folder")
    assert not wanted["ok"] and wanted["required"] and "make setup-gpu" in wanted["mend"]
    assert wanted["model"]["ok"] and not wanted["adapter"]["ok"]
    unused = row()
    assert not unused["ok"] and not unused["required"]
