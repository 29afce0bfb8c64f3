from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from llmers_pipelines.data.training import HISTORY, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.seams import Enhancement
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import choose_device, fit, load_loader, run_epochs, set_rate

LOG = Table("splits", task="sequential")
FIT = Fit(lr=3e-3, batch=16, epochs=3, min_epochs=1, patience=2)
SMALL = SASRec(dim=8, inner=16, dropout=0.3, max_len=6, fit=FIT)
BACKBONES = [SMALL, LightGCN(dim=8, fit=FIT), BPRMF(dim=8, loss="bpr", fit=FIT)]
backbones = pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: type(b).__name__)


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=40, n_items=20).data


class Scripted:
    """A loader whose validation values are given."""

    steps_per_epoch = 1

    def __init__(self, values):
        self.values = iter(values)

    def epoch(self, number):
        yield self

    def to(self, device):
        return self

    def validate(self, model):
        return next(self.values)


class Counter(nn.Module):
    """Its one weight grows by lr per step, so it tells how many steps it has seen."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.hooks = nn.ModuleList()

    def loss(self, batch):
        return -self.weight


def run(values, **how):
    model = Counter()
    settings = {"lr": 1.0, "epochs": 50, "min_epochs": 1, "patience": 2, **how}
    return model, *run_epochs(model, Scripted(values), Fit(**settings), "test")


def test_the_best_weights_are_kept_and_patience_counts_evaluations():
    model, records, best = run([0.1, 0.3, 0.2, 0.3, 0.9])
    assert [r["valid"] for r in records] == [0.1, 0.3, 0.2, 0.3]  # an equal value is no gain
    assert best == {"epoch": 2, "valid": 0.3}
    assert float(model.weight.detach()) == pytest.approx(2.0, abs=1e-4)
    assert set(records[0]) == {"epoch", "train_loss", "valid", "seconds"}


def test_no_stop_before_min_epochs():
    _, records, best = run([0.5] + [0.1] * 9, min_epochs=8)
    assert (len(records), best["epoch"]) == (8, 1)


def test_evaluation_every_few_epochs_and_always_at_the_end():
    _, records, _ = run([0.1, 0.2, 0.3], epochs=7, eval_every=3)
    assert [r["valid"] for r in records] == [None, None, 0.1, None, None, 0.2, 0.3]


def test_no_number_from_validation_is_an_error():
    with pytest.raises(ValueError, match="validation gave no number in 2 epochs"):
        run([math.nan] * 3, epochs=3)


def test_a_diverged_loss_stops_with_the_mend():
    class Diverged(Counter):
        def loss(self, batch):
            return self.weight * math.nan

    with pytest.raises(FloatingPointError, match=r"in epoch 1; lower fit.lr \(now 1.0\)"):
        run_epochs(Diverged(), Scripted([0.1]), Fit(lr=1.0), "test")


def test_cosine_schedule_falls_from_lr_to_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=9.0)
    rates = []
    for progress in (0.0, 0.5, 1.0):
        set_rate(optimizer, Fit(lr=2.0, schedule="cosine"), progress)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([2.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="unknown schedule 'step'"):
        set_rate(optimizer, Fit(schedule="step"), 0.0)


@backbones
def test_the_loop_is_plain_steps_of_adamw_bit_for_bit(backbone, data):
    """What cells were trained by: stored results stand only while this holds."""
    how = dataclasses.replace(FIT, weight_decay=0.01, patience=9)
    backbone = dataclasses.replace(backbone, fit=how)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = backbone.build(data, 5)
        loader = load_loader(backbone.loader)(data, backbone, 5)
        optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, weight_decay=0.01, fused=True)
        kept, values = [], []
        for number in range(1, how.epochs + 1):
            model.train()
            for batch in loader.epoch(number):
                optimizer.zero_grad(set_to_none=True)
                model.loss(batch).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                values.append(loader.validate(model))
            kept.append({k: v.clone() for k, v in model.state_dict().items()})
    trained = fit(Train(backbone, LOG), data, {}, seed=5)
    assert [r["valid"] for r in trained.epochs] == values
    best = kept[int(np.argmax(values))]
    assert all(np.array_equal(v.numpy(), trained.state[k]) for k, v in best.items())


def test_progress_hears_every_epoch(data):
    heard = []
    trained = fit(Train(SMALL, LOG), data, {}, seed=0, progress=heard.append)
    assert heard == trained.epochs
    assert trained.best_valid == max(r["valid"] for r in heard)
    assert trained.best_epoch == 1 + int(np.argmax([r["valid"] for r in heard]))


# Off switch: what an enhancement must not change


@dataclasses.dataclass(frozen=True)
class Noisy(Enhancement):
    """Draws random numbers in its construction, in a seam and in its loss, all with weight 0."""

    weight: float = 0.0

    def attach(self, model, data, inputs, seed):
        return NoisyHook(self.weight, model.item_table.weight.shape[1])


class NoisyHook(nn.Module):
    def __init__(self, weight, dim):
        super().__init__()
        self.weight, self.map = weight, nn.Linear(dim, dim)

    def item_output(self, model, nxt, ids):
        out = nxt(ids)
        with self.stream():
            noise = torch.rand_like(out)
        return out + self.weight * self.map(noise)

    def extra_loss(self, model, batch, states):
        return self.weight * (states * torch.rand_like(states)).mean()


def after_twenty_steps(backbone, data, parts=()):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = backbone.build(data, 3)
        attach_parts(model, parts, data, {}, 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        loader = load_loader(backbone.loader)(data, backbone, 3)
        batches = itertools.chain.from_iterable(loader.epoch(n) for n in itertools.count(1))
        for batch in itertools.islice(batches, 20):
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
    return {k: v for k, v in model.state_dict().items() if not k.startswith("hooks.")}


@backbones
def test_an_inert_hook_leaves_the_backbone_as_it_was(backbone, data):
    base = after_twenty_steps(backbone, data)
    inert = after_twenty_steps(backbone, data, (Noisy(0.0),))
    active = after_twenty_steps(backbone, data, (Noisy(0.5),))
    for name in base:
        torch.testing.assert_close(inert[name], base[name], atol=1e-6, rtol=0)
    assert any(not torch.allclose(active[n], base[n], atol=1e-3) for n in base)


@backbones
def test_removed_enhancements_are_the_backbone_bit_for_bit(backbone, data):
    base = fit(Train(backbone, LOG), data, {}, seed=0).export()[1]
    removed = fit(Train(backbone, LOG, init=(), fuse=(), aux=()), data, {}, seed=0).export()[1]
    inert = fit(Train(backbone, LOG, aux=(Noisy(0.0),)), data, {}, seed=0).export()[1]
    assert all(np.array_equal(base[k], removed[k]) for k in base)
    assert all(np.allclose(base[k], inert[k], atol=1e-6) for k in base)


def test_item_hooks_are_folded_into_the_served_table(data):
    trained = fit(Train(SMALL, LOG, fuse=(Shift(),)), data, {}, seed=0)
    config, arrays = trained.export()
    assert config["hooks"] == []
    np.testing.assert_allclose(arrays["output_table"], arrays["item_table.weight"] + 0.5)


@dataclasses.dataclass(frozen=True)
class Shift(Enhancement):
    def attach(self, model, data, inputs, seed):
        class ShiftHook(nn.Module):
            def item_output(self, model, nxt, ids):
                return nxt(ids) + 0.5

        return ShiftHook()


# What is refused


def test_a_missing_seam_is_named_before_training(data):
    @dataclasses.dataclass(frozen=True)
    class Wants(Enhancement):
        needs = frozenset({"hidden_states"})

    with pytest.raises(PlanError, match=r"Wants needs the seam 'hidden_states'.*LightGCN"):
        fit(Train(LightGCN(), LOG, aux=(Wants(),)), data, {}, seed=0)


def test_unsuitable_logs_are_refused_with_the_mend(data):
    with pytest.raises(ValueError, match=r"task 'ctr', SASRec is for \['sequential'\]"):
        fit(Train(SMALL, LOG), dataclasses.replace(data, task="ctr"), {}, seed=0)
    no_valid = dataclasses.replace(data, split=np.where(data.split == VALID, TRAIN, data.split))
    with pytest.raises(ValueError, match="has no validation rows"):
        fit(Train(SMALL, LOG), no_valid, {}, seed=0)


def test_an_absent_device_is_refused():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="finds no CUDA device; set the device to 'cpu'"):
            choose_device("cuda")


# Loaders


def rows(user, item, split, n_items=9):
    users = IdMap(tuple(f"u{u}" for u in range(1, max(user) + 1)))
    return TrainingData(
        "sequential", users, IdMap(tuple(f"i{i}" for i in range(1, n_items + 1))),
        np.array(user), np.array(item), np.arange(len(user)), np.array(split, np.int8),
    )  # fmt: skip


def test_sequences_supervise_every_position_once():
    data = rows([1] * 7 + [2] * 3, [1, 2, 3, 4, 5, 6, 7, 8, 9, 1], [0] * 6 + [1] + [0, 0, 1])
    backbone = dataclasses.replace(SMALL, max_len=3)
    pairs = {}
    for batch in load_loader("sequence")(data, backbone, 0).epoch(1):
        for user, items, targets in zip(batch.user, batch.items, batch.targets, strict=True):
            for i, t in zip(items.tolist(), targets.tolist(), strict=True):
                assert (i > 0) == (t > 0)
                if t:
                    pairs.setdefault(int(user), []).append((i, t))
    assert sorted(pairs[1]) == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]  # not 7: validation
    assert pairs[2] == [(8, 9)]


def test_history_rows_are_inputs_but_no_targets():
    data = rows([1, 1, 1, 1], [1, 2, 3, 4], [HISTORY, HISTORY, TRAIN, VALID])
    (batch,) = load_loader("sequence")(data, SMALL, 0).epoch(1)
    assert batch.items.tolist() == [[1, 2]]
    assert batch.targets.tolist() == [[0, 3]]


@pytest.mark.parametrize("kind", ["sequence", "pair"])
def test_epochs_differ_but_repeat_under_their_seed(kind, data):
    backbone = SMALL if kind == "sequence" else BPRMF(loss="bpr", fit=FIT)
    loader = load_loader(kind)

    def users(number, seed=0):
        return [b.user.tolist() for b in loader(data, backbone, seed).epoch(number)]

    assert users(1) == users(1)
    assert users(1) != users(2) != users(1, seed=1)
    assert len(users(1)) == loader(data, backbone, 0).steps_per_epoch
    flat = [sorted(itertools.chain.from_iterable(users(n))) for n in (1, 2)]
    assert flat[0] == flat[1]


def test_negatives_are_never_items_of_the_user_and_cover_the_rest(data):
    loader = load_loader("pair")(data, BPRMF(loss="bpr", fit=FIT), 0)
    train = data.split == TRAIN
    seen = set(zip(data.user[train].tolist(), data.item[train].tolist(), strict=True))
    drawn = set()
    for number in range(1, 30):
        for batch in loader.epoch(number):
            assert batch.negative.shape == (len(batch.user), 1)
            drawn |= set(zip(batch.user.tolist(), batch.negative[:, 0].tolist(), strict=True))
    assert not drawn & seen
    everything = {(u, i) for u in range(1, 41) for i in range(1, 21)}
    assert len(drawn) > 0.95 * len(everything - seen)


def test_shared_negatives_are_one_row_per_batch(data):
    loader = load_loader("pair")(data, BPRMF(negatives=7, fit=FIT), 0)
    batch = next(iter(loader.epoch(1)))
    assert batch.negative.shape == (1, 7)
    assert int(batch.negative.min()) >= 1


def test_a_user_with_every_item_has_no_negative():
    data = rows([1, 1, 1], [1, 2, 3], [0, 0, 0], n_items=3)
    with pytest.raises(ValueError, match="a user has all 3 items in training"):
        load_loader("pair")(data, BPRMF(loss="bpr"), 0)
