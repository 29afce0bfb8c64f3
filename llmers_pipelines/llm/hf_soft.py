"""A causal model that reads vectors among its words. Shapes: B rows, L vectors, W their width,
E width of the model, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class SoftPrompt(nn.Module):
    """``before`` as words, then vectors mapped by ``up``, then ``after`` as words.

    ``encoder`` is the causal model, with an adapter or without; ``down`` (no bias) maps its states
    back to the width of the vectors. A row's states are those of its last token, so what follows
    the vectors ends the prompt. Mapped vectors start with the spread of the model's own token
    embeddings.
    """

    def __init__(
        self, encoder: Any, tokenizer: Any, vectors: Tensor, before: str, after: str
    ) -> None:
        super().__init__()
        self.encoder = encoder
        tokens = encoder.get_input_embeddings().weight
        width = tokens.shape[1]
        self.up = nn.Linear(vectors.shape[1], width)
        self.down = nn.Linear(width, vectors.shape[1], bias=False)
        with torch.no_grad():
            spread = self.up(vectors.float()).std()
            if spread > 0:
                self.up.weight.mul_(tokens.float().std() / spread)
            self.up.bias.zero_()
        for name, text in (("before", before), ("after", after)):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            self.register_buffer(name, torch.tensor(ids, dtype=torch.long), persistent=False)

    def forward(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the states (B, E) of the last token after the embeddings and after each layer.

        ``rows`` are the vectors (L, W) of each row, of any length from 1. n layers give n + 1.
        """
        words = self.encoder.get_input_embeddings()
        start, end = words(self.before), words(self.after)
        whole = [torch.cat([start, self.up(r).to(start.dtype), end]) for r in rows]
        lengths = torch.tensor([len(w) for w in whole], device=start.device)
        # Padding on the right: a causal model never sees it before a real token.
        embedded = nn.utils.rnn.pad_sequence(whole, batch_first=True)
        at = torch.arange(embedded.shape[1], device=start.device)
        out = self.encoder(
            inputs_embeds=embedded, attention_mask=(at < lengths[:, None]).long(),
            output_hidden_states=True, use_cache=False, logits_to_keep=1,
        )  # fmt: skip
        row = torch.arange(len(whole), device=start.device)
        return tuple(h[row, lengths - 1].float() for h in out.hidden_states)

    @property
    def device(self) -> torch.device:
        return self.up.weight.device

    def heads(self) -> dict[str, Tensor]:
        """Return what is trained beside the adapter."""
        return {f"{n}.{k}": v for n in ("up", "down")
                for k, v in getattr(self, n).state_dict().items()}  # fmt: skip


def load_soft_prompt(
    folder: Path, adapter: Path, heads: Path, vectors: Tensor, before: str, after: str, *,
    dtype: str = "float32", device: str = "cpu",
) -> SoftPrompt:  # fmt: skip
    """Return the tuned model of a folder, an adapter and the file of its heads, in evaluation."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from .hf import _with_adapter
    from .hf_tokens import load_tokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    model = _with_adapter(model, str(adapter))
    with torch.random.fork_rng():
        soft = SoftPrompt(model, load_tokenizer(folder), vectors, before, after)
    missing, unknown = soft.load_state_dict(load_file(heads), strict=False)
    absent = [m for m in missing if not m.startswith("encoder.")]
    if absent or unknown:
        raise ValueError(f"{heads}: missing {absent}, unexpected {unknown}; tune the model again")
    return soft.to(device).eval().requires_grad_(False)
