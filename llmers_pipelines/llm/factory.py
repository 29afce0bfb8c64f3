"""From settings to an engine: heavy imports happen when an engine is wanted, and not before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..data.recorded import RecordedFile, Recording, read_recording
from .meter import Meter
from .protocol import Engine, EngineError, EngineInfo

ENGINES = ("template", "recorded", "hf", "vllm", "openai")


def make_engine(
    settings: Any,
    *,
    recorded: RecordedFile | Recording | None = None,
    scope: str = "default",
    meter: Meter | None = None,
) -> Engine:
    """Return the engine that ``settings`` (``config.Settings``) names.

    ``recorded`` are the data set's recorded answers to the task at hand; ``auto`` uses them where
    they exist and the template elsewhere. ``scope`` (data set and kind of row) keeps the row
    versions of different imports of one file apart. ``meter``: the bounds of the run, for engines
    that book their calls beforehand.
    """
    kind = resolve_kind(settings, recorded)
    match kind:
        case "template":
            from .template import TemplateEngine

            return TemplateEngine()
        case "recorded":
            from .imports import ImportManifest
            from .recorded import RecordedEngine

            recording = _recording(recorded)
            place = re.sub(r"[^A-Za-z0-9_.-]+", "_", scope)
            folder = Path(settings.data) / "imports" / place / recording.sha256[:16]
            return RecordedEngine(recording, ImportManifest(folder))
        case "openai":
            from .openai import OpenAIEngine, settings_of

            return OpenAIEngine(settings_of(settings), meter)
        case "vllm":
            from .vllm import VllmEngine

            return VllmEngine(_vllm_settings(settings))
        case _:
            from .hf import HfEngine

            return HfEngine(_hf_settings(settings))


def engine_info(
    settings: Any, *, recorded: RecordedFile | Recording | None = None
) -> EngineInfo:
    """Return what ``make_engine`` would say of itself, without loading a model."""
    match resolve_kind(settings, recorded):
        case "hf":
            from .hf import describe

            return describe(_hf_settings(settings))
        case "openai":
            from . import openai

            return openai.describe(openai.settings_of(settings))
        case "vllm":
            from . import vllm

            return vllm.describe(_vllm_settings(settings))
    return make_engine(settings, recorded=recorded).info


def resolve_kind(settings: Any, recorded: RecordedFile | Recording | None = None) -> str:
    """Return the kind of engine in use; "auto" is recorded where answers are, else template."""
    kind = settings.engine
    if kind == "auto":
        return "recorded" if recorded is not None else "template"
    if kind not in ENGINES:
        raise EngineError(f"llm.engine = {kind!r}; expected auto, {', '.join(ENGINES)}")
    if kind == "recorded" and recorded is None:
        raise EngineError(
            'llm.engine = "recorded", but the data set declares no recorded answers to this task; '
            'declare them under [recorded.<task>], or choose "auto"'
        )
    return kind


def _recording(recorded: RecordedFile | Recording | None) -> Recording:
    return recorded if isinstance(recorded, Recording) else read_recording(recorded)


def _hf_settings(settings: Any) -> Any:
    from .hf import HfSettings

    return HfSettings(
        model=settings.model,
        revision=settings.model_revision,
        adapter=settings.adapter,
        device=settings.device,
        dtype=settings.dtype,
        batch_tokens=settings.batch_tokens,
    )


def _vllm_settings(settings: Any) -> Any:
    from .vllm import VllmSettings

    return VllmSettings(
        model=settings.model,
        revision=settings.model_revision,
        adapter=settings.adapter,
        dtype=settings.dtype,
        batch_tokens=settings.batch_tokens,
        quantization=settings.quantization,
        tensor_parallel=settings.vllm_tensor_parallel,
        gpu_memory=settings.vllm_gpu_memory_utilization,
        context=settings.vllm_max_model_len,
        max_batch=settings.vllm_max_num_seqs,
        kv_cache_gib=settings.vllm_kv_cache_gib,
        eager=settings.vllm_enforce_eager,
    )
