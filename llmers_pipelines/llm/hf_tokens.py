"""A model's own tokenizer and chat template, without its weights: how long a prompt is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .batching import chat_text
from .protocol import Message


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model folder, with a padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a chat; ``ValueError`` where it is more than text.

    Where the last message is the assistant's, the answer has been begun: its text follows what the
    template writes before an answer, tokenized apart, and stays open.
    """
    if any(not isinstance(m["content"], str) for m in messages):
        raise ValueError("this engine reads text only; the request holds an image")
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        begun = tokenizer(messages[-1]["content"], add_special_tokens=False)["input_ids"]
        return [*prompt_ids(tokenizer, messages[:-1]), *begun]
    text = chat_text(tokenizer, messages)
    # A chat template writes its own special tokens; without one the tokenizer adds them.
    plain = not tokenizer.chat_template
    return tokenizer(text, add_special_tokens=plain)["input_ids"]


def context_of(folder: Path) -> int:
    """Return the most tokens of prompt and answer that the model's config allows; 0 = unknown."""
    path = folder / "config.json"
    if not path.is_file():
        return 0
    config = json.loads(path.read_text(encoding="utf-8"))
    inner = config.get("text_config")
    own = (inner if isinstance(inner, dict) else config).get("max_position_embeddings")
    return int(own or 0)
