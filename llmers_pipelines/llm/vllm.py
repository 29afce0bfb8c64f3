"""The engine that runs a local language model through vLLM, in this process's machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

from . import hf
from .protocol import (
    ChoiceRequest,
    ChoiceResult,
    EngineError,
    EngineInfo,
    GenRequest,
    GenResult,
    Halt,
)

if TYPE_CHECKING:
    import numpy as np

INSTALL = (
    "vLLM is not installed here: `make setup-gpu` makes an environment with it (.venv-gpu, CUDA), "
    "`make test-vllm` one for the CPU (.venv-vllm)"
)
_ABILITIES = frozenset({"prompts", "schema", "logprobs", "prefix_score", "lora"})


@dataclass(frozen=True)
class VllmSettings(hf.HfSettings):
    """As ``HfSettings``; ``context``, ``max_batch`` and ``batch_tokens`` bound vLLM's scheduler.

    Of the rest only ``quantization`` changes answers, so it alone enters the identity. ``device``
    is not read: an installation of vLLM is built for one kind of device.
    """

    quantization: str = ""  # as vLLM names it; "" = as the weights are
    tensor_parallel: int = 1  # GPUs that share the model
    gpu_memory: float = 0.0  # share of a device's memory; 0 = vLLM's own
    kv_cache_gib: float = 0.0  # key-value cache; 0 = what is left on cuda, 1 on cpu
    eager: bool = False  # no compiled graphs: starts sooner, runs slower; always on cpu


@cache
def installed() -> str:
    """Return the version of vLLM, "" where there is none. Nothing is imported.

    The distribution need not be called ``vllm``: CPU builds have names of their own.
    """
    try:
        if util.find_spec("vllm") is None:
            return ""
    except ValueError:  # a module without a spec: put in place by a test
        return "unknown"
    names = metadata.packages_distributions().get("vllm") or ()
    return next((metadata.version(name) for name in names), "unknown")


def describe(settings: VllmSettings) -> EngineInfo:
    """Return the engine's identity: that of ``hf`` for the same files, so answers are shared."""
    info = hf.describe(settings)
    libraries = {**info.libraries, **({"vllm": installed()} if installed() else {})}
    return dataclasses.replace(
        info,
        kind="vllm",
        libraries=libraries,
        capabilities=_ABILITIES | (info.capabilities & {"images"}),
        quantization=settings.quantization,
    )


class VllmEngine(hf.HfEngine):
    """Prompts, limits and answers are those of ``HfEngine``; vLLM computes in between.

    vLLM starts at the first call that needs it, for answers or for vectors: one machine of vLLM
    cannot do both, and two would share a device's memory, so the other one is stopped first.
    """

    settings: VllmSettings

    def __init__(self, settings: VllmSettings) -> None:
        self.settings = settings
        self.info = describe(settings)
        self._machine: Any = None
        self._pooling = ""  # of the running machine; "" = it generates

    @property
    def model(self) -> Any:
        """Not offered: vLLM keeps the weights in its own process."""
        raise EngineError('the weights are inside of vLLM; use llm.engine = "hf" to read them')

    def machine(self, pooling: str = "") -> Any:
        """Return vLLM's ``LLM``, started for answers or for vectors pooled as named."""
        if self._machine is None or self._pooling != pooling:
            from .vllm_machine import start

            if not installed():
                raise EngineError(INSTALL)
            self.close()
            started = time.perf_counter()
            self._machine, seen = start(self.settings, pooling)
            self.load_seconds += time.perf_counter() - started
            self._pooling = pooling
            found = {**self.info.libraries, "device": seen["device"]}
            self.info = dataclasses.replace(self.info, dtype=seen["dtype"], libraries=found)
        return self._machine

    @property
    def device(self) -> str:
        """What vLLM computes on (cuda, cpu, ...); "" before it was started."""
        return self.info.libraries.get("device", "")

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return (self._machine or self.machine()).model_config.max_model_len

    def generate(
        self, requests: Sequence[GenRequest], *, halt: Halt | None = None
    ) -> Iterator[GenResult]:
        """Yield each result as it is finished; after ``halt()`` those in flight are the last."""
        if not requests:
            return
        from .vllm_decode import answers

        machine = self.machine()
        works = (self._work(place, request) for place, request in enumerate(requests))
        yield from answers(machine, self.tokenizer, works, adapter=self.settings.adapter, halt=halt)

    def choose(self, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
        """Yield log-probabilities of each request's choices; shared beginnings are computed once.

        The sums are of the whole choices, token by token, from ``logprob_token_ids``.
        """
        if not requests:
            return
        from .vllm_choose import choices

        machine = self.machine()
        ready = ((request.row_id, self._scorable(request)) for request in requests)
        yield from choices(machine, ready, adapter=self.settings.adapter)

    def embed(self, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1) -> np.ndarray:
        """Return float32[len(texts), E] of the last layer; texts beyond the context are cut.

        Raises ``EngineError`` for another layer, which vLLM does not give out.
        """
        from .vllm_machine import POOLINGS, vectors

        if layer != -1:
            raise EngineError(
                f"the vllm engine pools the last layer only, not layer {layer}; "
                'set llm.engine = "hf" for this asset'
            )
        if pooling not in POOLINGS:
            raise ValueError(f"pooling {pooling!r}; expected one of {', '.join(POOLINGS)}")
        machine = self.machine(pooling)
        return vectors(machine, self._token_rows(texts), adapter=self.settings.adapter)

    def close(self) -> None:
        """End vLLM and its processes and give the device's memory back."""
        if self._machine is not None:
            from .vllm_machine import stop

            machine, self._machine = self._machine, None
            stop(machine)
