"""Teach: rankings or states of a teacher at training positions, exported once, joined by id."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...data.training import TRAIN, TrainingData
from ...plan import Derive, Pin, Table, Teach, Train
from ...store.manifests import CheckOutcome
from ...teach.language_model_ranking import NAME
from ...teach.language_model_states import LanguageModelStates
from ...teach.noise_scores import MEANINGS as SCORES
from ...teach.noise_scores import NAME as NOISE
from ...teach.pair_judge import MEANINGS as JUDGED
from ...teach.pair_judge import NAME as JUDGE
from ...teach.recorded_ranking import RecordedRanking
from ...teach.teacher import MEANINGS, Taught
from ..context import QUARANTINE, Outcome, StepContext, StepError, hash_table, save_rows
from ..tuned import adapted
from .derive import preview
from .derive_checks import pair_checks, position_checks
from .teach_states import states_identity, tuned_states

NAMES = {"rankings": NAME, "scores": NOISE, "judgements": JUDGE}  # of tasks, by what is exported
COLUMNS = {"rankings": MEANINGS, "states": MEANINGS, "scores": SCORES, "judgements": JUDGED}


def sources(node: Teach, ctx: StepContext) -> dict[str, str]:
    """Return the hash of a file of rankings, or the engine in force."""
    if isinstance(node.how, RecordedRanking):
        from ...data.rankings import ranking_spec
        from ...data.sources import file_hash
        from ...plan import sha

        spec = ranking_spec(ctx.description, node.how.name)
        found = {
            "rankings": file_hash(ctx.description.folder(ctx.settings.data_root) / spec.path),
            "read as": sha(str(spec)),
        }
        return found | ({"contaminated": "accepted"} if ctx.settings.accept_contaminated else {})
    if node.how.asks_model:
        from ...llm.factory import engine_info

        engine = engine_info(adapted(node, ctx).settings)
        return {"engine": engine.identity, "columns": str(sorted(ctx.field_kinds.items()))}
    return {}


def run(node: Teach, ctx: StepContext) -> Outcome:
    """Let the teacher rank and publish user_id, position, rank, item_id, distance.

    A teacher of states publishes user_id, position, layer, vec.
    """
    data: TrainingData = ctx.load(node.log)
    if isinstance(node.how, RecordedRanking):
        taught = _recorded(node, ctx, data)
    elif node.how.asks_model:
        taught = _asked(node, ctx, data)
    elif isinstance(node.how, LanguageModelStates):
        taught = tuned_states(node, ctx, data)
    else:
        taught = _trained(node, ctx, data)
    table, refused = taught.rows, taught.refused
    means = COLUMNS[node.how.exports]

    def beside(folder: Path) -> None:
        if refused is None or not refused.num_rows:
            (folder / QUARANTINE).unlink(missing_ok=True)  # of an earlier file with equal rankings
            return
        temporary = folder / f".quarantine-{os.getpid()}"
        pq.write_table(refused, temporary, compression="zstd")
        os.replace(temporary, folder / QUARANTINE)

    return Outcome(
        save_rows(table),
        hash_table(table),
        rows=table.num_rows,
        counts={"teacher": taught.label, **taught.counts},
        checks=_checks(node, ctx, data, taught),
        flags=taught.flags,
        columns=tuple((f.name, str(f.type), means[f.name]) for f in table.schema),
        info={"teacher": taught.label, "preview": preview(table),
              **({"quarantine": preview(refused)} if refused is not None and refused.num_rows
                 else {})},
        beside=beside,
        keep=table,
    )  # fmt: skip


def _net(node: Train | Pin, ctx: StepContext) -> Any:
    from ...models.served import load_served
    from ...train.trained import load_export

    return load_served(*load_export(ctx.load(node))).net.to(ctx.device)


def _trained(node: Teach, ctx: StepContext, data: TrainingData) -> Taught:
    teacher = _teacher(node)
    if teacher.log != node.log:
        raise StepError(
            f"{node.name}: the teacher was trained on {teacher.log.name}, the student's log is "
            f"{node.log.name}; train both on the same split"
        )
    return node.how.teach(_net(teacher, ctx), data, teacher.name)


def _teacher(node: Teach) -> Train:
    found = [s for s in node.sources if isinstance(s, Train)]
    if len(found) != 1:
        raise StepError(
            f"{node.name}: {len(found)} trained models among its sources; name the one that teaches"
        )
    return found[0]


def _recorded(node: Teach, ctx: StepContext, data: TrainingData) -> Taught:
    from ...data.leakage import LeakageError
    from ...data.rankings import ranking_spec

    spec = ranking_spec(ctx.description, node.how.name)
    folder = ctx.description.folder(ctx.settings.data_root)
    accept = ctx.settings.accept_contaminated
    try:
        return node.how.teach(spec, folder, data, accept_contaminated=accept)
    except LeakageError as error:
        raise StepError(f"{node.name}: {error}") from error


def _requests(node: Teach, ctx: StepContext, data: TrainingData) -> tuple[Any, Any]:
    from .generate import prompt_context

    items = next((s for s in node.sources if isinstance(s, Table)), None)
    if items is None:
        raise StepError(f"{node.name}: a language model needs the items among its sources")
    proposer = next((s for s in node.sources if isinstance(s, (Pin, Train, Derive))), None)
    model = None
    if proposer is not None:
        pairs = isinstance(proposer, Derive)
        model = ctx.load(proposer) if pairs else _net(proposer, ctx)
    rows = ctx.load(items).to_pylist()
    return node.how.requests(data, rows, model, prompt_context(ctx))


def _asked(node: Teach, ctx: StepContext, data: TrainingData) -> Taught:
    from ...llm.budget import Budget
    from ...llm.choosing import choose_all
    from ...llm.factory import make_engine
    from ...store.responses import ResponseStore
    from ..choices import cannot_rank
    from ..measured import keep

    if why := cannot_rank(node, ctx):
        raise StepError(f"{node.name}: {why}")
    ctx = adapted(node, ctx)
    name = NAMES[node.how.exports]
    engine = make_engine(ctx.settings)
    try:
        requests, asked = _requests(node, ctx, data)
        started = time.perf_counter()
        budget = Budget(
            int(ctx.limits.get("budget_calls") or ctx.settings.budget_calls),
            int(ctx.limits.get("budget_tokens") or ctx.settings.budget_tokens),
        )
        chosen = choose_all(
            requests, engine, ResponseStore(ctx.settings.data / "responses"), task=name,
            revision=node.how.prompt.prompt_revision, budget=budget,
        )  # fmt: skip
        label = engine.info.label
        counts = {**chosen.counts, "tokens_out": 0, "seconds": time.perf_counter() - started}
        keep(node.name, node.how.prompt.prompt_revision, engine, counts, ctx,
             stopped=bool(chosen.stopped))  # fmt: skip
    finally:
        engine.close()
    if chosen.stopped:
        raise StepError(
            f"{node.name}: {chosen.stopped}; {chosen.counts['llm_calls']} answers are stored and "
            "will not be asked for again; raise the budget and run it once more"
        )
    return node.how.taught(data, asked, chosen, label)


def planned_requests(node: Teach, ctx: StepContext) -> tuple[list[Any], list[str]]:
    """Return the questions that a run of ``node`` would ask as far as it is known, and remarks.

    Raises ``StepError`` where the log or the items are not there.
    """
    from .generate import prompt_context

    data: TrainingData = ctx.load(node.log)
    try:
        return _requests(node, ctx, data)[0], []
    except StepError:
        items = next((s for s in node.sources if isinstance(s, Table)), None)
        if items is None or node.how.exports == "judgements":
            raise
        rows = ctx.load(items).to_pylist()
    told = "its candidates are not there yet: counted with as many random ones"
    return node.how.requests(data, rows, None, prompt_context(ctx))[0], [told]


def _checks(
    node: Teach, ctx: StepContext, data: TrainingData, taught: Taught
) -> tuple[CheckOutcome, ...]:
    from ...data.leakage import prompt_violations
    from ...teach.teacher import positions_of

    violations: list[Any] = []
    shown = 0
    if taught.shown is not None:
        users, items = taught.shown
        shown = len(users)
        violations = prompt_violations(
            data, [data.users.ids[u - 1] for u in users], [data.items.ids[i - 1] for i in items]
        )
    foreign = _other_log(node, ctx)
    leak: dict[str, Any] = {
        "interactions shown": shown, "violations": len(violations), "trained on": foreign or "same",
        "flags": ", ".join(taught.flags) or "none",
    }  # fmt: skip
    if violations or foreign:
        leak["why"] = foreign or "; ".join(str(v) for v in violations[:3])
    if node.how.exports == "scores":
        rows = int((data.split == TRAIN).sum())
        return (
            CheckOutcome("no_leakage", not violations and not foreign, True, leak),
            *position_checks(taught.rows, data),
            CheckOutcome("coverage", taught.rows.num_rows >= 0.5 * rows, False,
                         {"positions scored": taught.rows.num_rows, "training positions": rows}),
            CheckOutcome("quarantine_small", True, False, {"refused": 0}),
        )  # fmt: skip
    if node.how.exports == "judgements":
        pairs = int(taught.counts["pairs"])
        return (
            CheckOutcome("no_leakage", not violations and not foreign, True, leak),
            *pair_checks(taught.rows, data),
            CheckOutcome("coverage", taught.rows.num_rows >= 0.5 * pairs, False,
                         {"judged": taught.rows.num_rows, "pairs": pairs}),
            CheckOutcome("quarantine_small", True, False, {"refused": 0}),
        )  # fmt: skip
    user, _ = positions_of(data, node.how.newest)
    found = len(set(zip(taught.rows["user_id"].to_pylist(), taught.rows["position"].to_pylist(),
                        strict=True)))  # fmt: skip
    identity = states_identity if node.how.exports == "states" else _identity
    refused = 0 if taught.refused is None else len(set(taught.refused["row"].to_pylist()))
    records = int(taught.counts.get("records", 0))
    return (
        CheckOutcome("no_leakage", not violations and not foreign, True, leak),
        CheckOutcome("row_identity", *identity(taught.rows, data)),
        CheckOutcome("coverage", found >= 0.5 * len(user), False,
                     {"positions with a ranking": found, "training positions": len(user)}),
        CheckOutcome("quarantine_small", refused <= 0.05 * max(1, records), False,
                     {"refused": refused, "records": records}),
    )  # fmt: skip


def _other_log(node: Teach, ctx: StepContext) -> str:
    """Return how a trained teacher's log differs from the student's, "" where it does not."""
    log = ctx.manifest(node.log).data_version
    for source in node.sources:
        model = source.node if isinstance(source, Pin) else source
        if not isinstance(model, Train):
            continue
        if model.log != node.log:
            return f"{model.name} was trained on {model.log.name}, the student's is {node.log.name}"
        trained = ctx.manifest(model).inputs.get(model.log.name, "").split(" ")[0]
        if not isinstance(source, Pin) and trained != log:
            return f"{model.name} was trained on version {trained} of the log, now it is {log}"
    return ""


def _identity(table: pa.Table, data: TrainingData) -> tuple[bool, bool, dict[str, Any]]:
    """Return (passed, blocking, details): known ids, ranks 1..n per position, no item twice."""
    users = data.users.index(table["user_id"].to_pylist())
    items = data.items.index(table["item_id"].to_pylist())
    position = table["position"].to_numpy()
    unknown = int((users == 0).sum() + (items == 0).sum())
    group = users * (len(data.item) + 1) + position
    order = np.lexsort((table["rank"].to_numpy(), group))
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order]) + 1
    gaps = int((table["rank"].to_numpy()[order] != place).sum())
    twice = len(group) - len(np.unique(np.stack([group, items]), axis=1).T)
    finite = bool(pc.all(pc.is_finite(table["distance"])).as_py()) if table.num_rows else False
    below = int((table["distance"].to_numpy() < 0).sum())
    details = {"unknown ids": unknown, "gaps in ranks": gaps, "items ranked twice": twice,
               "distances finite and not below 0": finite and not below}  # fmt: skip
    return not (unknown or gaps or twice or below) and finite, True, details
