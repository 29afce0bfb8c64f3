"""The entries ``llm`` and ``encoder`` of an experiment, as Dagster's form shows them."""

from __future__ import annotations

from functools import cache
from typing import Any

import dagster as dg

from ..config import ENGINES, Settings
from ..encode.encoder import check_encoder
from ..plan import Node
from .other_models import DECIDES, ENCODER, LLM, asks_configured, encodes_configured, reads
from .ranged import Named, ranged

TRIED = ("generate", "embed", "derive", "teach", "train", "distill")  # verbs
_KINDS: dict[str, tuple[Any, str]] = {
    "engine": (dg.Enum("Engine", [dg.EnumValue(e) for e in ENGINES]), "Who answers."),
    "model": (str, "Local folder or hub id; for openai the name that the endpoint knows."),
    "revision": (str, "Of the model; empty for another model unless it is given."),
    "adapter": (str, "Folder of a LoRA adapter of the model."),
    "quantization": (str, "Made by vllm when it loads the weights."),
    "max_tokens": (ranged(int, 1, 1_000_000), "Most tokens of one answer."),
    "temperature": (ranged(float, 0, 10), "0 takes the likeliest token."),
    "seed": (ranged(int, 0, 2**31 - 1), "Of the sampling."),
    "endpoint": (str, "Base address of an OpenAI-compatible interface; its key is in the "
                 "variable that api_key_env names, never here."),
    "api_key_env": (str, "Name of the variable that holds the key, where the step runs."),
    "concurrency": (ranged(int, 1, 1024), "Requests to the endpoint at once."),
    "schema_form": (dg.Enum("SchemaForm", [dg.EnumValue(v) for v in ("full", "lean", "none")]),
                    "How the endpoint is told the form of an answer."),
    "token_limit": (dg.Enum("TokenLimit", [dg.EnumValue(v) for v in
                                           ("max_tokens", "max_completion_tokens")]),
                    "What the endpoint calls the limit."),
    "dtype": (dg.Enum("Numbers", [dg.EnumValue(v) for v in
                                  ("auto", "float32", "float16", "bfloat16")]),
              "Numbers that a local model computes in."),
    "batch_tokens": (ranged(int, 1, 10_000_000), "Padded tokens of one batch of a local model."),
    "budget_calls": (ranged(int, 1, 10**12), "Most calls of this run, beside the configured."),
    "budget_tokens": (ranged(int, 1, 10**15), "Most tokens of this run, read and written."),
    "budget_money": (ranged(float, 0, 10**9), "Most money of this run; needs the model's price."),
}  # fmt: skip


def offered(node: Node, settings: Settings) -> tuple[tuple[str, Any], ...]:
    """Return which models an experiment on ``node`` may change, with what they are now."""
    below = reads(node) if node.verb in TRIED else []
    now: list[tuple[str, Any]] = []
    if any(asks_configured(n) for n in below):
        now.append((LLM, tuple(getattr(settings, field) for field in DECIDES.values())))
    if any(encodes_configured(n) for n in below):
        now.append((ENCODER, settings.resolved_encoder))
    return tuple(now)


def model_fields(models: tuple[tuple[str, Any], ...]) -> dict[str, dg.Field]:
    """Return the fields of ``llm`` and ``encoder``, those that ``offered`` told of."""
    make = {LLM: _llm, ENCODER: _encoder}
    return {name: make[name](now) for name, now in models}


@cache
def _llm(now: tuple[Any, ...]) -> dg.Field:
    has = dict(zip(DECIDES, now, strict=True))
    fields = {
        name: dg.Field(kind, is_required=False, description=(
            f"{about} The asset has {has[name]!r}." if name in has else about))
        for name, (kind, about) in _KINDS.items()
    }  # fmt: skip
    return dg.Field(
        dg.Shape(fields), is_required=False,
        description="Another language model for every answer below. What depends on the answers "
        "is made in a place apart; its answers are stored, and are there when llmers.toml names "
        "that model.",
    )  # fmt: skip


@cache
def _encoder(now: str) -> dg.Field:
    return dg.Field(
        Named("Encoder", check_encoder), is_required=False,
        description=f"Another encoder for every vector below, with its settings "
        f"(minilm, tfidf?dim=64, a folder, a hub id). The asset has {now!r}.",
    )  # fmt: skip
