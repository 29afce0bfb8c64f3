"""Hashes of files and of folders whose content is an identity, read once per version of a file."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path


def file_hash(path: Path) -> str:
    """sha256 of the content of ``path``.

    A process that asks every few seconds pays a ``stat`` while size and time stay.
    """
    real = path.resolve()
    found = real.stat()
    return _content(str(real), found.st_size, found.st_mtime_ns, found.st_ino)


# What a PEFT configuration says beside how the adapter computes.
_ASIDE = ("base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping",
          "peft_version")  # fmt: skip


TOKEN = "text_token.safetensors"


def adapter_sha256(folder: Path) -> str:
    """Return the identity of an adapter: its weights, and how they are applied (alpha, rank, ...).

    A learned vector that stands behind each text (``TOKEN``) counts where there is one.

    Equal weights under another alpha are another model. Raises ``FileNotFoundError`` where the
    folder holds no adapter in safetensors (other formats may run code when they are read).
    """
    folder = folder.expanduser()
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    for file in (weights, config):
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder}: no {file.name}; expected an adapter as PEFT's save_pretrained writes it"
            )
    told = json.loads(config.read_text(encoding="utf-8"))
    applied = {k: v for k, v in told.items() if k not in _ASIDE and v is not None}
    token = folder / TOKEN
    more = [file_hash(token)] if token.is_file() else []
    text = json.dumps([file_hash(weights), applied, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1024)
def _content(path: str, size: int, moved: int, place: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
