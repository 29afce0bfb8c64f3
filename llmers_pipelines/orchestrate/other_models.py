"""Another language model or encoder for an experiment: settings, and whether they can be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ..config import ConfigError, Settings, check_llm
from ..encode.encoder import check_encoder
from ..plan import Embed, Generate, Node, Pin, Teach

LLM, ENCODER = "llm", "encoder"
# entry of ``llm`` -> field of ``Settings``; the first part decides answers, the second does not
DECIDES = {
    "engine": "engine", "model": "model", "revision": "model_revision", "adapter": "adapter",
    "quantization": "quantization", "max_tokens": "max_tokens", "temperature": "temperature",
    "seed": "llm_seed",
}  # fmt: skip
REACHES = {name: name for name in (
    "endpoint", "api_key_env", "concurrency", "schema_form", "token_limit", "dtype",
    "batch_tokens")}  # fmt: skip
BUDGETS = ("budget_calls", "budget_tokens", "budget_money")
_OF_ONE_MODEL = ("model", "model_revision", "adapter", "quantization")
_NO_MODEL = ("auto", "template", "recorded")


def reads(node: Node) -> list[Node]:
    """Return ``node`` and all that it is made of; what stands behind a pin is not made for it."""
    found: dict[Node, None] = {}
    stack = [node]
    while stack:
        if (here := stack.pop()) not in found:
            found[here] = None
            stack += () if isinstance(here, Pin) else here.inputs
    return list(found)


def asks_configured(node: Node) -> bool:
    """Say whether ``node`` asks the configured language model."""
    if isinstance(node, Generate):
        return not node.llm
    return isinstance(node, Teach) and node.how.asks_model


def encodes_configured(node: Node) -> bool:
    return isinstance(node, Embed) and not node.encoder


def other_settings(settings: Settings, wanted: Mapping[str, Any]) -> Settings:
    """Return ``settings`` with the language model and the encoder of an experiment.

    Another model has no revision, adapter and quantization but those that are given with it.
    Raises ``ValueError`` for what does not fit.
    """
    llm = {k: v for k, v in (wanted.get(LLM) or {}).items() if v is not None}
    known = DECIDES | REACHES
    if unknown := sorted(set(llm) - set(known) - set(BUDGETS)):
        raise ValueError(f"llm: no entry {unknown[0]!r}; it has {', '.join((*known, *BUDGETS))}")
    changes: dict[str, Any] = {known[name]: value for name, value in llm.items() if name in known}
    engine = changes.get("engine", settings.engine)
    if "model" in changes and engine in _NO_MODEL:
        raise ValueError(
            f"llm.model = {changes['model']!r}: the engine {engine!r} has no model; give engine as "
            "well: hf, vllm or openai"
        )
    other_engine = engine != settings.engine and {engine, settings.engine} != {"hf", "vllm"}
    if other_engine or "model" in changes:
        changes = dict.fromkeys(_OF_ONE_MODEL, "") | changes
    if name := wanted.get(ENCODER):
        try:
            check_encoder(name)
        except ValueError as error:
            raise ValueError(f"encoder: {error}") from error
        changes["encoder"] = name
    other = dataclasses.replace(settings, **changes)
    try:
        check_llm(other)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return other


def limits_of(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds that an experiment gives for its answers."""
    llm = wanted.get(LLM) or {}
    return {name: llm[name] for name in BUDGETS if llm.get(name)}


def identity_of(settings: Settings) -> str:
    """Return what of the language model decides answers, in words."""
    sampling = f"max_tokens {settings.max_tokens}, temperature {settings.temperature:g}"
    return f"{settings.engine_identity} ({sampling}, seed {settings.llm_seed})"


def check_usable(changed: Iterable[Node], settings: Settings, wanted: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a step of ``changed`` would find that its model is not there.

    Files are read, endpoints are not asked, weights are not loaded.
    """
    from ..encode.encoder import make_encoder
    from ..llm.protocol import EngineError

    nodes = list(changed)
    asking = [n for n in nodes if asks_configured(n)]
    try:
        if asking:
            _check_llm(asking, settings, wanted)
        for model in {n.model for n in nodes if isinstance(n, Embed)}:
            make_encoder(model)
    except (EngineError, OSError, ImportError) as error:
        raise ValueError(str(error)) from error


def _check_llm(asking: list[Node], settings: Settings, wanted: Mapping[str, Any]) -> None:
    from ..llm.choosing import can_choose
    from ..llm.factory import make_engine
    from ..llm.meter import open_meter
    from ..llm.vllm import INSTALL, installed

    if settings.engine in _NO_MODEL:
        return
    if settings.engine == "vllm" and not installed():
        raise ValueError(INSTALL)
    engine = make_engine(settings)
    try:
        for node in asking:
            if isinstance(node, Teach) and not can_choose(engine.info):
                raise ValueError(
                    f"{node.name} ranks by log-probabilities, which {engine.info.label} has not; "
                    "take hf or vllm"
                )
        if settings.engine == "openai":
            _check_endpoint(settings, (wanted.get(LLM) or {}).get("api_key_env"))
    finally:
        engine.close()
    open_meter(settings, "-", limits_of(wanted)).ledger.close()  # a bound of money needs a price


def _check_endpoint(settings: Settings, variable: str | None) -> None:
    from ..llm.openai import address, key_of, settings_of

    if not settings.endpoint:
        raise ValueError("llm.endpoint is not set; give endpoint, the base address of the model")
    address(settings.endpoint)
    if not key_of(settings_of(settings)) and variable:
        raise ValueError(
            f"the variable {variable}, which api_key_env names, is not set where this runs; export "
            "it there, or leave api_key_env out for an endpoint without a key"
        )
