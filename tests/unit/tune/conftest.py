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
