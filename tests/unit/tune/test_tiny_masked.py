"""The tiny masked language model: real mechanics, the same files from the same texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llmers_pipelines.config import Settings
from llmers_pipelines.encode.encoder import make_encoder
from llmers_pipelines.orchestrate.plumbing import with_tiny_model
from llmers_pipelines.tune.tiny_masked import make_tiny_masked_model

TEXTS = [f"The {c} story {n}" for n in range(12) for c in ("red", "green")]
SIZE = {"words": 300, "width": 16, "layers": 1}


def test_equal_texts_equal_files(tmp_path: Path) -> None:
    made = [make_tiny_masked_model(tmp_path / n, TEXTS, steps=3, **SIZE) for n in ("a", "b")]
    one, two = ((folder / "model.safetensors").read_bytes() for folder in made)
    assert one == two and (made[0] / "tokenizer.json").is_file()
    before = (made[0] / "model.safetensors").stat().st_mtime_ns
    make_tiny_masked_model(tmp_path / "a", ["other"], steps=1, **SIZE)
    assert (made[0] / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="texts"):
        make_tiny_masked_model(tmp_path / "c", ["", ""], **SIZE)


def test_it_fills_masks_better_than_at_the_start(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    losses = []
    for steps in (1, 40):
        folder = make_tiny_masked_model(tmp_path / str(steps), TEXTS, steps=steps, **SIZE)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForMaskedLM.from_pretrained(folder).eval()
        ids = tokenizer(TEXTS[3], return_tensors="pt")["input_ids"]
        shut = torch.zeros_like(ids, dtype=torch.bool)
        shut[0, 2] = True
        given = ids.masked_fill(shut, tokenizer.mask_token_id)
        with torch.inference_mode():
            losses.append(float(model(input_ids=given, labels=ids.masked_fill(~shut, -100)).loss))
    assert losses[1] < losses[0]
    vectors = make_encoder(f"{folder}?pooling=cls&normalize=0").encode(TEXTS[:2])
    assert vectors.shape == (2, 16)


@pytest.mark.parametrize(("name", "end"), [
    ("tiny_masked", "/tiny_masked?pooling=mean&normalize=0"),
    ("tiny", "/tiny?pooling=mean&normalize=0"),
    ("tiny_masked?pooling=cls", "/tiny_masked?pooling=cls"), ("tfidf?dim=8", "tfidf?dim=8"),
])  # fmt: skip
def test_an_experiment_names_it(name: str, end: str) -> None:
    own = with_tiny_model(Settings(encoder=name, dataset="shop"))
    assert own.encoder.endswith(end) and own.tune.model.endswith("/shop/tiny")
