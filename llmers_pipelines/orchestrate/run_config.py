"""The typed run config of a step: what a person may change from run to run, and in which range.

What lies outside of the digest (device, threads, batch size, endpoint, budget) applies to the
step: the same version is made. What lies inside (epochs, learning rate, settings of the model) is
an experiment (``experiment.py``): trained and tracked, never published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import dagster as dg

from ..config import Settings
from ..models.spaces import FIT, MOST, WIDTHS
from ..plan import Component, Generate, Node, Teach, Train, snake
from .build import Plan
from .context import StepError
from .model_form import model_fields, offered
from .ranged import ranged

CONFIGURED = "configured"  # as llmers.toml says
EXPERIMENT = "experiment"
DEVICES = (CONFIGURED, "auto", "cpu", "cuda", *(f"cuda:{n}" for n in range(8)), "mps")
DTYPES = (CONFIGURED, "auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Knob:
    """One entry of the form. 0, "" and ``configured`` leave the setting as it is."""

    kind: type
    about: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    setting: str = ""  # the field of ``Settings`` that it replaces


_KNOBS = {
    "device": Knob(str, "Where tensors live; auto takes CUDA where there is one and says so.",
                   choices=DEVICES, setting="device"),
    "threads": Knob(int, "CPU threads of this step, 1 to 512; 0 as configured.", 1, 512, (),
                    "threads"),
    "batch_tokens": Knob(int, "Padded tokens of one batch, 1 to 10,000,000; 0 the engine's own "
                         "choice. It changes speed and memory, no answer and no vector.",
                         1, 10_000_000, (), "batch_tokens"),
    "dtype": Knob(str, "Numbers that the language model computes in.", choices=DTYPES,
                  setting="dtype"),
    "endpoint": Knob(str, "Base address of an OpenAI-compatible interface that serves the "
                     "configured model; empty as configured.", setting="endpoint"),
    "concurrency": Knob(int, "Requests to the endpoint at once, 1 to 1,024; 0 as configured.",
                        1, 1024, (), "concurrency"),
    "warm_start": Knob(bool, "Train on from the weights of the version before."),
    "budget_calls": Knob(int, "Most calls of the language model; 0 as configured.", 0, 10**12),
    "budget_tokens": Knob(int, "Most tokens, read and written; 0 as configured.", 0, 10**15),
    "budget_money": Knob(float, "Most money, in the currency of the prices; 0 as configured.",
                         0, 10**9),
}  # fmt: skip
_DEVICE = ("device", "threads")
_ASK = (*_DEVICE, "dtype", "batch_tokens", "endpoint", "concurrency",
        "budget_calls", "budget_tokens", "budget_money")  # fmt: skip
_TRAIN = (*_DEVICE, "warm_start")
_OF_VERB = {
    "generate": _ASK, "embed": (*_DEVICE, "batch_tokens"), "train": _TRAIN, "distill": _TRAIN,
    "evaluate": _TRAIN, "teach": _DEVICE, "derive": ("threads",),
    "tune": (*_DEVICE, "dtype", "batch_tokens"),
}  # fmt: skip


_Own = tuple[Component, tuple[Component, ...]]  # a backbone and the parts that are attached to it


def knobs_of(node: Node) -> tuple[str, ...]:
    """Return the names that the form of ``node`` has, beside ``force`` and ``experiment``."""
    if isinstance(node, Teach) and node.how.asks_model:
        return _ASK
    return _OF_VERB.get(node.verb, ())


def schema_of(node: Node, settings: Settings) -> dict[str, dg.Field]:
    """Return the config schema of ``node``; assets of one kind and equal settings share one."""
    own = (node.backbone, node.parts) if isinstance(node, Train) else None
    return _schema(knobs_of(node), own, offered(node, settings))


@cache
def _schema(
    names: tuple[str, ...], own: _Own | None, models: tuple[tuple[str, Any], ...]
) -> dict[str, dg.Field]:
    # One object for all that look alike: a class would be read anew for each of them.
    fields = {
        "force": dg.Field(
            bool, default_value=False, description="Do the work again even where nothing changed."
        ),
        **{name: _field(name) for name in names},
    }
    if own is not None:
        fields[EXPERIMENT] = _experiment(*own, models)
    elif models:
        fields[EXPERIMENT] = dg.Field(
            dg.Shape(model_fields(models)), is_required=False,
            description="Any entry makes this run an EXPERIMENT: the table is made by these models "
            "in a place apart, no version is published, what is downstream is skipped. Answers "
            "stay in the store and are not paid for again.",
        )  # fmt: skip
    return fields  # every entry has a default, and the form shows it


@cache
def _field(name: str) -> dg.Field:
    knob = _KNOBS[name]
    if knob.choices:
        kind = dg.Enum(name.title(), [dg.EnumValue(c) for c in knob.choices])
        return dg.Field(kind, default_value=CONFIGURED, description=knob.about)
    kind = ranged(knob.kind, knob.low, knob.high, unset=knob.low > 0) if knob.high else knob.kind
    return dg.Field(kind, default_value=knob.kind(), description=knob.about)


def _experiment(
    backbone: Component, parts: tuple[Component, ...], models: tuple[tuple[str, Any], ...]
) -> dg.Field:
    fields = dict(_fit())
    fields["backbone"] = _settings(backbone, "Settings of the backbone.")
    told = {snake(type(p).__name__): p for p in parts}
    fields["parts"] = dg.Field(
        dg.Shape({name: _settings(part, "") for name, part in told.items()}), is_required=False,
        description="Settings of the parts that the method adds." if told else
        "This model has no parts beside its backbone.",
    )  # fmt: skip
    fields |= model_fields(models)
    return dg.Field(
        dg.Shape(fields), is_required=False,
        description="Any entry makes this run an EXPERIMENT: the model is trained with these "
        "settings (and with answers and vectors of the models that are named here) and tracked in "
        "MLflow, no version is published, what is downstream is skipped "
        "and the gate never sees it. To keep one, write its settings into llmers.toml.",
    )  # fmt: skip


@cache
def _fit() -> dict[str, dg.Field]:
    return {
        name: dg.Field(
            ranged(limit.kind, limit.low, limit.high), is_required=False, description=limit.about
        )
        for name, limit in FIT.items()
    }


@cache
def _settings(part: Component, about: str) -> dg.Field:
    """Return the form of a component's settings, with what the asset has now."""
    now = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    return dg.Field(
        dg.Shape({name: _setting(name, value) for name, value in now.items()}), is_required=False,
        description=about or None,
    )  # fmt: skip


def _setting(name: str, now: Any) -> dg.Field:
    if isinstance(now, Component):
        return _settings(now, "")
    kind: Any = type(now) if type(now) in (bool, int, float, str) else dg.Any
    if kind is int and name in WIDTHS:
        kind = ranged(int, 1, MOST)
    elif name in FIT and kind is FIT[name].kind:
        kind = ranged(kind, FIT[name].low, FIT[name].high)
    return dg.Field(kind, is_required=False, description=f"The asset has {now!r}.")


def config_for(node: Node, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``wanted`` the form of ``node`` has."""
    known = ("force", *knobs_of(node), *([EXPERIMENT] if isinstance(node, Train) else []))
    return {name: value for name, value in wanted.items() if name in known}


def given(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the entries that say something: no defaults, no empty ones."""
    out = {k: v for k, v in (config or {}).items() if v not in (None, "", 0, CONFIGURED, {})}
    if EXPERIMENT in out:
        wanted = {k: v for k, v in out[EXPERIMENT].items() if v is not None and v != {}}
        out = {**{k: v for k, v in out.items() if k != EXPERIMENT},
               **({EXPERIMENT: wanted} if wanted else {})}  # fmt: skip
    return out


def applied(settings: Settings, config: Mapping[str, Any]) -> Settings:
    """Return the settings in force under a run config."""
    changes = {
        _KNOBS[name].setting: value
        for name, value in config.items()
        if name in _KNOBS and _KNOBS[name].setting
    }
    return dataclasses.replace(settings, **changes) if changes else settings


def check_run(ops: Any, plan: Plan, settings: Settings) -> None:
    """Raise ``StepError`` for every fault in the config of a whole run, before its first step.

    Each step looks at all of it: a wrong learning rate must not show after the answers were bought.
    """
    nodes = {"__".join(n.key): n for n in plan.nodes}
    faults = []
    for op, body in ops.items():
        config = given((body or {}).get("config"))
        if op in nodes and config:
            faults += [f"{nodes[op].name}: {why}" for why in _faults(nodes[op], config, settings)]
    if faults:
        raise StepError("the run config cannot be used: " + "; ".join(faults))


def _faults(node: Node, config: Mapping[str, Any], settings: Settings) -> list[str]:
    out = []
    for name, value in config.items():
        knob = _KNOBS.get(name)
        if knob is not None and knob.high and not knob.low <= value <= knob.high:
            out.append(f"{name} = {value}: {knob.about}")
    if str(config.get("device", "")).startswith("cuda") and not _has_cuda():
        out.append(
            f"device = {config['device']!r}: this torch finds no CUDA device; take cpu, or auto, "
            "which falls back to it"
        )
    endpoint = str(config.get("endpoint", ""))
    if endpoint and not endpoint.startswith(("http://", "https://")):
        out.append(f"endpoint = {endpoint!r}: an address begins with http:// or https://")
    elif endpoint and isinstance(node, Generate) and settings.engine != "openai":
        out.append(
            f"endpoint = {endpoint!r}: the engine in force is {settings.engine!r}, which asks no "
            'endpoint; set llm.engine = "openai" in llmers.toml'
        )
    if EXPERIMENT in config:
        from .experiment import check_experiment  # most runs are none

        try:
            check_experiment(node, config[EXPERIMENT], applied(settings, config))
        except ValueError as error:
            out.append(str(error))
    return out


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
