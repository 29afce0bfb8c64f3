"""An adapter around a frozen model, and the adapter as files: safetensors and JSON."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..data.file_hash import TOKEN
from ..encode.transformer_net import WHOLE
from .tuner import Lora, TuneError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def attach(model: Any, lora: Lora, *, seed: int, causal: bool) -> Any:
    """Return ``model`` with a fresh adapter: its own weights frozen, those of the adapter drawn.

    Equal seeds draw equal adapters. Raises ``TuneError`` where no layer has a name of ``targets``.
    """
    try:
        import peft
    except ImportError as error:
        raise TuneError("tuning needs the package peft: install llmers_pipelines[llm]") from error
    targets: Any = list(lora.targets) or None
    if lora.targets == ("all",):
        targets = "all-linear"
    alpha: Any = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets,
        bias="none", task_type="CAUSAL_LM" if causal else "FEATURE_EXTRACTION",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, config)
        except ValueError as error:
            names = sorted({n.rpartition(".")[2] for n, m in model.named_modules()
                            if isinstance(m, torch.nn.Linear)})  # fmt: skip
            raise TuneError(
                f"lora.targets = {lora.targets}: {error}; linear layers of this model are called "
                f"{', '.join(names)}"
            ) from error


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter of ``model`` as PEFT reads it; equal weights give equal bytes."""
    import peft

    folder.mkdir(parents=True, exist_ok=True)
    weights = peft.get_peft_model_state_dict(model)
    save_file({n: t.detach().cpu().float().contiguous() for n, t in sorted(weights.items())},
              folder / WEIGHTS, metadata={"format": "pt"})  # fmt: skip
    config = _plain(model.peft_config["default"].to_dict())
    # Where the base model lay is no part of the adapter; its identity stands in the manifest.
    config |= {"base_model_name_or_path": None, "inference_mode": True}
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def save_whole(model: Any, folder: Path) -> None:
    """Write all weights of ``model``, in the place of an adapter; equal weights, equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: t.detach().cpu().float().contiguous() for n, t in model.state_dict().items()}
    save_file(dict(sorted(weights.items())), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps({WHOLE: True}, indent=1) + "\n")


def save_token(token: torch.Tensor, folder: Path) -> None:
    """Write the vector that stands behind each text, beside an adapter."""
    save_file({"token": token.detach().cpu().float().contiguous()}, folder / TOKEN)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def quiet() -> None:
    """Keep libraries from writing bars and hints of their own between the lines of a run."""
    from transformers.utils import logging as own

    own.disable_progress_bar()
    own.set_verbosity_error()  # an encoder without the head that it was trained with is no fault
    logging.getLogger("peft").setLevel(logging.ERROR)
