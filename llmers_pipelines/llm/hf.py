"""The engine that runs a local language model through transformers, on CPU or CUDA."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.file_hash import adapter_sha256
from .batching import batches
from .hf_guard import ControlGuard
from .hf_tokens import load_tokenizer, prompt_ids
from .identity import (
    image_processor_sha256,
    model_folder,
    tokenizer_sha256,
    weights_sha256,
)
from .neutral import neutral_message, neutralize, tokenizer_marks
from .pictures import images_in
from .protocol import (
    ChoiceRequest,
    ChoiceResult,
    EngineError,
    EngineInfo,
    GenRequest,
    GenResult,
    Halt,
    Message,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .hf_vision import VisionPrompts

SHARD = 4096  # requests that are tokenized and sorted together: bounds memory
_ABILITIES = frozenset({"prompts", "schema", "logprobs", "prefix_score", "hidden_layers", "lora"})


@dataclass(frozen=True)
class HfSettings:
    """``model`` is a local folder or a hub id. Zeros and "auto" leave the choice to the device.

    Only ``model``, ``revision`` and ``adapter`` can change an answer's meaning; the rest is speed.
    """

    model: str
    revision: str = ""
    adapter: str = ""  # folder of a LoRA adapter
    device: str = "auto"  # cuda if there is one, else cpu
    dtype: str = "auto"  # bfloat16 on cuda, float32 on cpu
    batch_tokens: int = 0  # prompt and answer tokens of one batch; 16,384 on cpu, 65,536 on cuda
    max_batch: int = 0  # rows of one batch; 8 on cpu (32 was slower), 128 on cuda
    context: int = 0  # token limit; the model's own


def describe(settings: HfSettings) -> EngineInfo:
    """Return the engine's identity from the files alone: nothing is loaded."""
    folder = model_folder(settings.model, settings.revision)
    images = image_processor_sha256(folder)
    names = ("torch", "transformers", "tokenizers", "xgrammar", *(("pillow",) if images else ()))
    return EngineInfo(
        kind="hf",
        model=f"{settings.model}@{settings.revision}" if settings.revision else settings.model,
        weights_sha256=weights_sha256(folder),
        tokenizer_sha256=tokenizer_sha256(folder),
        adapter=_adapter_identity(settings.adapter) if settings.adapter else "",
        dtype=settings.dtype,
        libraries={name: version(name) for name in names},
        capabilities=_ABILITIES | ({"images"} if images else frozenset()),
        marks=tokenizer_marks(folder),
        image_processor=images,
    )


def _adapter_identity(folder: str) -> str:
    try:
        return adapter_sha256(Path(folder))
    except FileNotFoundError as error:
        raise EngineError(f"llm.adapter = {folder!r}: {error}") from error


class HfEngine:
    """Loads the model at the first call that needs it; a run served by the store loads nothing."""

    load_seconds: float = 0.0  # that loading took so far, imports included

    def __init__(self, settings: HfSettings) -> None:
        self.settings = settings
        self.info = describe(settings)

    @cached_property
    def tokenizer(self) -> Any:
        started = time.perf_counter()
        tokenizer = load_tokenizer(model_folder(self.settings.model, self.settings.revision))
        self.load_seconds += time.perf_counter() - started
        return tokenizer

    @cached_property
    def _vision(self) -> VisionPrompts | None:
        """What makes prompts with images; None for a model that reads text alone."""
        if "images" not in self.info.capabilities:
            return None
        from .hf_vision import VisionPrompts

        folder = model_folder(self.settings.model, self.settings.revision)
        return VisionPrompts(folder, self.tokenizer)

    @cached_property
    def model(self) -> Any:
        tokenizer = self.tokenizer  # has its own seconds
        started = time.perf_counter()
        from transformers import (
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            GenerationConfig,
        )

        folder = model_folder(self.settings.model, self.settings.revision)
        kind: Any = AutoModelForImageTextToText if self._vision else AutoModelForCausalLM
        model = kind.from_pretrained(
            folder, dtype=self._dtype, use_safetensors=True, trust_remote_code=False
        )
        if self.settings.adapter:
            model = _with_adapter(model, self.settings.adapter)
        stop = model.generation_config.eos_token_id
        stops = stop if isinstance(stop, (list, tuple)) else [stop]
        ends = {t for t in (*stops, tokenizer.eos_token_id) if t is not None}
        # The model's own sampling defaults would change answers without entering their keys.
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
        self.info = dataclasses.replace(self.info, dtype=str(self._dtype).removeprefix("torch."))
        ready = model.to(self.device).eval()
        self.load_seconds += time.perf_counter() - started
        return ready

    @cached_property
    def device(self) -> str:
        import torch

        if self.settings.device != "auto":
            return self.settings.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def _dtype(self) -> torch.dtype:
        import torch

        name = self.settings.dtype
        if name == "auto":
            name = "bfloat16" if self.device.startswith("cuda") else "float32"
        return getattr(torch, name)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        own = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return min(filter(None, (self.settings.context, own)), default=1_000_000)

    @cached_property
    def _grammars(self) -> Any:
        from .structured import Grammars

        width = self.model.get_output_embeddings().weight.shape[0]
        return Grammars(self.tokenizer, width, self.model.generation_config.eos_token_id)

    def generate(
        self, requests: Sequence[GenRequest], *, halt: Halt | None = None
    ) -> Iterator[GenResult]:
        """Yield results batch by batch, longest prompts first. Rows that do not fit are errors."""
        for start in range(0, len(requests), SHARD):
            works = []
            for place, request in enumerate(requests[start : start + SHARD]):
                work = self._work(place, request)
                if isinstance(work, GenResult):
                    yield work
                else:
                    works.append(work)
            works.sort(key=lambda w: (-w.size, w.place))
            for images in (False, True):  # a batch holds images in every row, or in none
                sized = [(w.size, w) for w in works if bool(w.images) is images]
                for batch in batches(sized, self._batch_tokens, self._max_batch):
                    if halt is not None and halt():
                        return
                    yield from self._halving(batch)

    def _work(self, place: int, request: GenRequest) -> Any:
        """Return the tokenized request, or its failure as a result."""
        try:
            prompt = self._prompt(request.messages)
        except ValueError as error:
            return GenResult.failed(request.row_id, str(error))
        if len(prompt) + request.max_tokens > self.context:
            return GenResult.failed(
                request.row_id,
                f"prompt of {len(prompt)} tokens and answer of up to {request.max_tokens} exceed "
                f"the model's context of {self.context}",
            )
        from .hf_decode import Work  # after the model: what it imports is part of loading

        if not (images := images_in(request.messages)) or self._vision is None:
            return Work(place, request, prompt)
        short = self._vision.short(request.messages)
        return Work(place, request, prompt, tuple(images), tuple(short))

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a chat; ``ValueError`` where it is more than the model reads."""
        if self._vision is None:
            ids = prompt_ids(self.tokenizer, messages)
            self._guard.check(messages, ids)
            return ids
        self._guard.check(messages, self._vision.short(messages))
        return self._vision.ids(messages)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a prompt with its template; loads the tokenizer alone."""
        if self._vision is not None:
            return len(self._vision.ids(messages))
        return len(prompt_ids(self.tokenizer, messages))

    def text_tokens(self, text: str) -> int:
        """Return the tokens of a text alone."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _guard(self) -> ControlGuard:
        short = self._vision.short if self._vision is not None else None
        return ControlGuard(self.tokenizer, self.info.marks, short)

    @property
    def _batch_tokens(self) -> int:
        auto = 65_536 if self.device.startswith("cuda") else 16_384
        return self.settings.batch_tokens or auto

    @property
    def _max_batch(self) -> int:
        return self.settings.max_batch or (128 if self.device.startswith("cuda") else 8)

    def _halving(self, batch: list[Any]) -> Iterator[GenResult]:
        """Yield the batch's results, in halves where the device's memory does not hold it whole."""
        import torch

        from .hf_decode import decode

        try:
            results = decode(self.model, self.tokenizer, self._grammars, batch, self._vision)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                yield GenResult.failed(batch[0].request.row_id, "the device is out of memory")
                return
            half = len(batch) // 2
            yield from self._halving(batch[:half])
            yield from self._halving(batch[half:])
            return
        yield from results

    def choose(self, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
        """Yield log-probabilities of each request's choices; its prompt is computed once."""
        from .hf_score import score_candidates

        for request in requests:
            ready = self._scorable(request)
            if isinstance(ready, ChoiceResult):
                yield ready
                continue
            scores = score_candidates(self.model, *ready, batch_tokens=self._batch_tokens)
            sums, means = zip(*scores, strict=True)
            prompt, choices = ready
            read = len(prompt) + sum(map(len, choices))
            yield ChoiceResult(request.row_id, sums, means, tokens_in=read)

    def _scorable(self, request: ChoiceRequest) -> ChoiceResult | tuple[list[int], list[list[int]]]:
        """Return token ids of the prompt and of each choice, or why they cannot be scored."""
        marks = self.info.marks
        if images_in(request.messages):
            return ChoiceResult(request.row_id, error="choices are scored for texts alone; the "
                                "request holds an image")  # fmt: skip
        try:
            prefix = self._prompt([neutral_message(m, marks) for m in request.messages])
        except ValueError as error:
            return ChoiceResult(request.row_id, error=str(error))
        tokens = [self.tokenizer(neutralize(c, marks), add_special_tokens=False)["input_ids"]
                  for c in request.choices]  # fmt: skip
        if request.first_tokens:
            tokens = [t[: request.first_tokens] for t in tokens]
        if reason := self._unscorable(prefix, tokens):
            return ChoiceResult(request.row_id, error=reason)
        return prefix, tokens

    def _unscorable(self, prefix: list[int], choices: list[list[int]]) -> str:
        if not choices:
            return "there are no choices"
        if not all(choices):
            return "a choice is empty"
        if len(prefix) + max(map(len, choices)) > self.context:
            return f"prompt and choice exceed the model's context of {self.context}"
        return ""

    def embed(self, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1) -> np.ndarray:
        """Return float32[len(texts), E]; texts beyond the context are cut at their end."""
        import numpy as np

        from .hf_states import hidden_states

        pad = self.tokenizer.pad_token_id
        rows = self._token_rows(texts)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        out = np.zeros((len(rows), self.model.config.get_text_config().hidden_size), np.float32)
        sized = [(len(rows[i]), i) for i in order]
        for batch in batches(sized, self._batch_tokens, self._max_batch):
            tokens = [rows[i] for i in batch]
            out[batch] = hidden_states(self.model, tokens, pooling=pooling, layer=layer, pad=pad)
        return out

    def _token_rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, at least one and at most the context's."""
        pad = self.tokenizer.pad_token_id
        told = [neutralize(text, self.info.marks) for text in texts]
        return [self.tokenizer(text)["input_ids"][: self.context] or [pad] for text in told]

    def close(self) -> None:
        """Drop the model and give the device's memory back."""
        if self.__dict__.pop("model", None) is not None and self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()
        self.__dict__.pop("_grammars", None)


def _with_adapter(model: Any, folder: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise EngineError(
            f"llm adapter {folder!r} needs the package peft; install llmers_pipelines[llm]"
        ) from error
    return PeftModel.from_pretrained(model, folder).merge_and_unload()
