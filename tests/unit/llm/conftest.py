"""A random Llama of 30k weights with a byte tokenizer, and a small task, made once per session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_lm import make_tiny_lm
from tiny_vlm import make_tiny_idefics, make_tiny_vlm


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as ``save_pretrained`` writes it: real mechanics, answers of noise."""
    return make_tiny_lm(tmp_path_factory.mktemp("tiny_lm"))


@pytest.fixture(scope="session")
def wide_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same with attention heads of 32: vLLM has no smaller ones on a CPU."""
    return make_tiny_lm(tmp_path_factory.mktemp("wide_lm"), head_dim=32)


@pytest.fixture
def books() -> list[dict[str, Any]]:
    """Return six items; the last two are equal but for their ids."""
    names = ["The Tide Clock", "Salt Road", "Gull Letters", "Ledger of Dust", "Twin", "Twin"]
    return [
        {"item_id": f"b{n}", "title": name, "subjects": "sea stories|history"}
        for n, name in enumerate(names)
    ]


@pytest.fixture(autouse=True)
def api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints of these tests are asked with a key that must show up nowhere."""
    from endpoint_kit import KEY

    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a vision-language model with its processor."""
    return make_tiny_vlm(tmp_path_factory.mktemp("tiny_vlm"))


@pytest.fixture(scope="session")
def wide_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same with attention heads of 32."""
    return make_tiny_vlm(tmp_path_factory.mktemp("wide_vlm"), hidden=128)


@pytest.fixture(scope="session")
def tiny_idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a vision-language model that vLLM reads without torchvision; heads of 32."""
    return make_tiny_idefics(tmp_path_factory.mktemp("tiny_idefics"))
