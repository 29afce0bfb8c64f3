"""Log-probabilities of whole choices through vLLM, without scoring a prompt more than once.

The choices of a request form a tree of tokens. At each inner node one request, which begins with
the prompt and so finds it in the prefix cache, asks for the log-probabilities of the tokens that
follow (``logprob_token_ids``). Log-probabilities of prompt tokens would need no tree, but they pass
the prefix cache by, so that K choices would cost K full prompts, and fail under an adapter on CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from .protocol import ChoiceResult
from .vllm_machine import TOKENS_SCORED, stream

Node = tuple[int, ...]


def choices(
    machine: Any,
    ready: Iterable[tuple[str, ChoiceResult | tuple[list[int], list[list[int]]]]],
    *,
    adapter: str = "",
) -> Iterator[ChoiceResult]:
    """Yield a result per pair (row, prompt and choices as token ids, or their failure)."""
    from vllm import SamplingParams  # pyright: ignore

    rows: dict[int, _Row] = {}
    failed: list[ChoiceResult] = []

    def jobs() -> Iterator[tuple[tuple[int, Node], list[int], Any]]:
        for number, (row_id, found) in enumerate(ready):
            if isinstance(found, ChoiceResult):
                failed.append(found)
                continue
            prompt, tokens = found
            asked = list(questions(tokens))
            read = len(prompt) + sum(map(len, tokens))
            rows[number] = _Row(row_id, tokens, len(asked), read)
            for node, follow in asked:
                how = partial(
                    SamplingParams,
                    max_tokens=1,
                    temperature=0.0,
                    detokenize=False,
                    logprob_token_ids=follow,
                )
                yield (number, node), [*prompt, *node], how

    for (number, node), output in stream(machine, jobs(), adapter=adapter):
        yield from failed
        failed.clear()
        row = rows[number]
        row.take(node, output)
        if not row.open:
            yield row.result()
            del rows[number]
    yield from failed


def questions(tokens: Sequence[Sequence[int]]) -> Iterator[tuple[Node, list[int]]]:
    """Yield (beginning, tokens that follow it in some choice): the inner nodes of the tree.

    A node with more followers than one request may name comes in several parts.
    """
    tree: dict[Node, dict[int, None]] = {}
    for choice in tokens:
        for at, token in enumerate(choice):
            tree.setdefault(tuple(choice[:at]), {})[token] = None
    for node, follow in tree.items():
        named = list(follow)
        for begin in range(0, len(named), TOKENS_SCORED):
            yield node, named[begin : begin + TOKENS_SCORED]


class _Row:
    """What is known of one request's choices so far."""

    def __init__(self, row_id: str, tokens: list[list[int]], open: int, read: int) -> None:
        self.row_id, self.tokens, self.open, self.read = row_id, tokens, open, read
        self._known: dict[tuple[Node, int], float] = {}
        self._error = ""

    def take(self, node: Node, output: Any) -> None:
        self.open -= 1
        if isinstance(output, str):
            self._error = output
            return
        for token, found in output.outputs[0].logprobs[0].items():
            self._known[node, token] = found.logprob

    def result(self) -> ChoiceResult:
        if self._error:
            return ChoiceResult(self.row_id, error=self._error)
        sums = tuple(
            sum(self._known[tuple(choice[:at]), token] for at, token in enumerate(choice))
            for choice in self.tokens
        )
        means = tuple(s / len(c) for s, c in zip(sums, self.tokens, strict=True))
        return ChoiceResult(self.row_id, sums, means, tokens_in=self.read)
