"""A causal model among whose words are item vectors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import save_file

from llmers_pipelines.data.training import TRAIN
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.history_examples import HistoryExamples
from llmers_pipelines.llm.hf_soft import load_soft_prompt
from llmers_pipelines.teach.language_model_states import LanguageModelStates
from llmers_pipelines.teach.teacher import positions_of
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.tune.item_prompt import ItemPrompt
from llmers_pipelines.tune.loop_net import run
from llmers_pipelines.tune.lora_net import save_adapter
from llmers_pipelines.tune.tuner import Base, Lora, TuneError

pytestmark = pytest.mark.proof("slmrec", "equations")
HOW = ItemPrompt(lora=Lora(rank=4, targets=("all",), dropout=0.0), lr=1e-2, batch=32, epochs=2)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=16, n_items=12, seed=1)


@pytest.fixture(scope="module")
def examples(rings) -> pa.Table:
    return HistoryExamples(most=5).apply((rings.data,), log=rings.data)[0]


def test_examples_are_training_rows(rings, examples):
    data = rings.data
    rows = examples.to_pylist()
    assert len({r["example_id"] for r in rows}) == len(rows)
    per_user = {}
    for r in rows:
        per_user.setdefault(r["user_id"], []).append(r)
        assert r["shown"] == [*r["history"], r["target"]] and 1 <= len(r["history"]) <= 5
    for user in range(1, data.n_users + 1):
        own = slice(data.user_start[user], data.user_start[user + 1])
        train = [data.items.ids[i - 1] for i in data.item[own][data.split[own] == TRAIN]]
        mine = per_user[data.users.ids[user - 1]]
        assert [r["target"] for r in mine] == train[1:]
        assert mine[-1]["history"] == train[-6:-1]
    newest = HistoryExamples(newest=1).apply((data,), log=data)[0]
    assert newest.num_rows == data.n_users


def test_states_read_the_vectors_and_no_padding(lm: Path, rings, examples):
    task = HOW.objective(Base(lm), examples, rings.items)
    table, soft = task.table, task.module.eval()
    with torch.no_grad():
        alone = soft([table[[1, 2]]])
        beside = soft([table[[1, 2]], table[[3, 4, 5, 6, 7]]])
        other = soft([table[[1, 3]]])
    assert len(alone) == 4, "a model of three layers has four hidden states"
    for one, two in zip(alone, beside, strict=True):
        torch.testing.assert_close(two[:1], one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone[0], other[0])  # what enters is the last word, in both
    assert not torch.allclose(alone[-1], other[-1])


def test_the_loss_is_the_softmax_over_the_frozen_table(lm: Path, rings, examples):
    task = HOW.objective(Base(lm), examples, rings.items)
    rows = np.array([0, 5])
    task.module.eval()
    with torch.no_grad():
        states = task.module([task.table[task.rows[r]] for r in rows])[-1]
    scores = (states @ task.module.down.weight.detach().T @ task.table[1:].T).double().numpy()
    aim = task.targets.numpy()[rows] - 1
    by_hand = np.mean(np.log(np.exp(scores).sum(1)) - scores[[0, 1], aim])
    assert task.backward(rows, 0) == pytest.approx(by_hand, rel=1e-4)
    trained = {n for n, p in task.module.named_parameters() if p.grad is not None}
    assert {"up.weight", "down.weight"} <= trained
    assert all("lora_" in n for n in trained if n.startswith("encoder"))
    assert task.table.grad is None


def test_tuned_saved_loaded_exported(lm: Path, rings, examples, tmp_path: Path, monkeypatch):
    """The model of the files has the states of the tuned one; a killed export goes on."""
    task = HOW.objective(Base(lm), examples, rings.items)
    facts = run(task, HOW, tmp_path / "work")
    assert facts["losses"][-1]["loss"] < facts["losses"][0]["loss"]
    save_adapter(task.module.encoder, tmp_path / "adapter")
    heads = tmp_path / "heads.safetensors"
    save_file({n: t.detach().numpy() for n, t in task.heads.items()}, heads)
    loads = []

    def model():
        loads.append(1)
        vectors = torch.from_numpy(np.array(rings.items.vectors))
        return load_soft_prompt(lm, tmp_path / "adapter", heads, vectors, HOW.before, HOW.after)

    one = [task.table[[1, 2]]]
    with torch.no_grad():
        for a, b in zip(task.module(one), model()(one), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    how = LanguageModelStates(blocks=3, newest=2)
    monkeypatch.setattr(LanguageModelStates, "BATCH", 4)
    whole = how.teach(rings.data, rings.items, model, 30, tmp_path / "whole", "m")
    user, _ = positions_of(rings.data, 2)
    assert whole.rows.num_rows == 3 * len(user)
    assert set(whole.rows["layer"].to_pylist()) == {1, 2, 3}
    assert whole.counts["passes"] == len(user)

    class Dying:
        def __init__(self):
            self.soft, self.device, self.calls = model(), task.module.device, 0

        def __call__(self, rows):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return self.soft(rows)

    with pytest.raises(KeyboardInterrupt):
        how.teach(rings.data, rings.items, Dying, 30, tmp_path / "parts", "m")
    again = how.teach(rings.data, rings.items, model, 30, tmp_path / "parts", "m")
    assert again.counts["read_back"] == 8 and again.counts["passes"] == len(user) - 8
    assert again.rows.equals(whole.rows)
    loads.clear()
    read = how.teach(rings.data, rings.items, model, 30, tmp_path / "parts", "m")
    assert not loads and read.rows.equals(whole.rows), "nothing is passed twice"


def test_items_without_vectors_and_wrong_input(lm: Path, rings, examples, tmp_path: Path):
    missing = VectorTable("item", rings.items.ids[:1], rings.items.vectors[:1], np.ones(1, bool))
    with pytest.raises(TuneError, match="has no item vector"):
        HOW.objective(Base(lm), examples, missing)
    with pytest.raises(TuneError, match="as its context"):
        HOW.objective(Base(lm), examples)
    few = dataclasses.replace(rings.items, mask=np.arange(len(rings.items.ids)) < 6)

    class Model:
        device = torch.device("cpu")

        def __call__(self, rows):
            assert all(len(r) for r in rows)
            return tuple(torch.zeros(len(rows), 4) for _ in range(4))

    how = LanguageModelStates(blocks=3, newest=1)
    taught = how.teach(rings.data, few, Model, 30, tmp_path, "m")
    assert taught.counts["positions"] + taught.counts["without_vectors"] == rings.data.n_users
