"""An unfinished training on disk: what a killed one needs to end as if nothing had been (torch).

One folder per epoch, renamed into place: ``tensors.safetensors`` (weights, best weights, optimizer,
random streams, what parts recorded of the epochs) and ``progress.json`` (everything else). It is no
part of any identity, and whoever stores the result removes it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

TENSORS, PROGRESS = "tensors.safetensors", "progress.json"


@dataclass
class Progress:
    """How far a training is: what ``run_epochs`` knows between two epochs."""

    records: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": 0, "valid": -float("inf")})
    step: int = 0
    waited: int = 0  # evaluations without improvement
    weights: dict[str, Tensor] = field(default_factory=dict)  # the best so far

    @property
    def epoch(self) -> int:
        return len(self.records)


@dataclass
class Checkpoint:
    """Where one training is kept. ``every``: seconds of work between two writings."""

    folder: Path
    every: float = 60.0
    log: Callable[[str], None] = lambda text: None
    clock: Callable[[], float] = time.monotonic
    resumed_at: int = 0  # the epoch that was read back
    earlier: dict[str, float] = field(default_factory=dict)  # seconds, cpu_seconds before this run

    def __post_init__(self) -> None:
        self._began = self._last = self.clock()
        self._cpu = time.process_time()

    def spent(self) -> dict[str, float]:
        """Return seconds and cpu_seconds of the training so far, all its runs together."""
        seconds, cpu = self.clock() - self._began, time.process_time() - self._cpu
        now = {"seconds": seconds, "cpu_seconds": cpu}
        return {name: self.earlier.get(name, 0.0) + value for name, value in now.items()}

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Bring ``model``, ``optimizer`` and the random streams to where a training stopped.

        None where there is nothing, or nothing that fits: what another version of torch or another
        kind of device wrote would not go on to the same weights.
        """
        for path in sorted(self.folder.glob("epoch-*"), reverse=True):
            try:
                told = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
                tensors = load_file(path / TENSORS)
            except (OSError, ValueError, SafetensorError) as error:
                self.log(f"the checkpoint {path.name} cannot be read ({error}); it is passed over")
                continue
            if told["made_with"] != _made_with(model):
                self.log(f"the checkpoint {path.name} was made with {told['made_with']}, this is "
                         f"{_made_with(model)}: training starts anew")  # fmt: skip
                return None
            if told["names"] != _names(model):
                self.log(f"the checkpoint {path.name} is of another model: training starts anew")
                return None
            _restore(model, optimizer, tensors, told)
            self.resumed_at, self.earlier = len(told["records"]), told["spent"]
            return Progress(told["records"], told["best"], told["step"], told["waited"],
                            _part(tensors, "best."))  # fmt: skip
        return None

    def keep(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress,
        *, now: bool = False,
    ) -> None:  # fmt: skip
        """Write the training after an epoch, where ``every`` seconds passed since the last time.

        ``now``: in any case.
        """
        if not now and self.clock() - self._last < self.every:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=self.folder, prefix=".tmp-"))
        try:
            tensors, state = _tensors(model, optimizer, progress)
            save_file(tensors, part / TENSORS)
            told = {
                "made_with": _made_with(model), "names": _names(model), "records": progress.records,
                "best": progress.best, "step": progress.step, "waited": progress.waited,
                "optimizer": state, "spent": self.spent(),
            }  # fmt: skip
            (part / PROGRESS).write_text(json.dumps(told), encoding="utf-8")
            target = self.folder / f"epoch-{progress.epoch:06d}"
            shutil.rmtree(target, ignore_errors=True)
            os.rename(part, target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        for path in self.folder.glob("epoch-*"):
            if path.name < target.name:
                shutil.rmtree(path, ignore_errors=True)
        self._last = self.clock()  # writing counts: a large model on a slow disk stays cheap

    def discard(self) -> None:
        """Remove what was kept: the result is stored, or is not wanted."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _made_with(model: nn.Module) -> str:
    return f"torch {torch.__version__} on {next(model.parameters()).device.type}"


def _names(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def _tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return every tensor by name, and what of the optimizer is no tensor."""
    out = {f"model.{k}": v for k, v in model.state_dict().items()}
    out |= {f"best.{k}": v for k, v in progress.weights.items()}
    held = optimizer.state_dict()
    for number, slots in held["state"].items():
        out |= {f"optimizer.{number}.{k}": v for k, v in slots.items() if isinstance(v, Tensor)}
    for name, stream in _streams(model):
        out |= {f"random.{name}.{i}": state for i, state in enumerate(stream)}
    for number, hook in enumerate(_recorders(model)):
        out |= {f"recorded.{number}.{k}": v for k, v in hook.recorded().items()}
    groups = [{k: v for k, v in g.items() if k != "params"} for g in held["param_groups"]]
    # Tied tensors share memory, which the format refuses: each is written on its own.
    return {k: v.detach().cpu().clone().contiguous() for k, v in out.items()}, {"groups": groups}


def _streams(model: Any) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the state of every random stream that training draws from: torch's own, the parts'."""
    yield "torch", [torch.get_rng_state()]
    if next(model.parameters()).is_cuda:
        yield "cuda", torch.cuda.get_rng_state_all()
    for number, hook in enumerate(model.hooks):
        yield f"hook{number}", hook.stream.state() if hasattr(hook, "stream") else []


def _recorders(model: Any) -> list[Any]:
    """Return the parts that remember something of the epochs, beside weights."""
    return [hook for hook in model.hooks if hasattr(hook, "recorded")]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore(
    model: Any, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], told: dict[str, Any]
) -> None:
    model.load_state_dict(_part(tensors, "model."))
    held = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimizer.").items():
        number, _, slot = name.partition(".")
        state.setdefault(int(number), {})[slot] = tensor
    groups = [
        {**now, **then}
        for now, then in zip(held["param_groups"], told["optimizer"]["groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    random = _part(tensors, "random.")
    for number, hook in enumerate(model.hooks):
        if hasattr(hook, "stream"):
            hook.stream.set_state(list(_part(random, f"hook{number}.").values()))
    for number, hook in enumerate(_recorders(model)):
        hook.recall(_part(tensors, f"recorded.{number}."))
    if gpu := _part(random, "cuda."):
        torch.cuda.set_rng_state_all(list(gpu.values()))
    torch.set_rng_state(random["torch.0"])
