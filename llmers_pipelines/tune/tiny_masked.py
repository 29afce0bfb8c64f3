"""A masked language model of some hundred thousand weights, trained for seconds on given texts.

As ``tiny_model``: real mechanics (Hugging Face form, CLS, SEP and MASK tokens), no knowledge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .tiny_model import fit_stretches, learned_pieces, write_whole

SPECIAL = ["<pad>", "<cls>", "<sep>", "<mask>"]
SHARE = 0.15  # of the tokens, masked in training


def make_tiny_masked_model(
    folder: Path, texts: Sequence[str], *, words: int = 1500, width: int = 64, layers: int = 2,
    context: int = 512, steps: int = 150, seed: int = 0,
) -> Path:  # fmt: skip
    """Write model and tokenizer to ``folder``, all at once; equal texts and seed, equal files.

    The tokenizer learns at most ``words`` pieces from ``texts``; the model tells masked pieces of
    random stretches of them for ``steps`` steps.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    if (folder / "config.json").is_file():
        return folder
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learned_pieces(texts, words, SPECIAL), pad_token=SPECIAL[0],
        cls_token=SPECIAL[1], sep_token=SPECIAL[2], mask_token=SPECIAL[3], padding_side="right",
        model_max_length=context,
    )  # fmt: skip
    pad, _, stop, mask = range(len(SPECIAL))  # special tokens come first
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(BertConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width,
            num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=context,
            pad_token_id=pad,
        ))  # fmt: skip
        rows = tokenizer([t for t in texts if t], add_special_tokens=False)["input_ids"]
        stream = torch.tensor([i for row in rows for i in [*row, stop]])
        rng = np.random.default_rng(seed)

        def masked(batch: Any) -> dict[str, Any]:
            shut = torch.from_numpy(rng.random(tuple(batch.shape)) < SHARE)
            shut[:, 0] = True  # one at least: a mean over nothing is no number
            hidden = batch.masked_fill(shut, mask)
            return {"input_ids": hidden, "labels": batch.masked_fill(~shut, -100)}

        fit_stretches(model, stream, steps, rng, masked)
    return write_whole(folder, model, tokenizer)
