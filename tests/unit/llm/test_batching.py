"""Batches by size: within both bounds, nothing lost, a giant alone."""

from __future__ import annotations

import random

from llmers_pipelines.llm.batching import batches


def test_bounds_hold_and_nothing_is_lost() -> None:
    draw = random.Random(0)
    for _ in range(50):
        sizes = sorted((draw.randint(1, 90) for _ in range(draw.randint(0, 60))), reverse=True)
        tokens, rows = draw.randint(1, 300), draw.randint(1, 9)
        found = list(batches([(s, n) for n, s in enumerate(sizes)], tokens, rows))
        assert [n for batch in found for n in batch] == list(range(len(sizes)))
        for batch in found:
            assert 1 <= len(batch) <= rows
            assert len(batch) == 1 or len(batch) * sizes[batch[0]] <= tokens


def test_a_row_over_the_bound_is_a_batch_of_its_own() -> None:
    assert list(batches([(100, "a"), (3, "b"), (3, "c")], 10, 8)) == [["a"], ["b", "c"]]
