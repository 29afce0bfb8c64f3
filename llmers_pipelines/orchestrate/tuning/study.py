"""The one owner of Optuna: a search that is stored after every trial and goes on where it stopped.

What is asked next depends on the seed and on the trials that have ended, on nothing else: a search
that was killed asks for the same settings again.
"""

from __future__ import annotations

import fcntl
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...models.spaces import Choice, Dimension
from ..context import StepError
from .space import rounded

PRUNERS = ("median", "hyperband", "none")
_AT_RANDOM = 8  # trials before the sampler learns from what it saw
_COMPARED = 4  # trials that must have ended before one is pruned
_SETTINGS, _WHY, _SECONDS = "settings", "why", "seconds"


@dataclass(frozen=True)
class Trial:
    """One trial that ended. ``value``: validation; None where it was pruned or failed."""

    number: int
    settings: dict[str, Any]
    value: float | None
    why: str = ""  # "" = trained to its end; else "pruned at epoch 7", or what failed
    epochs: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def pruned(self) -> bool:
        return self.why.startswith("pruned")


class Asked:
    """A trial under way."""

    def __init__(self, study: Study, trial: Any, settings: dict[str, Any]) -> None:
        self.study, self.settings = study, settings
        self._trial, self._heard = trial, {}

    @property
    def first(self) -> bool:
        """Whether this is the trial with the settings as they are."""
        return self._trial is None

    def hear(self, epoch: int, value: float) -> bool:
        """Take the validation value of an epoch; say whether the trial should end here."""
        self._heard[epoch] = value
        if self._trial is None:
            return False
        self._trial.report(value, epoch)
        return self._trial.should_prune()

    def ends(self, value: float | None, seconds: float, why: str = "") -> None:
        self.study.settle(self, value, dict(self._heard), seconds, why)


class Study:
    """A stored search. ``default``: the settings of its first trial."""

    def __init__(self, study: Any, space: Mapping[str, Dimension], seed: int) -> None:
        self._study, self._space, self._seed = study, space, seed
        for trial in self._of("RUNNING", "WAITING"):  # of a process that was killed
            study.tell(trial.number, state=_states().FAIL)

    @property
    def note(self) -> dict[str, Any]:
        """Return what was written down beside the trials."""
        return dict(self._study.user_attrs)

    def write_down(self, name: str, value: Any) -> None:
        self._study.set_user_attr(name, value)

    def trials(self) -> list[Trial]:
        """Return the trials that ended, in their order; the first has the settings as they are."""
        out = []
        for n, t in enumerate(self._of("COMPLETE", "PRUNED")):
            value, notes = t.value if t.state == _states().COMPLETE else None, t.user_attrs
            out.append(Trial(n, notes[_SETTINGS], value, notes.get(_WHY, ""),
                             dict(t.intermediate_values), notes.get(_SECONDS, 0.0)))  # fmt: skip
        return out

    def ask(self, default: Mapping[str, Any]) -> Asked:
        """Return the next trial: ``default`` first, then what the sampler draws."""
        ended = len(self._of("COMPLETE", "PRUNED"))
        if not ended:
            return Asked(self, None, dict(default))
        drawn = int(np.random.SeedSequence([self._seed, ended]).generate_state(1)[0])
        import optuna

        self._study.sampler = optuna.samplers.TPESampler(seed=drawn, n_startup_trials=_AT_RANDOM)
        trial = self._study.ask({n: _distribution(d) for n, d in self._space.items()})
        chosen = {n: rounded(v, self._space[n]) for n, v in trial.params.items()}
        return Asked(self, trial, {**default, **chosen})

    def settle(
        self, asked: Asked, value: float | None, epochs: dict[int, float], seconds: float, why: str
    ) -> None:
        states, notes = _states(), {_SETTINGS: asked.settings, _SECONDS: round(seconds, 3)}
        if why:
            notes[_WHY] = why
        if asked._trial is None:
            self._add(asked, value, epochs, notes)
            return
        for name, told in notes.items():
            asked._trial.set_user_attr(name, told)
        for epoch, heard in epochs.items():
            asked._trial.report(heard, epoch)  # the same value twice is taken once
        if value is None:
            self._study.tell(asked._trial, state=states.PRUNED)
        else:
            self._study.tell(asked._trial, value)

    def _add(
        self, asked: Asked, value: float | None, epochs: dict[int, float], notes: dict[str, Any]
    ) -> None:
        """Store the first trial; a default that lies outside of a range tells the sampler less."""
        from optuna.trial import create_trial

        inside = {n: d for n, d in self._space.items() if d.holds(asked.settings[n])}
        self._study.add_trial(create_trial(
            value=value, params={n: asked.settings[n] for n in inside},
            distributions={n: _distribution(d) for n, d in inside.items()},
            intermediate_values={e: v for e, v in epochs.items() if math.isfinite(v)},
            user_attrs=notes,
        ))  # fmt: skip

    def _of(self, *states: str) -> list[Any]:
        wanted = tuple(_states()[name] for name in states)
        return self._study.get_trials(deepcopy=False, states=wanted)


@contextmanager
def opened(
    path: Path, names: Sequence[str], spaces: Sequence[Mapping[str, Dimension]], *,
    seed: int, pruner: str, epochs: Sequence[tuple[int, int]],
) -> Iterator[list[Study]]:  # fmt: skip
    """Open the searches ``names`` in the file ``path``, for this process alone.

    ``epochs``: (fewest, most) of each; no trial is judged before the fewest.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # A trial that is read back tells its epochs once more.
    warnings.filterwarnings("ignore", message="The reported value is ignored")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StepError(
                f"another process searches settings of {path.stem} now; wait for it, or end it"
            ) from None
        with closing(_Storage(path)) as storage:
            yield [
                Study(
                    optuna.create_study(
                        storage=storage.optuna, study_name=name, direction="maximize",
                        load_if_exists=True, pruner=_pruner(pruner, *bounds),
                    ), space, seed,
                )
                for name, space, bounds in zip(names, spaces, epochs, strict=True)
            ]  # fmt: skip


class _Storage:
    """Optuna's own tables in a file."""

    def __init__(self, path: Path) -> None:
        import optuna

        self.optuna = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")

    def close(self) -> None:
        self.optuna.remove_session()
        self.optuna.engine.dispose()


def _pruner(name: str, fewest: int, most: int) -> Any:
    import optuna

    match name:
        case "none":
            return optuna.pruners.NopPruner()
        case "hyperband":
            least = max(1, fewest)
            return optuna.pruners.HyperbandPruner(least, max(least + 1, most), 3)
        case "median":
            return optuna.pruners.MedianPruner(_COMPARED, fewest)
    raise StepError(f"no pruner {name!r}; use one of {', '.join(PRUNERS)}")


def _distribution(found: Dimension) -> Any:
    from optuna import distributions as d

    if isinstance(found, Choice):
        return d.CategoricalDistribution(found.values)
    if found.whole:
        return d.IntDistribution(int(found.low), int(found.high), log=found.log)
    return d.FloatDistribution(found.low, found.high, log=found.log)


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState
