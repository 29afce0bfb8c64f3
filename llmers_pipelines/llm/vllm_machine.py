"""vLLM itself: its arguments, start, end, pooled vectors, and the loop that feeds it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .identity import model_folder
from .protocol import EngineError, Halt

if TYPE_CHECKING:
    import numpy as np

    from .vllm import VllmSettings

POOLINGS = {"mean": "MEAN", "last": "LAST", "cls": "CLS"}
TOKENS_SCORED = 128  # named tokens whose log-probabilities one request may ask for
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM compiles adapters for
_SHARD = 4096  # texts that are handed over together: bounds memory
_GIB = 2**30
_GRACE = 60.0  # seconds for a process to end; vLLM's five are too few on a busy machine


def arguments(settings: VllmSettings, pooling: str, device: str) -> dict[str, Any]:
    """Return the arguments of vLLM's ``LLM`` for answers (``pooling`` "") or for vectors.

    Where vLLM's own default would change answers (half precision for float32 weights, the choice
    of a grammar library by request) the choice is made here, as the transformers engine makes it.
    """
    cuda = device == "cuda"
    auto = "bfloat16" if cuda else "float32"
    given: dict[str, Any] = {
        "model": str(model_folder(settings.model, settings.revision)),
        "dtype": auto if settings.dtype == "auto" else settings.dtype,
        "trust_remote_code": False,
        "tensor_parallel_size": settings.tensor_parallel,
        "seed": 0,
        "enforce_eager": settings.eager or device == "cpu",
        "disable_log_stats": True,
    }
    # bitsandbytes brings a loader of its own; the files are safetensors in either case.
    given |= {"quantization": settings.quantization} if settings.quantization else {
        "load_format": "safetensors"
    }  # fmt: skip
    given |= {"gpu_memory_utilization": settings.gpu_memory} if settings.gpu_memory else {}
    given |= {"max_model_len": settings.context} if settings.context else {}
    given |= {"max_num_seqs": settings.max_batch} if settings.max_batch else {}
    given |= {"max_num_batched_tokens": settings.batch_tokens} if settings.batch_tokens else {}
    # On a CPU vLLM would take most of the memory of the machine.
    if gib := settings.kv_cache_gib or (device == "cpu" and 1.0):
        given["kv_cache_memory_bytes"] = int(gib * _GIB)
    if settings.adapter:
        given |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(settings.adapter)}
    if pooling:
        how = {"seq_pooling_type": POOLINGS[pooling], "use_activation": False}
        return given | {"runner": "pooling", "convert": "embed", "pooler_config": how}
    return given | {
        "enable_prefix_caching": True,
        "max_logprobs": TOKENS_SCORED,
        "structured_outputs_config": {"backend": "xgrammar"},
    }


def start(settings: VllmSettings, pooling: str) -> tuple[Any, dict[str, str]]:
    """Return vLLM's ``LLM`` and the device and dtype in use; ``EngineError`` with the reason."""
    from vllm import LLM  # pyright: ignore
    from vllm.config import PoolerConfig  # pyright: ignore
    from vllm.platforms import current_platform  # pyright: ignore

    device = str(current_platform.device_type)
    given = arguments(settings, pooling, device)
    if pooling:
        given["pooler_config"] = PoolerConfig(**given["pooler_config"])
    try:
        return LLM(**given), {"device": device, "dtype": given["dtype"]}
    except Exception as error:  # vLLM raises many kinds; all mean that this model cannot be run
        raise EngineError(
            f"vLLM could not start {settings.model!r} on {device} ({type(error).__name__}: "
            f"{error}); where memory is short, lower gpu_memory, max_model_len or max_num_seqs in "
            "[vllm], or raise tensor_parallel"
        ) from error


def stop(machine: Any) -> None:
    """End the machine and its processes; a machine inside of this process frees its memory."""
    core = machine.llm_engine.engine_core
    own = hasattr(core, "engine_core")  # the model is in this very process
    children = [c for c in active_children() if c.name.startswith("EngineCore")]
    core.shutdown(timeout=_GRACE)
    for child in children:  # vLLM does not wait for what it had to kill
        child.join(_GRACE)
    del machine, core
    if own:
        from vllm.distributed import (  # pyright: ignore
            cleanup_dist_env_and_memory,
        )

        cleanup_dist_env_and_memory()
    gc.collect()


def lora(adapter: str) -> Any:
    """Return vLLM's request for the adapter in the folder ``adapter``; None without one."""
    if not adapter:
        return None
    from vllm.lora.request import LoRARequest  # pyright: ignore

    return LoRARequest("adapter", 1, str(Path(adapter).expanduser()))


def stream(
    machine: Any,
    jobs: Iterable[tuple[Any, list[int] | dict[str, Any], Callable[[], Any]]],
    *,
    adapter: str = "",
    halt: Halt | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Yield (tag, output) as each of ``jobs`` (tag, prompt, maker of its sampling) ends.

    A prompt is a list of token ids, or such a list with images in vLLM's own form.

    The machine is kept full: as many jobs as it runs at once are in flight, and each that ends
    makes room for the next. After ``halt()`` none is begun, and those in flight end. Where a job is
    refused, the reason stands in the output's place.
    """
    from vllm.exceptions import VLLMClientError  # pyright: ignore

    engine = machine.llm_engine
    request = lora(adapter)
    room = engine.vllm_config.scheduler_config.max_num_seqs
    flying: dict[str, Any] = {}
    waiting = iter(jobs)
    more = True
    try:
        while more or flying:
            while more and len(flying) < room:
                if halt is not None and halt():
                    more = False
                    break
                job = next(waiting, None)
                if job is None:
                    more = False
                    break
                tag, prompt, sampling = job
                try:
                    (name,) = machine.enqueue(
                        [prompt if isinstance(prompt, dict) else {"prompt_token_ids": prompt}],
                        [sampling()],
                        lora_request=request, use_tqdm=False,
                    )  # fmt: skip
                except (ValueError, VLLMClientError) as error:
                    yield tag, str(error)
                    continue
                except Exception as error:  # of many kinds, as below
                    flying.clear()
                    raise _broken(error) from error
                # The name that comes back ends in a random suffix, which outputs do not bear.
                flying[name.rpartition("-")[0] or name] = tag
            try:
                outputs = engine.step() if flying else ()
            except Exception as error:  # of many kinds; the machine is not usable after any
                flying.clear()
                raise _broken(error) from error
            for output in outputs:
                if output.finished:
                    yield flying.pop(output.request_id), output
    finally:
        if flying:
            engine.abort_request(list(flying))


def _broken(error: Exception) -> EngineError:
    return EngineError(
        f"vLLM stopped working ({type(error).__name__}: {error}); answers that came before are "
        "stored, and a second run asks for the rest"
    )


def vectors(machine: Any, rows: Sequence[list[int]], *, adapter: str = "") -> np.ndarray:
    """Return float32 (B, E): the pooled last layer of each row of token ids."""
    import numpy as np

    request = lora(adapter)
    out = np.zeros((len(rows), machine.model_config.get_hidden_size()), np.float32)
    for begin in range(0, len(rows), _SHARD):
        prompts = [{"prompt_token_ids": row} for row in rows[begin : begin + _SHARD]]
        found = machine.embed(prompts, lora_request=request, use_tqdm=False)
        out[begin : begin + len(prompts)] = [answer.outputs.embedding for answer in found]
    return out


def _rank(adapter: str) -> int:
    """Return the least rank that vLLM offers and that holds the adapter's."""
    path = Path(adapter).expanduser() / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(
            f"llm.adapter = {adapter!r}: {path.name} cannot be read ({type(error).__name__}: "
            f"{error}); expected a folder as PEFT's save_pretrained writes it"
        ) from error
    fitting = [offered for offered in _RANKS if offered >= rank]
    if not fitting:
        raise EngineError(f"llm.adapter = {adapter!r}: rank {rank}; vLLM takes up to {_RANKS[-1]}")
    return fitting[0]
