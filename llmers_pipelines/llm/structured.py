"""Structured output on the engines' side: the schema dialect, and grammars that enforce it.

The dialect itself lives with the prompt tasks, which write schemas; it is re-exported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..prompts.schema import KEYWORDS, SchemaError, answer_schema, check_schema, narrow

if TYPE_CHECKING:
    import torch

__all__ = ["KEYWORDS", "Grammars", "RowGrammars", "SchemaError", "answer_schema", "check_schema",
           "grammar_text", "narrow"]  # fmt: skip

SEPARATORS = (", ", ": ")  # as json.dumps writes; other spacing costs tokens


class Grammars:
    """Compiles schemas for one tokenizer; about a millisecond each, so every row may have its own.

    ``vocabulary`` is the width of the model's logits, ``stop`` the token ids that end an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, stop: Sequence[int]) -> None:
        import xgrammar

        self._xgrammar = xgrammar
        self.vocabulary = vocabulary
        info = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=vocabulary, stop_token_ids=list(stop)
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        self._compiled: dict[str, Any] = {}

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """Return a fresh matcher; raises ``SchemaError`` where the schema cannot be enforced."""
        check_schema(schema)
        text = json.dumps(schema)
        if text not in self._compiled:
            if len(self._compiled) >= 512:
                self._compiled.clear()
            try:
                self._compiled[text] = self._compiler.compile_json_schema(
                    text, any_whitespace=False, separators=SEPARATORS
                )
            except (RuntimeError, ValueError) as error:
                raise SchemaError(f"the grammar compiler refuses the schema: {error}") from error
        return self._xgrammar.GrammarMatcher(self._compiled[text])

    def rows(self, schemas: Sequence[Mapping[str, Any] | None], prompt_length: int) -> RowGrammars:
        """Return a logits processor for one batch; rows without a schema are free."""
        return RowGrammars(self, [s and self.matcher(s) for s in schemas], prompt_length)


def grammar_text(schema: Mapping[str, Any]) -> str:
    """Return the grammar of ``Grammars.matcher`` in EBNF; raises ``SchemaError`` alike."""
    import xgrammar

    check_schema(schema)
    try:
        return str(xgrammar.Grammar.from_json_schema(
            json.dumps(schema), any_whitespace=False, separators=SEPARATORS
        ))  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise SchemaError(f"the grammar compiler refuses the schema: {error}") from error


class RowGrammars:
    """Masks, per row, the tokens that its grammar forbids next. One batch only: it has state."""

    def __init__(self, grammars: Grammars, matchers: list[Any], prompt_length: int) -> None:
        self._xgrammar = grammars._xgrammar
        self._matchers = matchers
        self._prompt_length = prompt_length
        self._mask = self._xgrammar.allocate_token_bitmask(len(matchers), grammars.vocabulary)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores`` (B, V) with forbidden tokens at minus infinity."""
        bound = []
        for row, matcher in enumerate(self._matchers):
            if not matcher or matcher.is_terminated():
                continue
            if input_ids.shape[1] > self._prompt_length and not matcher.accept_token(
                int(input_ids[row, -1])
            ):
                # Only a row that another rule has stopped gets a token from outside its grammar.
                self._matchers[row] = None
                continue
            if not matcher.is_terminated():
                matcher.fill_next_token_bitmask(self._mask, row)
                bound.append(row)
        if bound:
            self._xgrammar.apply_token_bitmask_inplace(
                scores, self._mask.to(scores.device), indices=bound
            )
        return scores
