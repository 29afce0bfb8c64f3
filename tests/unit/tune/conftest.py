"""A causal model and a text encoder of a few thousand weights, in Hugging Face form."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import tiny_lm as tiny


@pytest.fixture(scope="session")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="session")
def sentences() -> pa.Table:
    """Six questions and answers, an answer in two pieces."""
    words = ("sea", "sand", "moon", "rain", "wood", "iron")
    chat = [json.dumps([{"role": "user", "content": f"say {w}"}]) for w in words]
    return pa.table({
        "example_id": [f"e{n}" for n in range(6)], "prompt": chat,
        "answer": [["it is ", w] for w in words],
    })  # fmt: skip


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model that was trained for a moment."""
    from llmers_pipelines.tune.tiny_masked import make_tiny_masked_model

    texts = [f"user is u{n}; title is The {c} story {n}; genre is {g}."
             for n in range(20) for c in ("red", "green") for g in ("drama", "crime")]  # fmt: skip
    folder = tmp_path_factory.mktemp("masked") / "lm"
    return make_tiny_masked_model(folder, texts, steps=20, words=330, width=16, layers=1)
