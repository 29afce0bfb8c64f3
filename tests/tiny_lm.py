"""A language model of 30k random weights with a byte tokenizer, stored as real ones are."""

from __future__ import annotations

from pathlib import Path


def make_tiny_lm(folder: Path, *, stops: float = 1.0, **config: int) -> Path:
    """Write the model to ``folder``: real mechanics, answers of noise.

    ``stops`` scales the weights of the end token: above 1 sampled answers end at random lengths.
    ``config`` goes to ``LlamaConfig``.
    """
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
        bos_token_id=None, initializer_range=0.4, tie_word_embeddings=False, **config,
    ))  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= stops
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
