"""A masked language model of some hundred thousand weights, trained for seconds on given texts.

As ``tiny_model``: real mechanics (Hugging Face form, CLS, SEP and MASK tokens), no knowledge.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    if (folder / "config.json").is_file():
        return folder
    if not any(texts):
        raise ValueError("a model needs texts to be trained on; there are none")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=words, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=SPECIAL[0], cls_token=SPECIAL[1], sep_token=SPECIAL[2],
        mask_token=SPECIAL[3], padding_side="right", model_max_length=context,
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
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        rng, length = np.random.default_rng(seed), min(48, len(stream) - 1)
        for _ in range(steps):
            starts = rng.integers(0, len(stream) - length, 16)
            batch = torch.stack([stream[s : s + length] for s in starts])
            shut = torch.from_numpy(rng.random(tuple(batch.shape)) < SHARE)
            shut[:, 0] = True  # one at least: a mean over nothing is no number
            labels = batch.masked_fill(~shut, -100)
            optimizer.zero_grad()
            model(input_ids=batch.masked_fill(shut, mask), labels=labels).loss.backward()
            optimizer.step()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)
    return folder
