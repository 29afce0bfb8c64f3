"""Tune: a base model, trained on a table of examples, resumed where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...data.leakage import prompt_violations
from ...plan import Tune, sha
from ...store.manifests import CheckOutcome
from ..context import HEADS, Outcome, StepContext, StepError
from ..progress import tuned as told
from ..tuned import ADAPTER, cannot_tune, log_of, shown_pairs, tuned_model

LOSSES = "losses.json"
USER = "user"  # folder of a second model, which reads vectors of items


def sources(node: Tune, ctx: StepContext) -> dict[str, str]:
    """Return the identity of the base model's files."""
    return {"base": base_of(node, ctx)[1]}


def run(node: Tune, ctx: StepContext) -> Outcome:
    """Tune, or read a finished training back, and publish adapter, heads and losses."""
    examples: pa.Table = ctx.load(node.examples)
    _check_columns(node, examples)
    leak = _no_leakage(node, examples, ctx)
    if not leak.passed:  # a tuned model remembers: nothing is trained on what must not be seen
        raise StepError(f"{node.name}: {leak.details['why']}")
    folder, facts = _trained(node, examples, ctx)

    def save(target: Path) -> None:
        shutil.copytree(folder, target, dirs_exist_ok=True)

    losses = facts["losses"]
    first, last = _ends(losses)
    return Outcome(
        save,
        _version(folder),
        rows=examples.num_rows,
        counts={
            "base": facts["base"], "epochs": len(losses), "steps": facts["steps"],
            "trained_weights": facts["trained"], "first_loss": first,
            "last_loss": last, "resumed_from": facts["resumed_from"],
            **facts["told"],
        },
        checks=(leak, _finite(folder), _learned(losses)),
        info={"base": facts["base"], "preview": _curve(losses), "objective": facts["objective"]},
    )  # fmt: skip


def _trained(node: Tune, examples: pa.Table, ctx: StepContext) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the finished training (``adapter/``, ``heads.safetensors`` where there
    are any, ``losses.json``) and its facts.
    """
    from safetensors.numpy import save_file

    from ...tune.loop_net import run as tune
    from ...tune.lora_net import save_adapter
    from ...tune.tuner import TuneError

    base, identity, name = base_of(node, ctx)
    version = ctx.manifest(node.examples).data_version
    beside = [ctx.manifest(s).data_version for s in node.context]
    key = sha([node.code_version, version, identity, base.device, base.dtype, base.tokens,
               *([beside] if beside else [])], 20)  # fmt: skip
    home = ctx.settings.data / "tuning" / ctx.dataset / key
    done = home / "done"
    if (done / LOSSES).is_file():
        return done, json.loads((done / LOSSES).read_text())
    report, began = ctx.reporter(), time.monotonic()

    def progress(epoch: Any) -> None:
        report(lambda: told(node.name, epoch, time.monotonic() - began))

    try:
        task = node.how.objective(base, examples, *map(ctx.load, node.context))
        facts = tune(task, node.how, home, report=progress,
                     checkpoint_seconds=ctx.settings.tune.checkpoint_seconds)  # fmt: skip
    except TuneError as error:
        raise StepError(f"{node.name}: {error}") from error
    if facts["resumed_from"]:
        ctx.log(f"{node.name}: went on from step {facts['resumed_from']} of {facts['steps']}")
    facts |= {"base": name, "objective": type(node.how).__name__, "told": task.facts}
    home.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=".tmp-"))
    model: Any = task.module
    if publish := getattr(task, "publish", None):
        publish(temporary)
    elif node.how.has_adapter:
        save_adapter(getattr(model, "encoder", model), temporary / ADAPTER)
    if heads := getattr(task, "heads", None):
        own = {n: t.detach().float().cpu().contiguous().numpy() for n, t in heads.items()}
        save_file(own, temporary / HEADS)
    (temporary / LOSSES).write_text(json.dumps(facts, indent=1))
    os.chmod(temporary, 0o755)
    if done.is_dir():  # another process finished the same training
        shutil.rmtree(temporary)
    else:
        os.rename(temporary, done)
    for old in [*home.glob("step_*"), *home.glob(".tmp-*")]:
        shutil.rmtree(old, ignore_errors=True)
    return done, facts


def _version(folder: Path) -> str:
    """Return the identity of the adapter, of the heads and the user model where there are some."""
    from ...data.file_hash import adapter_sha256, file_hash

    adapter, heads, user = folder / ADAPTER, folder / HEADS, folder / USER
    if not adapter.is_dir():
        return sha([file_hash(heads)])
    more = [file_hash(heads)] if heads.is_file() else []
    more += [adapter_sha256(user)] if user.is_dir() else []
    own = adapter_sha256(adapter)
    return sha([own, *more]) if more else own[:16]


def base_of(node: Tune, ctx: StepContext) -> tuple[Any, str, str]:
    """Return (what is tuned and where, identity of its files, its name)."""
    from ...llm.protocol import EngineError
    from ...tune.tuner import Base

    if why := cannot_tune(node, ctx.settings):
        raise StepError(f"{node.name}: {why}")
    device, settings = ctx.device, ctx.settings
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    tokens = int(ctx.limits.get("batch_tokens") or settings.batch_tokens)
    if node.how.base == "encoder":
        from ...encode.encoder import make_encoder

        found: Any = make_encoder(node.model)
        info = found.info
        base = Base(found.folder, device, dtype, tokens, info.pooling, info.max_length,
                    info.prefix, info.layer, info.normalize)  # fmt: skip
        identity = f"{info.weights_sha256}+{info.tokenizer_sha256}+{info.pooling}"
        layer = f"+layer{info.layer}" if node.how.partial else ""
        return base, identity + layer, info.name
    from ...llm.identity import model_folder, tokenizer_sha256, weights_sha256

    model, revision = tuned_model(node, settings)
    try:
        folder = model_folder(model, revision)
        identity = f"{weights_sha256(folder)}+{tokenizer_sha256(folder)}"
    except EngineError as error:
        raise StepError(f"{node.name}: {error}") from error
    return Base(folder, device, dtype, tokens), identity, f"{Path(model).name}@{identity[:12]}"


def _check_columns(node: Tune, examples: Any) -> None:
    wanted = ("example_id", *node.how.columns)
    names = examples.column_names if isinstance(examples, pa.Table) else []
    if missing := [c for c in wanted if c not in names]:
        raise StepError(
            f"{node.name}: {node.examples.name} has no column {missing[0]!r}; examples of "
            f"{type(node.how).__name__} have {', '.join(wanted)}"
        )
    if not examples.num_rows:
        raise StepError(f"{node.name}: {node.examples.name} has no rows to tune on")


def _no_leakage(node: Tune, examples: pa.Table, ctx: StepContext) -> CheckOutcome:
    """Whatever was shown of a user is a training row, and every row about a user says what."""
    users, items, untold = shown_pairs(examples)
    log = log_of([node.examples])
    details: dict[str, Any] = {"examples": examples.num_rows, "interactions shown": len(users)}
    violations: list[Any] = []
    if log is not None:
        violations = prompt_violations(ctx.load(log), users, items)
    why = [str(v) for v in violations[:3]]
    if untold:
        why.append(f"{untold} examples about users do not tell which items they show (`shown`)")
    if users and log is None:
        why.append(f"{node.examples.name} shows interactions, but reads no splits")
    details |= {"violations": len(violations), "log": log.name if log is not None else "none"}
    if why:
        details["why"] = "; ".join(why)
    return CheckOutcome("no_leakage", not why, True, details)


def _finite(folder: Path) -> CheckOutcome:
    from safetensors.numpy import load_file

    files = sorted(folder.rglob("*.safetensors"))
    arrays = {f"{p.parent.name}/{p.stem} {n}": a for p in files for n, a in load_file(p).items()}
    wrong = sorted(name for name, a in arrays.items() if not np.isfinite(a).all())
    return CheckOutcome("weights_finite", bool(arrays) and not wrong, True,
                        {"tensors": len(arrays), "wrong": ", ".join(wrong) or "none"})  # fmt: skip


def _ends(losses: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the loss of the first and of the last epoch; of one alone, of its outer quarters.

    Trainings that were kept before quarters were recorded have one value for both.
    """
    if len(losses) > 1:
        return losses[0]["loss"], losses[-1]["loss"]
    first, last = losses[0].get("ends", [losses[0]["loss"]] * 2)
    return first, last


def _learned(losses: list[dict[str, Any]]) -> CheckOutcome:
    first, last = _ends(losses)
    if len(losses) > 1:
        names = ("first epoch", "last epoch")
    else:
        names = ("first quarter of the epoch", "last quarter of the epoch")
    details: dict[str, Any] = dict(zip(names, (first, last), strict=True))
    untold = len(losses) == 1 and (losses[0]["steps"] < 2 or "ends" not in losses[0])
    if untold:
        details["why"] = "one step, or one epoch whose steps were not recorded: nothing to compare"
    return CheckOutcome("loss_fell", last < first or untold, False, details)


def _curve(losses: list[dict[str, Any]]) -> str:
    shown = losses if len(losses) <= 12 else losses[:4] + losses[-8:]
    rows = [f"| {e['epoch']} | {e['loss']:.4f} | {e['steps']} | {e['seconds']:.1f} |"
            for e in shown]  # fmt: skip
    return "\n".join(["| epoch | loss | steps | seconds |", "|---|---|---|---|", *rows])
