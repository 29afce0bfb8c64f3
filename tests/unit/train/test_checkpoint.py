"""A killed training ends in the weights of one that was left alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from llmers_pipelines.api import knowledge, knowledge_links
from llmers_pipelines.data.training import Field, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.enhance.training_statistics import TrainingStatistics
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.orchestrate.backbones import backbones
from llmers_pipelines.plan import PlanError, Table, Train, canonical
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.checkpoint_net import PROGRESS, TENSORS, Checkpoint
from llmers_pipelines.train.loop import fit, run_epochs
from llmers_pipelines.train.trained import Interrupted

EPOCHS = 5
SMALL = {
    "dim": 8, "inner": 16, "hidden": 12, "max_len": 6, "mlp": (8,), "tower": (4,), "length": 3,
    "horizontal": 4, "vertical": 2, "attention": 8, "negatives": 8, "bottom": (8,), "heads": 2,
    "auxiliary": 0.5,
}  # fmt: skip
# What a backbone reads beside the log, by the setting that names it.
READ = {"kg": knowledge, "link": knowledge_links, "vectors": Table("vectors")}


class Killed(BaseException):
    """What no handler of the loop stops."""


def small(kind: type) -> Any:
    """Return the backbone at a size that trains in a moment, dropout and all."""
    wanted = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    default = kind(*(READ[name] for name in wanted))
    known = {f.name: getattr(default, f.name) for f in dataclasses.fields(kind)}
    settings = {n: v for n, v in SMALL.items() if type(known.get(n)) is type(v)}
    if kind.closed_form:
        return dataclasses.replace(default, **settings)
    how = dataclasses.replace(
        default.fit, epochs=EPOCHS, min_epochs=EPOCHS, batch=16, eval_every=2, schedule="cosine"
    )
    return dataclasses.replace(default, fit=how, **settings)


def clicks(task: str) -> TrainingData:
    rng = np.random.default_rng(3)
    users, items, rows = 12, 10, 12
    user = np.repeat(np.arange(1, users + 1), rows)
    item = rng.integers(1, items + 1, len(user))
    split = np.tile(np.array([0] * 8 + [1] * 2 + [2] * 2, np.int8), users)
    label = (rng.random(len(user)) < 0.5).astype(np.float32)
    label[::4], label[1::4] = 1, 0
    words = rng.integers(1, 9, (items + 1, 4)).astype(np.int32)
    words[0] = 0
    vocabulary = tuple(f"w{i}" for i in range(9))
    return TrainingData(
        task, IdMap(tuple(f"u{i}" for i in range(users))),
        IdMap(tuple(f"i{i}" for i in range(items))), user, item, np.arange(len(user)), split,
        label=label, rating=1 + 4 * label if task == "rating" else None,
        item_texts={"title": Field(words, vocabulary)},
        scenario=Field(rng.integers(1, 3, len(user)).astype(np.int32), ("home", "search")),
        impression=np.arange(len(user)) // 2 + 1,
    )  # fmt: skip


def log_for(backbone: Any) -> TrainingData:
    task = "sequential" if "sequential" in backbone.tasks else sorted(backbone.tasks)[0]
    if task in ("sequential", "collaborative"):
        return planted_rings(n_users=30, n_items=20).data
    return clicks(task)


def inputs_for(data: TrainingData) -> dict[Any, Any]:
    """Return triples that give each item one of three kinds, and a vector of each item."""
    ids = data.items.ids
    kinds = [f"kind{n % 3}" for n in range(len(ids))]
    vectors = np.random.default_rng(4).normal(size=(len(ids), 6)).astype(np.float32)
    return {
        knowledge: pa.table({
            "head_id": [f"e{i}" for i in ids], "relation": ["of"] * len(ids), "tail_id": kinds,
        }),
        knowledge_links: pa.table({"item_id": list(ids), "entity_id": [f"e{i}" for i in ids]}),
        READ["vectors"]: VectorTable("item", ids, vectors, np.ones(len(ids), bool)),
    }  # fmt: skip


def node(backbone: Any, data: TrainingData) -> Train:
    return Train(backbone, Table("splits", task=data.task))


def weights(trained: Any) -> dict[str, np.ndarray]:
    return {**trained.state, **trained.export()[1]}


def stopped(at: int, how: type[BaseException] = Killed) -> Any:
    def progress(record: dict[str, Any]) -> None:
        if record["epoch"] == at:
            raise how

    return progress


def without_seconds(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


TRAINED = [s for s, k in backbones().items() if not k.closed_form]


@pytest.mark.parametrize("slug", TRAINED)
def test_a_killed_training_ends_as_if_it_had_not_been(slug: str, tmp_path: Path) -> None:
    backbone = small(backbones()[slug])
    data = log_for(backbone)
    train, inputs = node(backbone, data), inputs_for(data)
    whole = fit(train, data, inputs, seed=3)
    with pytest.raises(Killed):
        fit(train, data, inputs, seed=3, progress=stopped(3), checkpoint=Checkpoint(tmp_path, 0.0))
    torch.manual_seed(77)  # another process stands elsewhere
    kept = Checkpoint(tmp_path, 0.0)
    heard: list[dict[str, Any]] = []
    again = fit(train, data, inputs, seed=3, progress=heard.append, checkpoint=kept)
    assert kept.resumed_at == 3 and [r["epoch"] for r in heard] == list(range(1, EPOCHS + 1))
    assert without_seconds(again.epochs) == without_seconds(whole.epochs)
    assert (again.best_epoch, again.best_valid) == (whole.best_epoch, whole.best_valid)
    one, other = weights(whole), weights(again)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def test_a_part_goes_on_in_its_own_random_stream(tmp_path: Path) -> None:
    from test_loop import Noisy

    backbone = small(backbones()["sasrec"])
    data = log_for(backbone)
    train = dataclasses.replace(node(backbone, data), aux=(Noisy(0.5),))
    whole = fit(train, data, {}, seed=0)
    with pytest.raises(Killed):
        fit(train, data, {}, seed=0, progress=stopped(2), checkpoint=Checkpoint(tmp_path, 0.0))
    again = fit(train, data, {}, seed=0, checkpoint=Checkpoint(tmp_path, 0.0))
    assert without_seconds(again.epochs) == without_seconds(whole.epochs)
    assert all(np.array_equal(a, again.state[n]) for n, a in whole.state.items())


@pytest.mark.parametrize("at", [1, 2, 4])
def test_what_a_part_recorded_of_the_epochs_is_kept(at: int, tmp_path: Path) -> None:
    """Killed before anything is recorded, while the record grows, and after its oldest row left."""
    backbone = small(backbones()["lightgcn"])
    data = dataclasses.replace(log_for(backbone), task="collaborative")
    train = dataclasses.replace(node(backbone, data), aux=(TrainingStatistics(last=2),))
    whole = fit(train, data, {}, seed=0).beside["statistics"]
    with pytest.raises(Killed):
        fit(train, data, {}, seed=0, progress=stopped(at), checkpoint=Checkpoint(tmp_path, 0.0))
    kept = Checkpoint(tmp_path, 0.0)
    again = fit(train, data, {}, seed=0, checkpoint=kept).beside["statistics"]
    assert kept.resumed_at == at and set(again["epochs"].to_pylist()) == {2}
    assert again.num_rows > 0 and again.equals(whole)


def test_patience_counts_on_where_it_was(tmp_path: Path) -> None:
    from test_loop import Counter, Scripted

    how = Fit(lr=1.0, epochs=50, min_epochs=1, patience=3)
    with pytest.raises(Killed):
        run_epochs(
            Counter(), Scripted([0.1, 0.5, 0.2, 0.3]), how, "test", stopped(4),
            checkpoint=Checkpoint(tmp_path, 0.0),
        )  # fmt: skip
    model = Counter()
    kept = Checkpoint(tmp_path, 0.0)
    records, best = run_epochs(model, Scripted([0.4, 0.9]), how, "test", checkpoint=kept)
    assert [r["valid"] for r in records] == [0.1, 0.5, 0.2, 0.3, 0.4]
    assert best == {"epoch": 2, "valid": 0.5}
    assert float(model.weight.detach()) == pytest.approx(2.0, abs=1e-4)
    # a training that ended right before it was killed takes no step more
    records, _ = run_epochs(Counter(), Scripted([]), how, "test", checkpoint=kept)
    assert len(records) == 5


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Train, TrainingData, Path]:
    """Return a training that was killed after its second epoch."""
    backbone = small(backbones()["gru4rec"])
    data = log_for(backbone)
    train = node(backbone, data)
    with pytest.raises(Killed):
        fit(train, data, {}, seed=0, progress=stopped(2), checkpoint=Checkpoint(tmp_path, 0.0))
    return train, data, tmp_path


def test_files_are_safetensors_and_json_and_one_epoch_is_kept(kept: Any) -> None:
    _, _, folder = kept
    assert [p.name for p in folder.iterdir()] == ["epoch-000002"]
    assert sorted(p.name for p in (folder / "epoch-000002").iterdir()) == [PROGRESS, TENSORS]


def test_nothing_is_written_before_its_time_comes(tmp_path: Path) -> None:
    backbone = small(backbones()["sasrec"])
    data = log_for(backbone)
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    written: list[int] = []
    checkpoint = Checkpoint(tmp_path, 9.0, clock=clock)

    def progress(record: dict[str, Any]) -> None:
        if list(tmp_path.glob("epoch-*")):
            written.append(record["epoch"])

    fit(node(backbone, data), data, {}, seed=0, progress=progress, checkpoint=checkpoint)
    assert written == []  # five looks at the clock
    now[0] = 100.0
    fit(node(backbone, data), data, {}, seed=0, progress=progress, checkpoint=checkpoint)
    assert written[0] == 1


def test_who_stops_a_training_on_purpose_keeps_its_last_epoch(tmp_path: Path) -> None:
    backbone = small(backbones()["sasrec"])
    data = log_for(backbone)
    slow = Checkpoint(tmp_path, 1e9)
    with pytest.raises(Interrupted):
        fit(node(backbone, data), data, {}, seed=0, progress=stopped(2, Interrupted),
            checkpoint=slow)  # fmt: skip
    kept = Checkpoint(tmp_path, 1e9)
    fit(node(backbone, data), data, {}, seed=0, checkpoint=kept)
    assert kept.resumed_at == 2
    kept.discard()
    assert not tmp_path.exists()


@pytest.mark.parametrize("fault", ["cut", "no json", "other torch", "other model"])
def test_what_does_not_fit_is_told_and_training_starts_anew(kept: Any, fault: str) -> None:
    train, data, folder = kept
    place = folder / "epoch-000002"
    told = json.loads((place / PROGRESS).read_text())
    if fault == "cut":
        (place / TENSORS).write_bytes((place / TENSORS).read_bytes()[:100])
    elif fault == "no json":
        (place / PROGRESS).write_text("{")
    elif fault == "other torch":
        (place / PROGRESS).write_text(json.dumps({**told, "made_with": "torch 1.0 on cpu"}))
    else:
        (place / PROGRESS).write_text(json.dumps({**told, "names": {"w": [1]}}))
    lines: list[str] = []
    checkpoint = Checkpoint(folder, 0.0, lines.append)
    again = fit(train, data, {}, seed=0, checkpoint=checkpoint)
    whole = fit(train, data, {}, seed=0)
    assert checkpoint.resumed_at == 0 and len(lines) == 1 and "checkpoint epoch-000002" in lines[0]
    assert all(np.array_equal(a, again.state[n]) for n, a in whole.state.items())


def test_time_before_the_kill_counts(kept: Any) -> None:
    train, data, folder = kept
    place = folder / "epoch-000002" / PROGRESS
    told = json.loads(place.read_text())
    place.write_text(json.dumps({**told, "spent": {"seconds": 1000.0, "cpu_seconds": 500.0}}))
    checkpoint = Checkpoint(folder, 0.0)
    trained = fit(train, data, {}, seed=0, checkpoint=checkpoint)
    assert 1000 < trained.seconds < 1100 and 500 < checkpoint.spent()["cpu_seconds"] < 600


# Clipping and precision


class Steep(nn.Module):
    """Its gradient is 30 in one weight and 40 in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.hooks = nn.ModuleList()
        self.seen: list[torch.Tensor] = []
        self.weight.register_post_accumulate_grad_hook(
            lambda p: self.seen.append(p.grad.clone())  # before it is clipped
        )

    def loss(self, batch: Any) -> torch.Tensor:
        return (self.weight * torch.tensor([30.0, 40.0])).sum()


def test_the_gradient_is_bounded_by_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_loop import Scripted

    used: list[list[float]] = []
    real = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **more: Any) -> Any:
        used.append(self.param_groups[0]["params"][0].grad.tolist())
        return real(self, *args, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    for clip in (5.0, 0.0):
        how = Fit(lr=0.1, epochs=1, min_epochs=1, clip=clip)
        run_epochs(Steep(), Scripted([0.1]), how, "test")
    assert used[0] == pytest.approx([3.0, 4.0], rel=1e-5)  # the norm 50 becomes 5
    assert used[1] == [30.0, 40.0]


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "bert4rec"])
def test_half_precision_trains_and_is_another_result(name: str) -> None:
    backbone = small(backbones()[name])
    data = log_for(backbone)
    half = dataclasses.replace(
        backbone, fit=dataclasses.replace(backbone.fit, precision="bfloat16")
    )
    one, other = (fit(node(b, data), data, {}, seed=0) for b in (backbone, half))
    assert all(a.dtype == other.state[n].dtype for n, a in one.state.items())
    assert any(not np.array_equal(a, other.state[n]) for n, a in one.state.items())
    losses = [[e["train_loss"] for e in t.epochs] for t in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize(("capability", "told"), [("AVX2", True), ("AVX512", False)])
def test_a_cpu_that_emulates_bfloat16_is_told(
    capability: str, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    backbone = small(backbones()["sasrec"])
    data = log_for(backbone)
    for precision in ("float32", "bfloat16"):
        how = dataclasses.replace(backbone.fit, precision=precision, epochs=1, min_epochs=1)
        fit(node(dataclasses.replace(backbone, fit=how), data), data, {}, seed=0)
    expected = ["fit.precision is bfloat16, which this CPU (AVX2) emulates"] * told
    assert [m.partition(": ")[2].partition(", some")[0] for m in caplog.messages] == expected


def test_defaults_leave_the_identity_of_stored_trainings() -> None:
    log = Table("splits", task="sequential")
    assert canonical(Fit(), inputs=False)[2].keys() == {
        "lr",
        "batch",
        "epochs",
        "min_epochs",
        "patience",
        "eval_every",
        "weight_decay",
        "schedule",
        "metric",
    }  # what cells were stored under before there was more
    four = (Fit(), Fit(clip=1.0), Fit(precision="bfloat16"), Fit(weigh="batch"))
    assert len({Train(f, log).code_version for f in four}) == 4
    with pytest.raises(PlanError, match=r"fit.precision is 'half'; use one of float32, bfloat16"):
        Fit(precision="half")
    with pytest.raises(PlanError, match=r"fit.clip is -1"):
        Fit(clip=-1.0)
