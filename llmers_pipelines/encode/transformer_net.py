"""The transformer itself: tokenize, batch by length, forward, pool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from ..data.file_hash import TOKEN
from .encoder import EncoderInfo, Progress
from .lower_layers_net import LowerLayers

WHOLE = "whole"  # marks, in adapter_config.json, weights that replace those of the model


class TransformerNet:
    """A frozen model in evaluation mode with its tokenizer; read from a folder, never a network."""

    def __init__(
        self, folder: Path, info: EncoderInfo, device: str, adapter: Path | None = None
    ) -> None:
        self.info = info
        self.device = torch.device(device)
        logging.disable_progress_bar()  # loading takes a blink; runs report their own progress
        self.tokenizer, model = load_encoder(folder, info.dtype)
        self.token: Tensor | None = None
        if adapter is not None:
            model = with_adapter(model, adapter)
            token = text_token(adapter)
            self.token = token.to(self.device) if token is not None else None
        # Layers above the one that is read are dropped before the weights move to the device.
        self.lower = None if info.layer == -1 else LowerLayers(model, info.layer)
        self.model = model.to(self.device).eval().requires_grad_(False)
        limits = [info.max_length, self.tokenizer.model_max_length]
        self.max_length = min(int(n) for n in limits if n) - (self.token is not None)

    def encode(
        self, texts: Sequence[str], token_budget: int, progress: Progress | None = None
    ) -> tuple[np.ndarray, int]:
        """Return float32[n, E] in the order of ``texts`` and how many reached the length limit.

        Texts are batched with others of their length, the longest first, so that little is padded
        and a batch that does not fit into memory fails at once. A special token that a text spells
        (``[SEP]``) is read as its letters: catalog text is data.
        """
        prefixed = [self.info.prefix + t for t in texts]
        tokens = token_ids(self.tokenizer, prefixed, self.max_length)
        lengths = np.array([len(t) for t in tokens])
        out = np.zeros((len(texts), self.info.dim), np.float32)
        for rows in batches(lengths, token_budget):
            vectors = self._forward([tokens[r] for r in rows])
            if vectors.shape[1] != self.info.dim:
                raise ValueError(f"config.json says width {self.info.dim}, got {vectors.shape[1]}")
            out[rows] = vectors.cpu().numpy()
            if progress is not None:
                progress(len(rows))
        return out, int((lengths >= self.max_length).sum())

    def _forward(self, tokens: list[list[int]]) -> Tensor:
        ids, mask = padded(tokens, self.tokenizer.pad_token_id or 0, self.device)
        with torch.inference_mode():
            if self.token is not None:
                vectors = item_vectors(self.model, ids, mask, self.token, self.info.pooling)
                return F.normalize(vectors, dim=1) if self.info.normalize else vectors
            if self.lower is None:
                hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            else:
                hidden = self.lower(ids, mask)
            vectors = pool(hidden.float(), mask, self.info.pooling)
            return F.normalize(vectors, dim=1) if self.info.normalize else vectors


def load_encoder(folder: Path, dtype: str) -> tuple[Any, Any]:
    """Return (tokenizer, model) of a folder, on the CPU; of an encoder-decoder its encoder."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=getattr(torch, dtype),
    )
    return tokenizer, model.get_encoder() if model.config.is_encoder_decoder else model


def with_adapter(model: Any, folder: Path) -> Any:
    """Return ``model`` with the adapter of ``folder`` merged into its weights.

    A folder of a model that was tuned as a whole replaces them.
    """
    from peft import PeftModel

    if json.loads((folder / "adapter_config.json").read_text()).get(WHOLE):
        model.load_state_dict(load_file(folder / "adapter_model.safetensors"))
        return model

    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def text_token(folder: Path) -> Tensor | None:
    """Return the vector (E,) that a tuned model reads behind each text, None without one."""
    return load_file(folder / TOKEN)["token"] if (folder / TOKEN).is_file() else None


def item_vectors(model: Any, ids: Tensor, mask: Tensor, token: Tensor | None, how: str) -> Tensor:
    """Return float32 (B, E): the last state of ``token`` behind each text, else the pooled states.

    ``ids`` and ``mask`` are int64 (B, L), padded on the right.
    """
    if token is None:
        out = model(input_ids=ids, attention_mask=mask)
        return pool(out.last_hidden_state.float(), mask, how)
    words = model.get_input_embeddings()(ids)
    words = torch.cat([words, words.new_zeros(len(ids), 1, words.shape[2])], 1)
    at = torch.arange(words.shape[1], device=ids.device)
    lengths = mask.sum(1, keepdim=True)
    words = torch.where((at == lengths)[..., None], token.to(words.dtype), words)
    whole = (at <= lengths).long()
    out = model(inputs_embeds=words, attention_mask=whole)
    return pool(out.last_hidden_state.float(), whole, "last")


def token_ids(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Return the token ids of each text; special tokens that a text spells are letters."""
    return tokenizer(
        list(texts), truncation=True, max_length=limit, padding=False, split_special_tokens=True,
        return_attention_mask=False, return_token_type_ids=False,
    )["input_ids"]  # fmt: skip


def padded(tokens: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Return (ids, mask), int64 (B, L), padded on the right."""
    width = max(1, max(map(len, tokens)))
    ids = torch.full((len(tokens), width), pad)
    mask = torch.zeros((len(tokens), width), dtype=torch.long)
    for row, t in enumerate(tokens):
        ids[row, : len(t)] = torch.tensor(t, dtype=torch.long)
        mask[row, : len(t)] = 1
    return ids.to(device), mask.to(device)


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """Return float (B, E) from token states (B, L, E); padding (mask 0) on either side is ignored.

    ``mean`` over real tokens, ``cls`` = first real token, ``last`` = last real token.
    """
    if how == "mean":
        weight = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1.0)
    place = torch.arange(mask.shape[1], device=mask.device)
    if how == "cls":
        at = torch.where(mask > 0, place, mask.shape[1] - 1).amin(1)
    else:
        at = (mask * place).amax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), at]


def batches(lengths: np.ndarray, token_budget: int) -> Iterator[np.ndarray]:
    """Yield row numbers, longest first: rows x longest <= ``token_budget``, at least one row."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
