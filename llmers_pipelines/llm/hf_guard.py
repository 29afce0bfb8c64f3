"""The last look at a tokenized prompt: no control tokens but those of the chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from .batching import chat_text
from .protocol import Marks, Message


class ControlGuard:
    """Knows a tokenizer's control tokens, and how many its template writes for a chat of roles."""

    def __init__(self, tokenizer: Any, marks: Marks) -> None:
        self.tokenizer = tokenizer
        self.marks = marks
        self._frames: dict[tuple[str, ...], Counter[int]] = {}

    @cached_property
    def controls(self) -> frozenset[int]:
        """Token ids of the marks and of the tokenizer's own special tokens."""
        vocabulary = self.tokenizer.get_added_vocab()
        ids = {vocabulary[text] for text in self.marks.texts if text in vocabulary}
        return frozenset(ids | set(self.tokenizer.all_special_ids))

    def check(self, messages: Sequence[Message], ids: Sequence[int]) -> None:
        """Raise ``ValueError`` where the texts of ``messages`` put control tokens into ``ids``."""
        roles = tuple(m["role"] for m in messages)
        if roles not in self._frames:
            blank = [{"role": role, "content": "x"} for role in roles]
            plain = not self.tokenizer.chat_template
            text = chat_text(self.tokenizer, blank)
            self._frames[roles] = self._count(
                self.tokenizer(text, add_special_tokens=plain)["input_ids"]
            )
        if extra := self._count(ids) - self._frames[roles]:
            named = ", ".join(map(repr, self.tokenizer.convert_ids_to_tokens(sorted(extra))))
            raise ValueError(
                f"the texts of the prompt spell special tokens ({named}) that would be read as "
                "commands; take them out of the row"
            )

    def _count(self, ids: Sequence[int]) -> Counter[int]:
        return Counter(i for i in ids if i in self.controls)
