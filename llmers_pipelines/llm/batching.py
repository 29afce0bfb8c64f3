"""Prompts as text and batches by size: what an engine does before a model runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .protocol import Message


def batches(sized: Sequence[tuple[int, Any]], tokens: int, rows: int) -> Iterator[list[Any]]:
    """Yield runs of ``sized`` (pairs size, thing; longest first) within both bounds.

    A batch counts as its number of rows times its longest size, since shorter rows are padded. A
    single row larger than ``tokens`` is a batch of its own.
    """
    batch: list[Any] = []
    widest = 0
    for size, thing in sized:
        if batch and (len(batch) == rows or (len(batch) + 1) * widest > tokens):
            yield batch
            batch = []
        if not batch:
            widest = size
        batch.append(thing)
    if batch:
        yield batch


def chat_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Return a chat as the model's own template writes it, ready for the answer.

    A template without a system role gets the system message as the start of the user's; a model
    without a template (a base model) gets the contents as paragraphs.
    """
    import jinja2

    if not tokenizer.chat_template:
        return "\n\n".join(str(m["content"]) for m in messages) + "\n\n"
    # Reasoning before the answer would eat the answer's token budget.
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    try:
        return tokenizer.apply_chat_template(list(messages), **options)
    except jinja2.exceptions.TemplateError:
        if messages[0]["role"] != "system" or len(messages) < 2:
            raise
        joined = _joined(messages[0]["content"], messages[1]["content"])
        merged = [{"role": messages[1]["role"], "content": joined}, *messages[2:]]
        return tokenizer.apply_chat_template(merged, **options)


def _joined(first: Any, second: Any) -> Any:
    """Return two contents as one, both of text or both of parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*first, {"type": "text", "text": "\n\n"}, *second]
