"""Contrastive tuning: the losses by hand, views that come closer, an encoder with its adapter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.encode.encoder import make_encoder
from llmers_pipelines.models.contrast_net import info_nce, soft_target
from llmers_pipelines.plan import PlanError
from llmers_pipelines.tune.contrast import Contrast
from llmers_pipelines.tune.loop_net import run
from llmers_pipelines.tune.lora_net import save_adapter
from llmers_pipelines.tune.tuner import Base, Lora, TuneError

HOW = Contrast(lora=Lora(rank=4, dropout=0.0), lr=5e-3, batch=6, epochs=30, tau=0.1)


def test_soft_targets_by_hand() -> None:
    """X = Y = I: .58220 at tau 1, .53368 at tau 2; rows of Y swapped: 1.04432. Never zero."""
    eye = torch.eye(2)
    assert float(soft_target(eye, eye, 1.0)) == pytest.approx(0.58220, abs=1e-5)
    assert float(soft_target(eye, eye, 2.0)) == pytest.approx(0.53368, abs=1e-5)
    assert float(soft_target(eye, eye.flip(0), 1.0)) == pytest.approx(1.04432, abs=1e-5)


def test_info_nce_by_hand() -> None:
    """Orthogonal pairs at tau 1: -log(e / (e + 1)); lengths do not count, order does."""
    eye = torch.eye(2)
    assert float(info_nce(eye, 7 * eye, 1.0)) == pytest.approx(np.log(1 + np.exp(-1)), abs=1e-6)
    assert float(info_nce(eye, eye.flip(0), 1.0)) == pytest.approx(np.log(1 + np.e), abs=1e-6)
    x, y = torch.randn(5, 3), torch.randn(5, 3)
    assert float(info_nce(x, y, 0.3)) == pytest.approx(float(info_nce(y, x, 0.3)), abs=1e-6)


@pytest.fixture(scope="module")
def views() -> pa.Table:
    words = ("sea", "sand", "moon", "rain", "wood", "iron")
    return pa.table({
        "example_id": list(words), "first": [[f"about {w}", f"{w} again"] for w in words],
        "second": [[f"the {w}", f"of {w}"] for w in words],
    })  # fmt: skip


def vectors(lm: Path, texts: list[str], adapter: Path | None = None) -> np.ndarray:
    name = f"{lm}?pooling=mean&normalize=1"
    return make_encoder(name, adapter=adapter).encode(texts)


@pytest.mark.parametrize("loss", ["info_nce", "soft_target"])
def test_views_come_closer(lm: Path, views: pa.Table, tmp_path: Path, loss: Any) -> None:
    how = dataclasses.replace(HOW, loss=loss, tau=0.1 if loss == "info_nce" else 3.0,
                              lr=5e-3 if loss == "info_nce" else 1e-3,
                              learn_tau=loss == "soft_target")  # fmt: skip
    task = how.objective(Base(lm), views)
    facts = run(task, how, tmp_path / "steps")
    assert facts["losses"][-1]["loss"] < facts["losses"][0]["loss"]
    assert (task.facts["tau"] != pytest.approx(how.tau)) == how.learn_tau
    if loss == "soft_target":
        return
    save_adapter(task.module.encoder, tmp_path / "adapter")
    first, second = ([c[0] for c in views[n].to_pylist()] for n in ("first", "second"))
    before = vectors(lm, first) @ vectors(lm, second).T
    after = vectors(lm, first, tmp_path / "adapter") @ vectors(lm, second, tmp_path / "adapter").T

    def margin(cos: np.ndarray) -> float:
        return float(cos.diagonal().mean() - cos[~np.eye(len(cos), dtype=bool)].mean())

    assert margin(after) > margin(before) + 0.1


def test_pairs_take_turns_and_a_kill_costs_nothing(
    lm: Path, views: pa.Table, tmp_path: Path
) -> None:
    how = dataclasses.replace(HOW, epochs=3)
    whole = how.objective(Base(lm), views)
    told = run(whole, how, tmp_path / "whole")
    assert told["losses"][0]["loss"] != told["losses"][1]["loss"]
    cut = how.objective(Base(lm), views)
    backward, calls = cut.backward, iter(range(9))

    def dying(rows: Any, epoch: int) -> float:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return backward(rows, epoch)

    cut.backward = dying
    with pytest.raises(KeyboardInterrupt):
        run(cut, how, tmp_path / "cut", checkpoint_seconds=0)
    again = how.objective(Base(lm), views)
    assert run(again, how, tmp_path / "cut")["resumed_from"] == 2
    for (n, a), (_, b) in zip(whole.module.named_parameters(), again.module.named_parameters(),
                              strict=True):  # fmt: skip
        assert torch.equal(a, b), n


def test_an_encoder_with_an_adapter_is_another_encoder(
    lm: Path, views: pa.Table, tmp_path: Path
) -> None:
    how = dataclasses.replace(HOW, epochs=1)
    task = how.objective(Base(lm), views)
    run(task, how, tmp_path / "steps")
    save_adapter(task.module.encoder, tmp_path / "a")
    plain, adapted = make_encoder(str(lm)), make_encoder(str(lm), adapter=tmp_path / "a")
    assert adapted.info.identity.startswith(plain.info.identity)
    assert adapted.info.identity != plain.info.identity
    with pytest.raises(ValueError, match="no transformer"):
        make_encoder("tfidf", adapter=tmp_path / "a")


def test_what_cannot_be_contrasted(lm: Path, views: pa.Table) -> None:
    with pytest.raises(TuneError, match="'sea': 2 first and 1 second"):
        HOW.objective(Base(lm), views.slice(0, 1).set_column(2, "second", pa.array([["x"]])))
    with pytest.raises(TuneError, match="at least two"):
        HOW.objective(Base(lm), views.slice(0, 1))
    with pytest.raises(PlanError, match="info_nce"):
        Contrast(loss="other")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="at least 2"):
        Contrast(batch=1)
