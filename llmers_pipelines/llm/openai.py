"""The engine of any OpenAI-compatible endpoint: a provider, a gateway, or a vLLM server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..config import secret
from .breaker import Breaker
from .chat_form import LIMITS, SCHEMAS, Form
from .clock import Clock, RealClock, Stop
from .ledger import Ledger
from .meter import Meter
from .neutral import COMMON
from .protocol import (
    ChoiceRequest,
    ChoiceResult,
    EngineError,
    EngineInfo,
    EngineStopped,
    GenRequest,
    GenResult,
    Halt,
)
from .rate import Rate, shared_rate
from .seen import Seen
from .workers import stream

if TYPE_CHECKING:
    import numpy as np

    from .openai_http import Http

_ABILITIES = frozenset({"prompts", "schema", "metered"})


@dataclass(frozen=True)
class OpenAISettings:
    """``model`` and ``revision`` are the identity of the answers; all else is how to get them."""

    model: str
    revision: str = ""  # what a person calls this state of the model, where its name does not
    endpoint: str = ""  # base address; may be "" where answers come from batch files alone
    api_key_env: str = "OPENAI_API_KEY"  # the variable that holds the key
    concurrency: int = 8
    requests_per_minute: int = 0  # 0 = no bound
    tokens_per_minute: int = 0
    timeout_seconds: float = 120.0
    attempts: int = 4  # per request; waiting that the endpoint asks for is none
    throttle_seconds: float = 600.0  # how long it may ask to wait before it is given up
    schema: str = "full"  # see chat_form.Form
    token_limit: str = "max_tokens"
    images: bool = False  # the model reads them
    image_tokens: int = 10_000  # most that one image counts for; held until the use is known
    breaker_failures: int = 10
    breaker_cooldown: float = 15.0
    breaker_probes: int = 4


def describe(settings: OpenAISettings) -> EngineInfo:
    """Return the identity. The endpoint is no part of it: two that serve one model share answers.

    Arbitrary choices cannot be scored over this interface, so "logprobs" is not among the
    abilities; ``choose`` knows single tokens alone.
    """
    name = f"{settings.model}@{settings.revision}" if settings.revision else settings.model
    return EngineInfo(
        kind="openai",
        model=name,
        libraries={"requests": version("requests")},
        capabilities=_ABILITIES | ({"images"} if settings.images else frozenset()),
        marks=COMMON,  # nobody says which tokenizer answers
    )


class OpenAIEngine:
    """Asks an endpoint from ``concurrency`` threads."""

    def __init__(
        self,
        settings: OpenAISettings,
        meter: Meter | None = None,
        *,
        clock: Clock | None = None,
        rate: Rate | None = None,
    ) -> None:
        self.settings = _checked(settings)
        self.info = describe(settings)
        self.meter = meter or Meter(Ledger(":memory:"), run="-", model=settings.model)
        self.clock = clock or RealClock()
        self.rate = rate or shared_rate(
            settings.endpoint, settings.model, settings.requests_per_minute,
            settings.tokens_per_minute,
        )  # fmt: skip
        self.breaker = Breaker(
            failures=settings.breaker_failures, cooldown=settings.breaker_cooldown,
            probes=settings.breaker_probes, patience=2 * settings.timeout_seconds + 30.0,
            clock=self.clock,
        )  # fmt: skip
        self.form = Form(settings.schema, settings.token_limit, images=settings.images)
        self.seen = Seen()

    @cached_property
    def http(self) -> Http:
        from .openai_http import Http

        s = self.settings
        return Http(
            address(s.endpoint), key_of(s), timeout=s.timeout_seconds, connections=s.concurrency
        )

    def generate(
        self, requests: Sequence[GenRequest], *, halt: Halt | None = None
    ) -> Iterator[GenResult]:
        """Yield results as they come. ``EngineStopped`` at the end where rows were not begun."""
        from .openai_calls import Calls

        if not self.settings.endpoint:
            raise EngineStopped(
                "llm.endpoint is not set; set it, or send the requests as a batch (llmers batch "
                "export, then llmers batch import)"
            )
        stop = Stop()
        calls = Calls(self, stop)
        yield from stream(
            calls.generate, requests, workers=self.settings.concurrency, stop=stop, halt=halt
        )
        if stop.reason not in ("", "closed"):
            raise EngineStopped(stop.reason)

    def choose(self, requests: Sequence[ChoiceRequest]) -> Iterator[ChoiceResult]:
        """Yield log-probabilities of choices that are one token each, e.g. letters or yes and no.

        They are read from the likeliest first tokens of an answer (at most 20). A choice that is
        not among them is an error of its row: nothing is known of it. ``EngineError`` where the
        endpoint tells no log-probabilities.
        """
        from .openai_probe import choose

        yield from choose(self, requests)

    def embed(self, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1) -> np.ndarray:
        """Return float32[len(texts), E] from /embeddings: how it pools is the model's own affair.

        ``EngineError`` for another layer than the last, and where the endpoint fails.
        """
        from .openai_probe import embed

        if layer != -1:
            raise EngineError(
                f'an endpoint shows no hidden layers (layer = {layer}); use llm.engine = "hf"'
            )
        return embed(self, texts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of this endpoint."""
        return self.seen.notes()

    def close(self) -> None:
        """Close the connections."""
        if (http := self.__dict__.pop("http", None)) is not None:
            http.close()


def address(endpoint: str) -> str:
    """Return the base address without a trailing path; ``EngineError`` where it cannot be one."""
    # The value is not shown: what stands there by mistake may be a key.
    mend = "write the base address, such as https://api.example.com/v1"
    parts = urlsplit(endpoint)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise EngineError(f"llm.endpoint holds a user, a query or a fragment; {mend}, and give the "
                          "key in the variable that llm.api_key_env names")  # fmt: skip
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EngineError(f"llm.endpoint is not an address of the web; {mend}")
    return re.sub(r"/(chat/completions|completions|embeddings)?/*$", "", endpoint)


def key_of(settings: OpenAISettings) -> str:
    """Return the key from its variable; "" for endpoints without one. Errors do not show it."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", settings.api_key_env):
        raise EngineError(
            "llm.api_key_env must be the name of an environment variable in capitals, such as "
            "OPENAI_API_KEY, and never the key itself"
        )
    key = secret(settings.api_key_env)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EngineError(
            f"the variable {settings.api_key_env} does not hold a key: it has blanks, line breaks "
            "or characters that no key has"
        )
    return key


def _checked(settings: OpenAISettings) -> OpenAISettings:
    if not settings.model:
        raise EngineError('llm.engine = "openai" needs llm.model: the name that the endpoint knows')
    for name, allowed in (("schema", SCHEMAS), ("token_limit", LIMITS)):
        if (value := getattr(settings, name)) not in allowed:
            toml = {"schema": "schema_form"}.get(name, name)
            raise EngineError(f"llm.{toml} = {value!r}; expected one of {', '.join(allowed)}")
    for name in ("requests_per_minute", "tokens_per_minute"):
        if (value := getattr(settings, name)) < 0:
            raise EngineError(f"llm.{name} = {value}; 0 means no bound")
    for name in ("concurrency", "attempts"):
        if (value := getattr(settings, name)) < 1:
            raise EngineError(f"llm.{name} = {value}; at least 1 is needed")
    if settings.timeout_seconds <= 0:
        raise EngineError(f"llm.timeout_seconds = {settings.timeout_seconds}; it must be positive")
    return settings


def settings_of(settings: Any) -> OpenAISettings:
    """Return the engine's part of ``config.Settings``."""
    return OpenAISettings(
        model=settings.model, revision=settings.model_revision, endpoint=settings.endpoint,
        api_key_env=settings.api_key_env, concurrency=settings.concurrency,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute, timeout_seconds=settings.timeout_seconds,
        attempts=settings.attempts, throttle_seconds=settings.throttle_seconds,
        schema=settings.schema_form, token_limit=settings.token_limit,
        images=settings.llm_images, image_tokens=settings.image_tokens,
    )  # fmt: skip
