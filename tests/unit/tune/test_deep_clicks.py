"""Layers split at k: behaviours from below, tuned layers above, vectors of users (BAHE)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.training import HISTORY, TRAIN, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.click_sequences import ClickSequences
from llmers_pipelines.derive.deep_states import DeepLayers, DeepStates
from llmers_pipelines.encode.encoder import make_encoder
from llmers_pipelines.encode.transformer_net import load_encoder
from llmers_pipelines.orchestrate.steps.derive_checks import example_checks
from llmers_pipelines.plan import PlanError
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.tune.deep_clicks import DeepClicks
from llmers_pipelines.tune.deep_clicks_net import deep_states, stacked, through, upper
from llmers_pipelines.tune.loop_net import run
from llmers_pipelines.tune.lora_net import save_adapter
from llmers_pipelines.tune.tuner import Base, Lora, TuneError

pytestmark = pytest.mark.proof("bahe", "equations")
HOW = DeepClicks(lora=Lora(rank=2, dropout=0.0), lr=0.01, batch=32, epochs=4)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    made = contract_data("ctr")
    place = np.arange(len(made.item)) % 12
    split = np.where((made.split == TRAIN) & (place < 5), HISTORY, made.split)
    return dataclasses.replace(made, split=split.astype(np.int8))


def behaviours(lm: Path, data: TrainingData, layer: int) -> VectorTable:
    encoder = make_encoder(f"{lm}?pooling=mean&normalize=0&layer={layer}")
    texts = [f"a behaviour of kind {n % 3} number {n}" for n in range(data.n_items)]
    return VectorTable("item", data.items.ids, encoder.encode(texts), np.ones(data.n_items, bool))


def base(lm: Path, layer: int = 1) -> Base:
    return Base(lm, pooling="mean", layer=layer)


def test_layers_above_go_on_where_those_below_end(lm: Path) -> None:
    """Token states of layer 1, fed from below, become the model's own last states."""
    tokenizer, whole = load_encoder(lm, "float32")
    ids = torch.tensor([tokenizer("the keeper mends the clock")["input_ids"]])
    with torch.inference_mode():
        told = whole(input_ids=ids, output_hidden_states=True)
        for k in (0, 1, 2):
            part = upper(load_encoder(lm, "float32")[1], k)
            found = part(inputs_embeds=told.hidden_states[k], use_cache=False).last_hidden_state
            torch.testing.assert_close(found, told.last_hidden_state, atol=1e-5, rtol=1e-4)


def test_split_at_the_top_is_pooling_alone(lm: Path) -> None:
    rows = [np.random.default_rng(n).normal(size=(n + 1, 32)).astype(np.float32) for n in range(3)]
    for layer in (3, -1):
        model = upper(load_encoder(lm, "float32")[1], layer)
        found = through(model, *stacked(rows, "cpu", torch.float32), "mean").numpy()
        np.testing.assert_allclose(found, [r.mean(0) for r in rows], atol=1e-6)
    with pytest.raises(TuneError, match="0 to 3"):
        upper(load_encoder(lm, "float32")[1], 4)


def test_a_sequence_does_not_depend_on_those_beside_it(lm: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 32)).astype(np.float32) for n in (2, 5, 1)]
    model = upper(load_encoder(lm, "float32")[1], 1).eval()
    with torch.inference_mode():
        both = through(model, *stacked(rows, "cpu", torch.float32), "mean")
        alone = [through(model, *stacked([r], "cpu", torch.float32), "mean")[0] for r in rows]
        moved = through(model, *stacked([rows[1][::-1]], "cpu", torch.float32), "mean")[0]
    torch.testing.assert_close(both, torch.stack(alone), atol=1e-5, rtol=1e-5)
    assert float((moved - alone[1]).abs().max()) > 1e-3, "positions count behaviours"


def test_examples_tell_what_lies_before_a_row(data: TrainingData) -> None:
    table, told = ClickSequences(last=3).apply([data], log=data)
    assert all(c.passed for c in example_checks(table, data))
    assert table.num_rows == told["rows"] - told["without_history"]
    row = table.to_pylist()[0]
    user = int(data.users.index([row["user_id"]])[0])
    mine = (data.user == user) & (data.split == HISTORY) & (data.label > 0)
    assert row["history"] == [data.items.ids[i - 1] for i in data.item[mine]][-3:]
    few, _ = ClickSequences(samples=7).apply([data], log=data)
    assert few.num_rows == 7 and few.equals(ClickSequences(samples=7).apply([data], log=data)[0])
    with pytest.raises(ValueError, match="labels"):
        ClickSequences().apply([dataclasses.replace(data, label=None)])


def test_without_a_cut_a_row_is_not_told_to_itself(data: TrainingData) -> None:
    whole = dataclasses.replace(data, split=np.where(data.split == HISTORY, TRAIN, data.split))
    table, _ = ClickSequences(last=50).apply([whole], log=whole)
    for row in table.to_pylist():
        assert row["item_id"] not in row["history"] and row["shown"][:-1] == row["history"]


def tuned(lm: Path, data: TrainingData, folder: Path, **how: Any) -> tuple[Any, dict[str, Any]]:
    examples = ClickSequences().apply([data], log=data)[0]
    settings = dataclasses.replace(HOW, **how)
    task = settings.objective(base(lm), examples, behaviours(lm, data, 1))
    return task, run(task, settings, folder)


def test_upper_layers_learn_clicks_and_become_vectors(
    lm: Path, data: TrainingData, tmp_path: Path
) -> None:
    task, told = tuned(lm, data, tmp_path / "a", epochs=8)
    losses = [e["loss"] for e in told["losses"]]
    assert losses[-1] < losses[0]
    save_adapter(task.module.encoder, tmp_path / "adapter")
    vectors = behaviours(lm, data, 1)
    layers = DeepLayers(lambda rows: deep_states(base(lm), tmp_path / "adapter", rows))
    users, counted = DeepStates("user", 4).apply([layers, vectors, data], log=data)
    items, _ = DeepStates("item").apply([layers, vectors, data], log=data)
    assert users.dim == items.dim == 32 and items.ids == data.items.ids
    assert counted["users"] == int(users.mask.sum()) > 0
    user = int(np.flatnonzero(users.mask)[0]) + 1
    mine = (data.user == user) & (data.split == HISTORY) & (data.label > 0)
    own = vectors.aligned(data.items)[0][data.item[mine]][-4:]
    task.module.eval()
    with torch.no_grad():
        given = stacked([own], "cpu", torch.float32)
        wanted = through(task.module.encoder, *given, "mean")[0].numpy()
    np.testing.assert_allclose(users.vectors[user - 1], wanted, atol=1e-4)
    plain, _ = DeepStates("item").apply([DeepLayers(lambda r: np.stack([x.mean(0) for x in r])),
                                         vectors, data], log=data)  # fmt: skip
    assert np.abs(plain.vectors - items.vectors).max() > 1e-3


def test_users_and_items_without_a_text(lm: Path, data: TrainingData) -> None:
    vectors = behaviours(lm, data, 1)
    mask = np.ones(data.n_items, bool)
    mask[::2] = False
    less = VectorTable("item", vectors.ids, vectors.vectors, mask)
    mean = DeepLayers(lambda rows: np.stack([r.mean(0) for r in rows]))
    users, _ = DeepStates("user").apply([mean, less, data], log=data)
    items, told = DeepStates("item").apply([mean, less, data], log=data)
    assert items.mask.tolist() == mask.tolist() and told["without"] == int((~mask).sum())
    np.testing.assert_allclose(items.vectors[0], items.vectors[mask].mean(0), atol=1e-5)
    assert np.isfinite(users.vectors).all()
    with pytest.raises(ValueError, match="tuned model"):
        DeepStates().apply([less, data], log=data)


def test_what_cannot_be_tuned_is_named(lm: Path, data: TrainingData) -> None:
    examples = ClickSequences().apply([data], log=data)[0]
    vectors = behaviours(lm, data, 1)
    with pytest.raises(TuneError, match="nothing is left to tune"):
        HOW.objective(base(lm, -1), examples, vectors)
    with pytest.raises(TuneError, match="context="):
        HOW.objective(base(lm), examples)
    nothing = VectorTable("item", vectors.ids, vectors.vectors, np.zeros(data.n_items, bool))
    with pytest.raises(TuneError, match="no example"):
        HOW.objective(base(lm), examples, nothing)


def test_an_adapter_of_a_part_reads_no_texts() -> None:
    from llmers_pipelines.config import Settings
    from llmers_pipelines.data.text import ItemText
    from llmers_pipelines.orchestrate.tuned import bound
    from llmers_pipelines.plan import Derive, Embed, Table, Tune

    items = Table("items")
    part = Tune(DeepClicks(), Derive(ClickSequences(), Table("splits", task="ctr")), model="x")
    with pytest.raises(PlanError, match="DeepStates"):
        bound(Embed(ItemText(), over=items, adapter=part), Settings())


def test_examples_are_a_table(data: TrainingData) -> None:
    assert isinstance(ClickSequences().apply([data])[0], pa.Table)
