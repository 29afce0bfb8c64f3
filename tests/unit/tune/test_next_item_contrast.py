"""An item model and a user model tuned together (HLLM), and what they leave."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.file_hash import adapter_sha256
from llmers_pipelines.encode.encoder import make_encoder
from llmers_pipelines.models.contrast_net import sampled_info_nce
from llmers_pipelines.plan import PlanError
from llmers_pipelines.tune.loop_net import run
from llmers_pipelines.tune.next_item_contrast import NextItemContrast
from llmers_pipelines.tune.next_item_contrast_net import NextItemTask, check_causal
from llmers_pipelines.tune.tuner import Base, Lora, TuneError

pytestmark = pytest.mark.proof("hllm", "equations")
HOW = NextItemContrast(lora=Lora(rank=2, dropout=0.0, targets=("all",)), lr=0.01, batch=4, epochs=2,
                       negatives=5, most=4)  # fmt: skip
WORDS = ("sea", "sand", "moon", "rain", "wood", "iron", "salt", "bread")


@pytest.fixture(scope="module")
def texts() -> pa.Table:
    """Eight items; the last two say the same, and there is a ninth without words."""
    said = [f"a book about {w}" for w in WORDS[:7]] + [f"a book about {WORDS[6]}"]
    return pa.table({"item_id": [f"i{n}" for n in range(1, 9)], "text": said})


@pytest.fixture(scope="module")
def windows() -> pa.Table:
    rng = np.random.default_rng(0)
    rows = [[f"i{1 + (s + n) % 8}" for n in range(5)] for s in rng.integers(0, 8, 12)]
    rows[0][2] = "i9"  # without a text
    rows.append(["i1", "i9"])
    return pa.table({
        "example_id": [f"e{n}" for n in range(13)], "user_id": [f"u{n}" for n in range(13)],
        "history": rows, "shown": rows,
    })  # fmt: skip


def task_of(lm: Path, windows: pa.Table, texts: pa.Table, **how: Any) -> NextItemTask:
    base = Base(lm, pooling="last")
    return dataclasses.replace(HOW, **how).objective(base, windows, texts)


def test_the_loss_by_hand() -> None:
    """Cosines 1, 0 and -1 of a state with its target and two negatives, at scale 2."""
    state, target = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    others = torch.tensor([[0.0, 2.0], [-5.0, 0.0]])
    loss = sampled_info_nce(state, target, others, 2.0)
    by_hand = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2)))
    assert float(loss) == pytest.approx(by_hand, abs=1e-6) == pytest.approx(0.14293, abs=1e-5)
    left = sampled_info_nce(state, target, others, 2.0, left_out=torch.tensor([[True, False]]))
    by_hand = -math.log(math.exp(2) / (math.exp(2) + math.exp(-2)))
    assert float(left) == pytest.approx(by_hand, abs=1e-6)


def test_what_resembles_the_target_is_no_negative() -> None:
    """The bound is on the cosine of target and negative, each row by itself; others stay."""
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    near = torch.tensor([[math.cos(0.1), math.sin(0.1)]])  # cosine .995 with the first target
    loss = sampled_info_nce(states, targets, near, 1.0, same=0.99)
    second = -math.log(math.e / (math.e + math.exp(math.sin(0.1))))
    assert float(loss.detach()) == pytest.approx(second / 2, abs=1e-6)
    loss.backward()
    assert states.grad is not None and bool(torch.isfinite(states.grad).all())
    counted = sampled_info_nce(states.detach(), targets, near, 1.0, same=0.999)
    assert float(counted) > float(loss.detach())


def test_the_loss_of_a_batch_is_that_of_its_positions(lm: Path, windows, texts) -> None:
    """Recomputed with one window and one text at a time, in numpy."""
    task = task_of(lm, windows, texts)
    task.module.eval()
    chosen, negatives = task.windows[:3], np.array([6, 0])
    with torch.no_grad():
        found = float(task.loss(chosen, negatives))
        table = np.concatenate([task.vectors(np.array([i])).double().numpy() for i in range(8)])
        terms = []
        for window in chosen:
            states = task.user_states([torch.from_numpy(table[window[:-1]]).float()])[0][0]
            for h, v in zip(states.double().numpy(), window[1:], strict=True):
                with_v = cosines(table[negatives], table[v])
                keep = (with_v <= 0.99) & (negatives != v)
                assert keep[0] == (v not in (6, 7)), "the one with the same words is left out"
                own = math.exp(cosines(table[[v]], h)[0] / 0.07)
                rest = np.exp(cosines(table[negatives], h)[keep] / 0.07).sum()
                terms.append(-math.log(own / (own + rest)))
    assert found == pytest.approx(np.mean(terms), rel=1e-3)
    assert len(terms) == sum(len(w) - 1 for w in chosen)


def cosines(rows: np.ndarray, one: np.ndarray) -> np.ndarray:
    return rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)


def test_a_later_item_does_not_reach_an_earlier_state(lm: Path, windows, texts) -> None:
    """Nor do the windows beside it, nor its padding."""
    task = task_of(lm, windows, texts)
    task.module.eval()
    rows = [torch.randn(n, 32, generator=torch.Generator().manual_seed(n)) for n in (4, 2)]
    with torch.no_grad():
        states, mask = task.user_states(rows)
        changed = rows[0].clone()
        changed[2] += 3.0
        moved, _ = task.user_states([changed])
        alone, _ = task.user_states(rows[1:])
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]
    torch.testing.assert_close(moved[0, :2], states[0, :2], atol=1e-5, rtol=1e-5)
    assert float((moved[0, 2:] - states[0, 2:]).abs().min(1).values.max()) > 1e-4
    torch.testing.assert_close(alone[0], states[1, :2], atol=1e-5, rtol=1e-5)


def test_a_model_that_reads_ahead_is_refused(tmp_path: Path, lm: Path, windows, texts) -> None:
    from transformers import BertConfig, BertModel

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "vocab_size": 50}  # fmt: skip
    with pytest.raises(TuneError, match="later positions"):
        check_causal(BertModel(BertConfig(**small)), tmp_path)
    with pytest.raises(TuneError, match="ItemTexts"):
        HOW.objective(Base(lm), windows)
    with pytest.raises(TuneError, match="layer"):
        HOW.objective(Base(lm, layer=1), windows, texts)
    with pytest.raises(TuneError, match="no example"):
        HOW.objective(Base(lm), windows, texts.slice(0, 1))
    with pytest.raises(PlanError, match="negatives=0"):
        dataclasses.replace(HOW, negatives=0)
    for same in (-0.5, 0.0, 1.5, 99.0):
        with pytest.raises(PlanError, match=f"same={same}.*cosine"):
            dataclasses.replace(HOW, same=same)


def test_items_without_a_text_are_skipped(lm: Path, windows, texts) -> None:
    task = task_of(lm, windows, texts)
    assert task.size == 12 and task.left_out == 1 and len(task.windows[0]) == 4
    assert task.facts["items"] == 8 and task.facts["texts"] == 7
    same = task.vectors(np.array([6, 7, 0])).detach()
    torch.testing.assert_close(same[0], same[1])
    assert not torch.allclose(same[0], same[2])


def test_a_base_that_tells_no_items_apart_is_refused(lm: Path, windows, texts) -> None:
    """Where every pair is above the bound no negative is left; the share is told besides."""
    task = task_of(lm, windows, texts)
    with torch.no_grad():
        own = torch.nn.functional.normalize(task.vectors(np.arange(7)), dim=1)
    pairs = (own @ own.T)[~torch.eye(7, dtype=torch.bool)]
    bound = float(pairs.sort().values[-6])  # three pairs, both ways, lie at or above it
    some = task_of(lm, windows, texts, same=bound - 1e-5)
    assert (
        some.facts["alike_before"] == some.facts["alike_after"] == pytest.approx(6 / 42, abs=1e-4)
    )
    with pytest.raises(TuneError, match="set same = 1"):
        task_of(lm, windows, texts, same=float(pairs.min()) - 1e-5)
    assert task_of(lm, windows, texts, same=1.0).facts["alike_before"] == 0


def test_negatives_follow_from_seed_epoch_and_rows(lm: Path, windows, texts) -> None:
    task = task_of(lm, windows, texts)
    one, rows = task.drawn(np.array([3, 1]), 0), np.array([3, 1])
    np.testing.assert_array_equal(one, task.drawn(rows, 0))
    assert len(set(one.tolist())) == 5 and one.max() < 8
    assert one.tolist() != task.drawn(rows, 1).tolist()
    assert len(task_of(lm, windows, texts, negatives=99).drawn(rows, 0)) == 8


def test_the_scale_is_bounded(lm: Path, windows, texts) -> None:
    task = task_of(lm, windows, texts)
    assert task.facts["scale"] == pytest.approx(1 / 0.07)
    with torch.no_grad():
        task.module.log_scale.fill_(9.0)
    task.backward(np.array([0, 1]), 0)
    assert float(task.module.log_scale.detach().exp()) == pytest.approx(100.0)
    assert task.module.log_scale.grad is not None


@pytest.mark.parametrize("full", [False, True])
def test_recomputed_states_give_the_same_gradients(lm: Path, windows, texts, full: bool) -> None:
    """In parts of a few tokens, with dropout at work, and with both models' gradients."""
    found = []
    for recompute in (False, True):
        lora = Lora(rank=2, dropout=0.2, targets=("all",))
        how = dataclasses.replace(HOW, recompute=recompute, full=full, lora=lora)
        task = how.objective(Base(lm, batch_tokens=16), windows, texts)
        task.module.train()
        torch.manual_seed(1)
        loss = task.backward(np.array([1, 2]), 0)
        grads = {n: p.grad for n, p in task.module.named_parameters() if p.grad is not None}
        found.append((loss, grads))
    (one, first), (two, second) = found
    assert one == pytest.approx(two, rel=1e-6) and set(first) == set(second)
    assert {n.split(".")[0] for n in first} == {"item", "user", "token", "log_scale"}
    assert any(float(g.abs().max()) > 0 for n, g in first.items() if n.startswith("item."))
    for name, grad in first.items():
        torch.testing.assert_close(second[name], grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", [{}, {"full": True}, {"token": False}])
def test_tuned_published_and_read(
    lm: Path, windows, texts, tmp_path: Path, how: dict[str, Any]
) -> None:
    """The encoder with what was published has the task's vectors, alone and in any packing."""
    task = task_of(lm, windows, texts, **how, epochs=6)
    facts = run(task, task.how, tmp_path / "work")
    assert facts["losses"][-1]["loss"] < facts["losses"][0]["loss"]
    task.publish(tmp_path)
    assert {f.suffix for f in tmp_path.glob("[au]*/*")} == {".safetensors", ".json"}
    name = f"{lm}?pooling=last&normalize=0"
    encoder = make_encoder(name, adapter=tmp_path / "adapter")
    with torch.no_grad():
        wanted = task.vectors(np.arange(8)).numpy()
    packed = encoder.encode(texts["text"].to_pylist())
    np.testing.assert_allclose(packed, wanted, atol=1e-3, rtol=1e-3)
    alone = np.concatenate([encoder.encode([t]) for t in texts["text"].to_pylist()])
    np.testing.assert_allclose(alone, packed, atol=1e-4, rtol=1e-4)
    half = make_encoder(f"{name}&dtype=bfloat16", adapter=tmp_path / "adapter")
    one, two = half.encode(texts["text"].to_pylist()), half.encode([texts["text"][3].as_py()])
    assert cosines(one[[3]], two[0])[0] > 0.999 and cosines(one[[3]], packed[3])[0] > 0.99
    plain = make_encoder(name).encode(texts["text"].to_pylist())
    assert np.abs(plain - packed).max() > 1e-2
    rows = [wanted[[0, 1, 2]], wanted[[3]]]
    found = task.how.states(Base(lm), tmp_path, rows)
    with torch.no_grad():
        states, _ = task.user_states([torch.from_numpy(r) for r in rows])
    np.testing.assert_allclose(found, np.stack([states[0, 2], states[1, 0]]), atol=1e-3, rtol=1e-3)
    reader = task.how.reader(Base(lm), tmp_path, None)
    layers = reader([torch.from_numpy(r) for r in rows])
    assert len(layers) == 4 and reader.device == torch.device("cpu")
    np.testing.assert_allclose(layers[0], np.stack([wanted[2], wanted[3]]), atol=1e-5)
    np.testing.assert_allclose(layers[-1], found, atol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_in_bfloat16_what_is_trained_stays_in_float32(
    lm: Path, windows, texts, tmp_path: Path, full: bool
) -> None:
    how = dataclasses.replace(HOW, full=full)
    losses = []
    for dtype in ("float32", "bfloat16"):
        task = how.objective(Base(lm, pooling="last", dtype=dtype), windows, texts)
        losses.append(task.backward(np.arange(4), 0))
        trained = [p for p in task.module.parameters() if p.grad is not None]
        assert {p.dtype for p in trained} == {torch.float32}
        assert all(bool(torch.isfinite(p.grad).all()) for p in trained)
    assert losses[1] != losses[0] and losses[1] == pytest.approx(losses[0], rel=0.05)
    run(task, dataclasses.replace(how, epochs=1), tmp_path)


def test_the_token_is_part_of_the_identity(lm: Path, windows, texts, tmp_path: Path) -> None:
    task = task_of(lm, windows, texts)
    task.publish(tmp_path)
    before = adapter_sha256(tmp_path / "adapter")
    with torch.no_grad():
        task.module.token.add_(1.0)
    task.publish(tmp_path)
    assert adapter_sha256(tmp_path / "adapter") != before
    assert json.loads((tmp_path / "user" / "adapter_config.json").read_text())["r"] == 2
