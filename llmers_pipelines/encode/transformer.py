"""A transformers model as text encoder: its identity from its files, its weights when needed.

Nothing here imports torch. A run whose texts are all in the vector store never loads the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.file_hash import adapter_sha256, file_hash
from .encoder import EncoderInfo, Progress

POOLINGS = ("mean", "cls", "last")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "merges.txt")
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
CPU_TOKENS, CUDA_TOKENS = 384, 65_536  # padded tokens of a batch; more leaves the CPU cache


class TransformerEncoder:
    """Vectors float32[n, dim] of texts; see ``open`` for how one is made."""

    def __init__(
        self,
        folder: Path,
        info: EncoderInfo,
        *,
        device: str = "cpu",
        token_budget: int | None = None,
        adapter: Path | None = None,
    ) -> None:
        self.folder = folder
        self.adapter = adapter
        self.info = info
        self.device = device
        self.token_budget = token_budget or (CPU_TOKENS if device == "cpu" else CUDA_TOKENS)
        self.cut = 0  # texts seen so far that reached max_length
        self._net: Any = None

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        name: str = "",
        device: str = "cpu",
        token_budget: int | None = None,
        expected_sha256: str | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        layer: int = -1,
        prefix: str = "",
        dtype: str | None = None,
        revision: str | None = None,
        adapter: Path | None = None,
    ) -> TransformerEncoder:
        """Return the encoder in a folder or on the hub.

        What is not given comes from the folder's own sentence-encoder files, else mean pooling,
        L2-normalized, 256 tokens, the last layer; float32 on CPU, bfloat16 on CUDA.
        ``layer`` counts like ``hidden_states`` (0 = embeddings, -1 = last). ``adapter`` is the
        folder of a tuned adapter of that model.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = _download(str(source), revision)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder}: no config.json; expected a transformers model")
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise FileNotFoundError(
                f"{folder}: no *.safetensors; other weight formats can run code when they are "
                "loaded. Save the model with `save_pretrained` first"
            )
        found = _sha256(weights)
        if expected_sha256 and found != expected_sha256:
            raise ValueError(
                f"{weights[0]}: sha256 {found}, expected {expected_sha256}: these are not the "
                "published weights; reinstall the package or configure another encoder"
            )
        declared = declared_settings(folder, strict=pooling is None or normalize is None)
        pooling = pooling or declared.get("pooling", "mean")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling {pooling!r}: expected one of {', '.join(POOLINGS)}")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        info = EncoderInfo(
            kind="transformer",
            name=name or folder.name,
            weights_sha256=found,
            tokenizer_sha256=_sha256([folder / f for f in TOKENIZER_FILES]),
            dim=_width(config, folder),
            pooling=pooling,
            dtype=dtype or ("float32" if device == "cpu" else "bfloat16"),
            max_length=max_length or declared.get("max_length", 256),
            normalize=declared.get("normalize", True) if normalize is None else normalize,
            layer=layer,
            prefix=prefix,
            adapter=adapter_sha256(adapter) if adapter is not None else "",
        )
        return cls(folder, info, device=device, token_budget=token_budget, adapter=adapter)

    def prepare(self, texts: Sequence[str]) -> None:
        """Nothing to fit."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        if not len(texts):
            return np.zeros((0, self.info.dim), np.float32)
        if self._net is None:
            from .transformer_net import TransformerNet

            self._net = TransformerNet(self.folder, self.info, self.device, self.adapter)
        vectors, cut = self._net.encode(texts, self.token_budget, progress)
        self.cut += cut
        return vectors


def declared_settings(folder: Path, *, strict: bool = True) -> dict[str, Any]:
    """Return pooling, normalize and max_length as a sentence-encoder folder declares them.

    Raises ``ValueError`` where it declares a step that is not applied here (``strict``).
    """
    modules = folder / "modules.json"
    if not modules.is_file():
        return {}
    out: dict[str, Any] = {"normalize": False}
    for step in json.loads(modules.read_text(encoding="utf-8")):
        kind = step["type"].rsplit(".", 1)[-1]
        config = folder / step["path"] / "config.json"
        if kind == "Normalize":
            out["normalize"] = True
        elif kind == "Pooling" and config.is_file():
            out["pooling"] = _declared_pooling(json.loads(config.read_text(encoding="utf-8")))
        elif kind not in ("Transformer", "Pooling") and strict:
            raise ValueError(
                f"{modules}: the step {kind!r} is not supported; name pooling and normalize "
                "(`?pooling=mean&normalize=1`) to use the transformer without it"
            )
    limits = folder / "sentence_bert_config.json"
    if limits.is_file():
        length = json.loads(limits.read_text(encoding="utf-8")).get("max_seq_length")
        if length:
            out["max_length"] = int(length)
    return out


def _declared_pooling(config: dict[str, Any]) -> str:
    modes = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
    chosen = [name for flag, name in modes.items() if config.get(flag)]
    mode = config.get("pooling_mode")
    if mode:
        chosen = [{"lasttoken": "last"}.get(mode, mode)]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise ValueError(f"pooling {config} is not one of {', '.join(POOLINGS)}; name one")
    return chosen[0]


def _width(config: dict[str, Any], folder: Path) -> int:
    for part in (config, config.get("text_config") or {}):
        for name in ("hidden_size", "d_model", "n_embd", "dim"):
            if isinstance(part.get(name), int):
                return part[name]
    raise ValueError(f"{folder / 'config.json'}: no hidden_size, d_model, n_embd or dim")


def _sha256(files: Sequence[Path]) -> str:
    """Return the sha256 of one file, or of the hashes of several (those that exist)."""
    hashes = []
    for path in files:
        if path.is_file():
            hashes.append(file_hash(path))
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if repo.startswith((".", "/", "~")) or repo.count("/") > 1:
        raise FileNotFoundError(f"encoder {repo!r}: there is no such folder")
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises many kinds
        raise FileNotFoundError(
            f"encoder {repo!r} is neither a folder nor a model that could be fetched ({error}); "
            "give a local folder, 'minilm' (packaged) or 'tfidf' (no language model)"
        ) from error
