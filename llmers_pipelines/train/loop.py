"""The one training loop: every backbone, every enhancement, the same selection rule."""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any, Protocol

import numpy as np
import torch

from ..data.training import TrainingData
from ..models.fit import Fit
from ..models.hooks_net import attach_parts, training_log
from ..models.ranking_net import full_metric
from ..models.seams import check_seams
from ..models.served import fold
from ..plan import Node, Train
from .checkpoint_net import Checkpoint, Progress
from .optimizer_net import optimizer_of
from .trained import Interrupted, Trained

_log = logging.getLogger(__name__)
LOADERS = {
    "sequence": "sequence_loader", "cloze": "cloze_loader", "pair": "pair_loader",
    "ctr": "ctr_loader", "news": "news_loader", "rating": "rating_loader",
}  # fmt: skip


class Loader(Protocol):
    """What ``train/<name>_loader.py`` exports as ``Loader(data, backbone, seed)``."""

    steps_per_epoch: int
    data: TrainingData  # of which validation is made; batches were made of it at the start

    def epoch(self, number: int) -> Iterator[Any]:
        """Yield the batches of epoch ``number`` (from 1): equal for equal seed and number."""

    def validate(self, model: Any) -> float:
        """Return ``backbone.fit.metric`` on the validation split; higher is better."""


def choose_device(device: str) -> torch.device:
    """Return the torch device for ``cpu``, ``cuda``, ``cuda:1`` or ``auto`` (cuda if present)."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(
            f"device {device!r} was asked for, but this torch ({torch.__version__}) finds no CUDA "
            "device; set the device to 'cpu' or 'auto'"
        )
    return torch.device(device)


def fit(
    train: Train,
    data: TrainingData,
    inputs: Mapping[Node, Any],
    *,
    seed: int,
    device: str = "cpu",
    progress: Callable[[dict[str, Any]], None] | None = None,
    start: Callable[[Any], Any] | None = None,
    steps: Callable[[int, int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
    compiled: bool = False,
) -> Trained:
    """Train ``train.backbone`` with its enhancements on ``data`` and return the best weights.

    ``inputs`` maps every node below the backbone and its parts to its loaded artifact. ``progress``
    is called with each epoch's record: epoch, train_loss, valid (None where not evaluated),
    seconds; ``steps`` with the epoch, the steps done in it and the steps of an epoch. ``start`` may
    change the weights before step 0. With ``checkpoint`` a training that was killed goes on after
    its last stored epoch and ends in the same weights (bit for bit on a CPU). ``compiled``:
    torch.compile of the loss, where the device is CUDA. Raises PlanError for a missing seam,
    ValueError for unsuitable data, FloatingPointError when the loss is no longer a number.
    """
    backbone = train.backbone
    check_seams(backbone, train.parts, train.name)
    check_data(train, data)
    where = choose_device(device)
    started = time.perf_counter()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if backbone.closed_form:
            return _solve(train, data, inputs, seed, progress)
        own = training_log(train.parts, data, inputs, seed)
        model = backbone.build(own, seed)
        if hasattr(model, "read"):  # tables beside the log that the backbone itself is made of
            model.read(own, inputs, seed)
        attach_parts(model, train.parts, own, inputs, seed)
        if start is not None:
            start(model)
        model.to(where)
        if backbone.fit.precision == "bfloat16":
            _warn_of_emulation(where, train.name)
        loader = load_loader(backbone.loader)(own, backbone, seed)
        loader.data = data  # what validates: the log as it is
        loss = torch.compile(model.loss) if compiled and where.type == "cuda" else None
        epochs, best = run_epochs(
            model, loader, backbone.fit, train.name, progress,
            steps=steps, checkpoint=checkpoint, loss=loss,
        )  # fmt: skip
        beside = beside_of(train.parts, model)
        served = fold(model)
    seconds = checkpoint.spent()["seconds"] if checkpoint else time.perf_counter() - started
    state = {k: v.detach().cpu().numpy().copy() for k, v in model.state_dict().items()}
    return Trained(train, data, served, seed, epochs, best["epoch"], best["valid"], seconds, state,
                   beside)  # fmt: skip


def _warn_of_emulation(device: torch.device, name: str) -> None:
    capability = torch.backends.cpu.get_cpu_capability()
    if device.type == "cpu" and capability in ("DEFAULT", "AVX2"):
        _log.warning(
            "%s: fit.precision is bfloat16, which this CPU (%s) emulates, some ten times slower "
            "than float32; use 'float32' or a GPU", name, capability,
        )  # fmt: skip


def beside_of(parts: Any, model: Any) -> dict[str, Any]:
    """Return the tables that parts write beside the weights, by name."""
    named = [p.writes for p in parts if getattr(p, "writes", "")]
    hooks = [h for h in model.hooks if hasattr(h, "beside")]
    return {name: hook.beside() for name, hook in zip(named, hooks, strict=True)}


def check_data(train: Train, data: TrainingData) -> None:
    """Raise ValueError when the log cannot train this model, with the mend."""
    name, tasks = type(train.backbone).__name__, train.backbone.tasks
    if data.task not in tasks:
        raise ValueError(
            f"{train.name}: the log is of task {data.task!r}, {name} is for {sorted(tasks)}; "
            "choose another backbone or another log"
        )
    for split, what in ((0, "training"), (1, "validation")):
        if not (data.split == split).any():
            raise ValueError(
                f"{train.name}: the log of task {data.task!r} has no {what} rows; every model is "
                "selected on validation, so split the log into train, valid and test"
            )


def load_loader(name: str) -> Callable[[TrainingData, Any, int], Loader]:
    if name not in LOADERS:
        raise ValueError(f"unknown loader {name!r}; a backbone names one of {sorted(LOADERS)}")
    return importlib.import_module(f"{__package__}.{LOADERS[name]}").Loader


def _solve(
    train: Train, data: TrainingData, inputs: Mapping[Node, Any], seed: int, progress: Any
) -> Trained:
    """Fit a closed-form model: one record, no epochs to choose from."""
    started = time.perf_counter()
    model = train.backbone.build(data, seed)
    model.fit(data, inputs)
    valid = full_metric("ndcg@10", model, data, 1)
    seconds = time.perf_counter() - started
    record = {"epoch": 0, "train_loss": None, "valid": valid, "seconds": seconds}
    if progress is not None:
        with suppress(Interrupted):  # nothing is left to do
            progress(record)
    model.eval().requires_grad_(False)  # has no hooks, so it is what is served
    return Trained(train, data, model, seed, [record], 0, valid, seconds)


def run_epochs(
    model: Any,
    loader: Loader,
    how: Fit,
    name: str,
    progress: Callable[[dict[str, Any]], None] | None = None,
    *,
    steps: Callable[[int, int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
    loss: Callable[[Any], Any] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train ``model`` in place; return (epoch records, best epoch and validation value).

    The best weights by the validation metric are restored at the end. Training stops after
    ``how.patience`` evaluations without improvement, but not before ``how.min_epochs``. ``loss``
    stands for ``model.loss``. With ``checkpoint`` the epochs that it holds are not trained again;
    ``progress`` hears of them all the same. Its ``Interrupted`` ends a training that has epochs
    left; after the last one nothing is left to stop.
    """
    optimizer = optimizer_of(model, how)
    at = (checkpoint.load(model, optimizer) if checkpoint else None) or Progress()
    if progress is not None:
        for record in at.records:
            with suppress(Interrupted):  # it asks again after the next epoch, which is new
                progress(record)
    while at.epoch < how.epochs and not _enough(at, how):
        record = _epoch(model, loader, optimizer, how, name, at, loss or model.loss, steps)
        if checkpoint is not None:
            checkpoint.keep(model, optimizer, at)
        try:
            if progress is not None:
                progress(record)
        except Interrupted:
            if checkpoint is not None:
                checkpoint.keep(model, optimizer, at, now=True)
            if at.epoch < how.epochs and not _enough(at, how):
                raise
    if not at.weights:
        raise ValueError(
            f"{name}: validation gave no number in {len(at.records)} epochs (last: "
            f"{at.records[-1]['valid']}); check that validation rows have targets the model can "
            "rank"
        )
    model.load_state_dict(at.weights)
    return at.records, at.best


def _enough(at: Progress, how: Fit) -> bool:
    return at.epoch > 0 and at.waited >= how.patience and at.epoch >= how.min_epochs


def _epoch(
    model: Any, loader: Loader, optimizer: Any, how: Fit, name: str, at: Progress, loss: Any,
    steps: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train and validate once; return the epoch's record and bring ``at`` up to date."""
    number, started = at.epoch + 1, time.perf_counter()
    _begin_epoch(model, number)
    model.train()
    mean, at.step = take_steps(model, loader, optimizer, how, number, at.step, loss, steps)
    if not np.isfinite(mean):
        raise FloatingPointError(
            f"{name}: the training loss is {mean} in epoch {number}; lower fit.lr (now "
            f"{how.lr}) or check the input vectors for values that are not finite"
        )
    record = {"epoch": number, "train_loss": mean, "valid": None}
    if number % how.eval_every == 0 or number == how.epochs:
        model.eval()
        with torch.no_grad():
            record["valid"] = float(loader.validate(model))
        at.waited += 1
        if record["valid"] > at.best["valid"]:
            at.best, at.waited = {"epoch": number, "valid": record["valid"]}, 0
            at.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
    record["seconds"] = time.perf_counter() - started
    at.records.append(record)
    return record


def _begin_epoch(model: Any, number: int) -> None:
    for hook in model.hooks:
        if hasattr(hook, "begin_epoch"):
            with hook.stream():
                hook.begin_epoch(model, number)


def take_steps(
    model: Any, loader: Loader, optimizer: Any, how: Fit, number: int, step: int, loss_of: Any,
    tell: Callable[[int, int, int], None] | None = None,
) -> tuple[float, int]:  # fmt: skip
    """Take the steps of epoch ``number``; return the mean loss and the count of all steps.

    ``step`` counts those before it, ``tell`` hears of each as ``fit`` says of its ``steps``.
    """
    device = next(model.parameters()).device
    total = how.epochs * max(1, loader.steps_per_epoch)
    half = how.precision == "bfloat16"
    numbers = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
    clipped = [p for p in model.parameters() if p.requires_grad] if how.clip else []
    losses = []
    for batch in loader.epoch(number):
        set_rate(optimizer, how, step / total)
        optimizer.zero_grad(set_to_none=True)
        with numbers:
            loss = loss_of(batch.to(device))
        loss.backward()
        if clipped:
            torch.nn.utils.clip_grad_norm_(clipped, how.clip)
        optimizer.step()
        losses.append(loss.detach())
        step += 1
        if tell is not None:
            tell(number, len(losses), loader.steps_per_epoch)
    if not losses:
        raise ValueError("the loader gave no batch: the log has no rows to train on")
    return torch.stack(losses).mean().item(), step


def set_rate(optimizer: Any, how: Fit, progress: float) -> None:
    """Set the learning rate at ``progress`` in [0, 1] of the whole run."""
    match how.schedule:
        case "constant":
            rate = how.lr
        case "cosine":
            rate = how.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        case other:
            raise ValueError(f"unknown schedule {other!r}: use 'constant' or 'cosine'")
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
