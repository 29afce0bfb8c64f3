"""A random Llama of 30k weights with a byte tokenizer, and a small task, made once per session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as ``save_pretrained`` writes it: real mechanics, answers of noise."""
    return write_lm(tmp_path_factory.mktemp("tiny_lm"))


@pytest.fixture(scope="session")
def wide_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same with attention heads of 32: vLLM has no smaller ones on a CPU."""
    return write_lm(tmp_path_factory.mktemp("wide_lm"), head_dim=32)


def write_lm(folder: Path, **config: Any) -> Path:
    """Write model and tokenizer into ``folder``; ``config`` goes to ``LlamaConfig``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<user>", "<assistant>", "<system>"]
    corpus = ["the keeper mends the clock", '{"summary": "the sea", "themes": ["a", "b"]}'] * 4
    backend.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, initializer_range=0.4, tie_word_embeddings=False,
        **config,
    ))  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def books() -> list[dict[str, Any]]:
    """Return six items; the last two are equal but for their ids."""
    names = ["The Tide Clock", "Salt Road", "Gull Letters", "Ledger of Dust", "Twin", "Twin"]
    return [
        {"item_id": f"b{n}", "title": name, "subjects": "sea stories|history"}
        for n, name in enumerate(names)
    ]
