"""A causal language model of some hundred thousand weights, trained for seconds on given texts.

It has the mechanics of a real one (Hugging Face form, chat template, cache, log-probabilities) and
none of its knowledge: what it shows is that a path works, never that a method helps.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<pad>", "<eos>", "<user>", "<assistant>", "<system>"]


def make_tiny_model(
    folder: Path, texts: Sequence[str], *, words: int = 1500, width: int = 64, layers: int = 2,
    context: int = 1024, steps: int = 150, seed: int = 0,
) -> Path:  # fmt: skip
    """Write model and tokenizer to ``folder``, all at once; equal texts and seed, equal files.

    The tokenizer learns at most ``words`` pieces from ``texts``; the model predicts the next piece
    of random stretches of them for ``steps`` steps.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if (folder / "config.json").is_file():
        return folder
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learned_pieces(texts, words, SPECIAL), pad_token="<pad>",
        eos_token="<eos>", padding_side="left", additional_special_tokens=SPECIAL[2:],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    stop = tokenizer.eos_token_id
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width,
            num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=context, bos_token_id=None, eos_token_id=stop,
            pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
        ))  # fmt: skip
        rows = tokenizer([t for t in texts if t])["input_ids"]
        stream = torch.tensor([i for row in rows for i in [*row, stop]])
        fit_stretches(
            model, stream, steps, np.random.default_rng(seed),
            lambda batch: {"input_ids": batch, "labels": batch},
        )  # fmt: skip
    return write_whole(folder, model, tokenizer)


def learned_pieces(texts: Sequence[str], words: int, special: Sequence[str]) -> Any:
    """Return a byte-level tokenizer of at most ``words`` pieces; ``special`` have ids 0, 1, ...

    Raises ValueError where no text holds anything.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if not any(texts):
        raise ValueError("a model needs texts to be trained on; there are none")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=words, special_tokens=list(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    return backend


def fit_stretches(
    model: Any, stream: Any, steps: int, rng: np.random.Generator,
    told: Callable[[Any], dict[str, Any]],
) -> None:  # fmt: skip
    """Train on random stretches (16, 48) of ``stream``; ``told`` makes a batch of one of them."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    length = min(48, len(stream) - 1)
    for _ in range(steps):
        starts = rng.integers(0, len(stream) - length, 16)
        batch = torch.stack([stream[s : s + length] for s in starts])
        optimizer.zero_grad()
        model(**told(batch)).loss.backward()
        optimizer.step()


def write_whole(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Write both to ``folder``, which holds all files or none, and return it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)
    return folder
