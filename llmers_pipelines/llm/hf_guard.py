"""The last look at a tokenized prompt: no control tokens but those of the chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from .hf_tokens import prompt_ids
from .protocol import Marks, Message

Tokens = Callable[[Sequence[Message]], list[int]]


class ControlGuard:
    """Knows a tokenizer's control tokens, and how many its template writes for a chat of roles."""

    def __init__(self, tokenizer: Any, marks: Marks, tokens: Tokens | None = None) -> None:
        self.tokenizer = tokenizer
        self.marks = marks
        self._tokens = tokens or self._of_texts
        self._frames: dict[tuple[Any, ...], Counter[int]] = {}

    @cached_property
    def controls(self) -> frozenset[int]:
        """Token ids of the marks and of the tokenizer's own special tokens."""
        vocabulary = self.tokenizer.get_added_vocab()
        ids = {vocabulary[text] for text in self.marks.texts if text in vocabulary}
        return frozenset(ids | set(self.tokenizer.all_special_ids))

    def check(self, messages: Sequence[Message], ids: Sequence[int]) -> None:
        """Raise ``ValueError`` where the texts of ``messages`` put control tokens into ``ids``.

        ``ids`` hold one placeholder per image: those are the template's own.
        """
        frame = tuple((m["role"], _shape(m["content"])) for m in messages)
        if frame not in self._frames:
            blank = [{"role": m["role"], "content": _blank(m["content"])} for m in messages]
            self._frames[frame] = self._count(self._tokens(blank))
        if extra := self._count(ids) - self._frames[frame]:
            named = ", ".join(map(repr, self.tokenizer.convert_ids_to_tokens(sorted(extra))))
            raise ValueError(
                f"the texts of the prompt spell special tokens ({named}) that would be read as "
                "commands; take them out of the row"
            )

    def _of_texts(self, messages: Sequence[Message]) -> list[int]:
        return prompt_ids(self.tokenizer, messages)

    def _count(self, ids: Sequence[int]) -> Counter[int]:
        return Counter(i for i in ids if i in self.controls)


def _shape(content: Any) -> tuple[str, ...]:
    return () if isinstance(content, str) else tuple(str(part.get("type")) for part in content)


def _blank(content: Any) -> Any:
    """Return the content with other words and the same images."""
    if isinstance(content, str):
        return "x"
    return [{"type": "text", "text": "x"} if "text" in part else part for part in content]
