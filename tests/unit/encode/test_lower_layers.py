"""A lower layer's states come from a pass that ends there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmers_pipelines.encode.lower_layers_net import LowerLayers, stack_of
from llmers_pipelines.encode.transformer import TransformerEncoder
from llmers_pipelines.encode.transformer_net import load_encoder

pytestmark = pytest.mark.proof("bahe", "equations")
IDS = torch.tensor([[2, 4, 5, 6, 3], [2, 7, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def whole(folder: Path) -> Any:
    return load_encoder(folder, "float32")[1].eval()


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=16, n_embd=16, n_layer=3, n_head=2, n_positions=32)
    return GPT2Model(config).eval()


def t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2)
    return T5EncoderModel(config).eval()


@pytest.fixture(params=["bert", "llama", "gpt2", "t5"])
def make(request: pytest.FixtureRequest, tiny_bert: Path, tiny_llama: Path) -> Any:
    return {"bert": lambda: whole(tiny_bert), "llama": lambda: whole(tiny_llama),
            "gpt2": gpt2, "t5": t5}[request.param]  # fmt: skip


def test_states_equal_those_that_the_whole_model_lists(make: Any) -> None:
    with torch.inference_mode():
        told = make()(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
        total = len(told) - 1
        for layer in range(total + 1):
            found = LowerLayers(make(), layer)(IDS, MASK)
            torch.testing.assert_close(found, told[layer], atol=0, rtol=0)
            below = LowerLayers(make(), layer - total - 1)(IDS, MASK)
            torch.testing.assert_close(below, told[layer], atol=0, rtol=0)


def test_layers_above_are_neither_run_nor_kept(make: Any) -> None:
    model = make()
    stack = stack_of(model)
    assert stack is not None
    layers, ran = list(stack), []
    for place, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, place=place: ran.append(place))
    before = sum(p.numel() for p in model.parameters())
    lower = LowerLayers(model, 1)
    with torch.inference_mode():
        lower(IDS, MASK)
    assert ran == [0]
    kept = sum(p.numel() for p in model.parameters())
    assert before - kept == sum(p.numel() for layer in layers[2:] for p in layer.parameters())


def test_a_layer_that_is_not_there(tiny_bert: Path) -> None:
    for layer in (3, -4):
        with pytest.raises(ValueError, match=f"layer {layer} of a model with 2 layers"):
            LowerLayers(whole(tiny_bert), layer)


def test_a_model_of_another_form_runs_whole(tiny_bert: Path) -> None:
    """Without one list of layers the state is picked from those of the whole pass."""
    model = whole(tiny_bert)
    model.more = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])
    lower = LowerLayers(model, 1)
    with torch.inference_mode():
        told = whole(tiny_bert)(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
        assert not lower.cut
        torch.testing.assert_close(lower(IDS, MASK), told.hidden_states[1])


def test_the_encoder_runs_the_lower_layers_alone(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    ran = []
    forward = LlamaDecoderLayer.forward
    monkeypatch.setattr(LlamaDecoderLayer, "forward",
                        lambda self, *a, **k: ran.append(1) or forward(self, *a, **k))  # fmt: skip
    made = TransformerEncoder.open(tiny_llama, layer=1, normalize=False, token_budget=10_000)
    assert np.isfinite(made.encode(["a war drama", "film"])).all()
    assert len(ran) == 1
