"""Which weights and which tokenizer: hashes of the files, without loading a model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from ..data.file_hash import file_hash
from .protocol import EngineError

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt",
    "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def model_folder(model: str, revision: str = "") -> Path:
    """Return the local folder of ``model``: a folder as it is, a hub id from cache or download."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise EngineError(f"llm.model = {model!r}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision or None, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise EngineError(
            f"llm.model = {model!r}: neither a local folder nor available from the hub "
            f"({type(error).__name__}: {error}); download it once, or give a local folder"
        ) from error


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of the weights: that of the one file, or of the list of its shards."""
    files = _weight_files(folder)
    if not files:
        raise EngineError(
            f"{folder}: no .safetensors weights (other formats may hold code and are not read); "
            "convert the model with save_pretrained"
        )
    return file_sha256(files[0]) if len(files) == 1 else files_sha256(files)


def tokenizer_sha256(folder: Path) -> str:
    """Return the hash of the tokenizer's files, its chat template included."""
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise EngineError(f"{folder}: no tokenizer files; expected tokenizer.json or the like")
    return files_sha256(files)


def image_processor_sha256(folder: Path) -> str:
    """Return the hash of how images become input; "" for a model that reads text alone.

    A model reads images where its config describes a part for them and its folder a processor.
    """
    config = folder / "config.json"
    files = [folder / name for name in IMAGE_FILES if (folder / name).is_file()]
    if not files or not config.is_file():
        return ""
    described = json.loads(config.read_text(encoding="utf-8")).get("vision_config")
    return files_sha256(files) if isinstance(described, dict) else ""


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():  # a repository may hold a second copy of the weights in another layout
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(shards))]
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    return sorted(folder.glob("*.safetensors"))


def files_sha256(files: Iterable[Path]) -> str:
    lines = [f"{path.name} {file_sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    # The hub's cache names large files by their sha256, which saves reading gigabytes.
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    return file_hash(path)
