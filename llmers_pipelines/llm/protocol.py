"""What an engine is: requests in, results out as they are ready, errors as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from .pictures import Picture

# What an engine may be able to do; tasks and the runner ask before they rely on it.
CAPABILITIES = {
    "prompts": "reads the messages, so a repair message makes sense and equal prompts are one call",
    "schema": "answers obey a JSON schema while they are decoded",
    "logprobs": "choose() ranks by real log-probabilities",
    "prefix_score": "candidates of one request share the computation of its prompt",
    "hidden_layers": "embed() reads any layer",
    "lora": "loads an adapter",
    "metered": "books every attempt by itself, before it is made",
    "images": "reads image parts; without it a request that holds one is an error of its row",
}
class TextPart(TypedDict):
    """Words, as one part of a message."""

    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    """A picture, as one part of a message: ``pictures.Picture``, or the bytes of a file."""

    type: Literal["image"]
    image: Picture | bytes


Message = Mapping[str, Any]  # {"role": ..., "content": str | list[TextPart | ImagePart]}
Halt = Callable[[], bool]  # True: begin no further batch


class EngineError(RuntimeError):
    """An engine cannot be used at all; a single row's failure is a value, never this."""


class EngineStopped(EngineError):
    """An engine begins nothing more (budget, quota, dead endpoint). What it yielded stands."""


@dataclass(frozen=True)
class Marks:
    """Spellings that a tokenizer or its chat template reads as control tokens.

    ``folds``: the tokenizer normalizes texts, so that other characters may become a mark as well.
    """

    texts: tuple[str, ...] = ()
    folds: bool = False


@dataclass(frozen=True)
class EngineInfo:
    """Identity and abilities of an engine.

    ``identity`` enters the keys of stored answers. It names what decides an answer (weights,
    adapter, tokenizer with its chat template), not what computes it (kind, dtype, libraries).
    """

    kind: str  # template | recorded | hf | vllm | openai | fake | ...
    model: str  # name for people
    weights_sha256: str = ""
    tokenizer_sha256: str = ""
    adapter: str = ""  # sha256 of the adapter's weights
    quantization: str = ""  # of weights that are stored otherwise, made when they are loaded
    dtype: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    data_cutoff: str = ""  # data that recorded prompts saw; "unknown" when nobody wrote it down
    marks: Marks = Marks()  # what texts must not spell; requests are neutralized before they go
    image_processor: str = ""  # sha256 of how images become input; in keys of requests with images

    @property
    def identity(self) -> str:
        parts = [f"weights:{self.weights_sha256}" if self.weights_sha256 else f"model:{self.model}"]
        parts += [f"adapter:{self.adapter}"] if self.adapter else []
        parts += [f"quantization:{self.quantization}"] if self.quantization else []
        parts += [f"tokenizer:{self.tokenizer_sha256}"] if self.tokenizer_sha256 else []
        return "+".join(parts)

    @property
    def label(self) -> str:
        """Name for the ``model`` column; says so when no language model was involved."""
        if self.kind == "template":
            return "no LLM (template)"
        short = f"@{self.weights_sha256[:12]}" if self.weights_sha256 else ""
        return f"{self.model}{short}" + (" (recorded)" if self.kind == "recorded" else "")


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. ``max_tokens`` 0 = the task's own bound."""

    max_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenRequest:
    """One answer wanted. ``row`` and ``without_model`` are for engines that read no messages."""

    row_id: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    row: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    without_model: Callable[[], str] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class GenResult:
    """One answer, or the reason why there is none (``error``; then ``text`` is empty).

    Tokens and money are those of all attempts together, failed ones included.
    """

    row_id: str
    text: str = ""
    finish_reason: str = "stop"  # stop | length | refusal | content_filter | error
    tokens_in: int = 0
    tokens_out: int = 0
    error: str = ""
    key: str = ""
    cache_hit: bool = False
    attempts: int = 1
    cached: int = 0  # of tokens_in: those that the endpoint had cached
    money: float = 0.0
    throttled: int = 0  # times that the endpoint asked to wait; these are no attempts
    served: str = ""  # what the endpoint says which model answered

    @classmethod
    def failed(cls, row_id: str, error: str, **counts: Any) -> GenResult:
        return cls(row_id, finish_reason="error", error=error, **counts)


@dataclass(frozen=True)
class ChoiceRequest:
    """Which of ``choices`` is the likeliest answer to ``messages``.

    ``first_tokens`` scores as many tokens of each choice and takes the rest for certain; 0 = all.
    """

    row_id: str
    messages: tuple[Message, ...]
    choices: tuple[str, ...]
    first_tokens: int = 0


@dataclass(frozen=True)
class ChoiceResult:
    """Per choice the sum and the per-token mean of log-probabilities (nats), in order.

    ``tokens_in``: those of the prompt, once, and of all choices; 0 where the engine cannot tell.
    """

    row_id: str
    sums: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    error: str = ""
    tokens_in: int = 0

    @property
    def best(self) -> int:
        """Position of the choice with the highest mean; the first one on ties."""
        return max(range(len(self.means)), key=lambda i: (self.means[i], -i))


@runtime_checkable
class Engine(Protocol):
    """Results come in any order, each as soon as it is ready."""

    info: EngineInfo

    def generate(
        self, requests: Sequence[GenRequest], *, halt: Halt | None = None
    ) -> Iterator[GenResult]:
        """Yield one result per request; after ``halt()`` turned True, none for those not begun."""
        ...

    def choose(self, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
        """Yield one result per request."""
        ...

    def embed(
        self, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1
    ) -> np.ndarray:
        """Return float32[len(texts), E]: pooled hidden states of ``layer`` (-1 = last)."""
        ...

    def close(self) -> None:
        """Give memory back. The engine is not used afterwards."""
        ...


def cannot(engine: str, what: str) -> EngineError:
    """Return the error of a call that an engine of this kind does not offer."""
    return EngineError(
        f"the {engine} engine cannot {what}: no language model runs behind it; choose llm.engine = "
        '"hf" with a model for this asset'
    )
