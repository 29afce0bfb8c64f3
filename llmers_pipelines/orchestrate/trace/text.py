"""A way as text for a terminal: the steps in the order of making, then what was made from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .form import (
    AnswerRow,
    CatalogRow,
    LogRow,
    Metric,
    ModelUse,
    Named,
    Step,
    TableRows,
    VectorRow,
    Way,
)
from .recommendation import Read, Recommendation

_LONG = 1200
STAGES = {"cut": "cut off", "refusal": "refused by the model", "parse": "could not be read",
          "grounding": "not grounded in the row"}  # fmt: skip


def render(way: Way) -> str:
    """Return the way as indented text."""
    title = f" ({way.title})" if way.title else ""
    lines = [f"{way.asset} {way.entity} {way.id}{title} of {way.dataset}", ""]
    for step in way.steps:
        lines += [_head(step), *(f"  {line}" for line in _sources(step))]
        if step.problem:
            lines.append(f"  not shown: {step.problem}")
        lines += [f"  {line}" for line in _content(step.content, way.titles)] + [""]
    lines.append("consumed by")
    for row in way.onward:
        stale = "" if row.current else "  (made from an older version)"
        brief = f"  {row.brief}" if row.brief else ""
        lines.append(f"  {row.asset} @ {row.data_version}{stale}{brief}")
    if not way.onward:
        lines.append("  nothing yet")
    lines += ["", "models that use it", *(f"  {line}" for u in way.models for line in _model(u))]
    if not way.models:
        lines.append("  none yet")
    return "\n".join(lines)


def _head(step: Step) -> str:
    marks = [*step.flags, *(f"held by {name}" for name in step.held_by)]
    marks += [] if step.current else ["an older version"]
    told = f" [{', '.join(marks)}]" if marks else ""
    inputs = [*step.reads, *(f"({name})" for name in step.also_read)]
    made_from = f" <- {', '.join(inputs)}" if inputs else ""
    return f"{step.asset} @ {step.data_version} (code {step.code_version}){told}{made_from}"


def _sources(step: Step) -> Iterator[str]:
    for name, value in step.sources.items():
        yield f"[{name}] {str(value)[:110]}"


def _content(content: Any, titles: Mapping[str, str]) -> Iterator[str]:
    match content:
        case CatalogRow():
            for name, value in content.values.items():
                yield from _value(name, value)
        case LogRow():
            yield ", ".join(f"{n} {name} rows" for name, n in content.rows.items())
            if content.newest:
                yield f"newest known items: {'; '.join(map(_named, content.newest))}"
        case AnswerRow():
            yield from _answer(content)
        case VectorRow():
            yield from _vector(content)
        case TableRows():
            note = f": {content.note}" if content.note else ""
            yield f"{content.total} row{'s' if content.total != 1 else ''}{note}"
            for row in content.rows:
                cells = [f"{k} {_titled(v, titles)}" for k, v in row.items()]
                yield "  " + ", ".join(cells)


def _answer(answer: AnswerRow) -> Iterator[str]:
    engine = answer.engine
    yield f"prompt {answer.prompt_revision}; {engine.kind or 'engine'} {engine.model}"
    if engine.identity:
        yield f"identity {engine.identity}"
    prompt = answer.prompt
    if prompt.origin:
        how = "as it was asked" if prompt.origin == "asked" else "rendered again"
        yield f"rendered prompt ({how}{'; ' + prompt.note if prompt.note else ''}):"
        for message in prompt.messages:
            for line in str(message["content"]).splitlines():
                yield f"  {message['role']}| {line}"
    elif prompt.note:
        yield f"prompt: {prompt.note}"
    if prompt.sampling:
        yield "settings: " + ", ".join(f"{k} {v}" for k, v in prompt.sampling.items())
    if answer.left_out:
        yield f"the prompt left out: {answer.left_out}"
    for number, attempt in enumerate(answer.attempts, start=1):
        cost = f" ({attempt.tokens_in} tokens in, {attempt.tokens_out} out)"
        yield from _value(f"raw answer {number}{cost if attempt.tokens_in else ''}", attempt.raw)
        if attempt.stage or attempt.reason:
            yield f"  {STAGES.get(attempt.stage, 'refused')}: {attempt.reason}"
        if attempt.asked_again:
            yield f"  asked again: {attempt.asked_again}"
    yield f"status: {answer.status}" + (f" ({answer.reason})" if answer.reason else "")
    yield from _value("text", answer.text)
    for name, value in answer.value.items():
        if value is not None:
            yield from _value(name, value)
    for finding in answer.safety:
        yield f"safety: {finding['check']} {finding['kind']}: {finding['evidence']}"
    if answer.note:
        yield f"note: {answer.note}"


def _vector(vector: VectorRow) -> Iterator[str]:
    known = "" if vector.known else ", a fallback: the entity has no text"
    yield f"vector of width {vector.width}, norm {vector.norm}{known}: {list(vector.head)} ..."
    if vector.encoder:
        yield f"[encoder] {vector.encoder}"
    if vector.text is not None:
        yield from _value("text", vector.text)
    for near in vector.neighbours:
        yield f"neighbour {near.cosine:.4f} {_named(near)}"


def _model(use: ModelUse) -> Iterator[str]:
    names = f" -> {use.registered} version {use.version}" if use.registered else ""
    aliases = f" ({', '.join(use.aliases)})" if use.aliases else ""
    stale = "" if use.current else "  (an older version)"
    flags = f"  [{', '.join(use.flags)}]" if use.flags else ""
    through = ", ".join(use.through)
    yield f"{use.asset} @ {use.data_version} by {through}{names}{aliases}{stale}{flags}"
    if use.metric is not None:
        yield f"  {_metric(use.metric)}"
    if use.gate:
        yield f"  gate: {use.gate}: {'; '.join(use.gate_reasons)}"


def _metric(m: Metric) -> str:
    told = f"test {m.name} {number(m.value)}"
    if m.base is not None:
        told += f", base {m.base_model} {number(m.base)}, difference {number(m.difference)}"
        told += f" [{number(m.low)}, {number(m.high)}]"
    return f"{told}; {m.verdict}"


def render_recommendation(found: Recommendation) -> str:
    """Return a served list with its evidence as lines."""
    flags = f"  [{', '.join(found.flags)}]" if found.flags else ""
    lines = [f"{found.user} of {found.dataset}: {found.model} version {found.version}{flags}"]
    if found.asset:
        lines.append(f"trained as {found.asset} @ {found.data_version}")
    if found.metric is not None:
        lines.append(_metric(found.metric))
    if found.fallback:
        lines.append(f"fallback: {found.fallback}: {found.note}")
    lines += [f"made from {_read(read)}" for read in found.user_read]
    for n, row in enumerate(found.items, start=1):
        lines += ["", f"{n}. {number(row.score)} {_named(row.item)}"]
        near = "; ".join(f"{_named(one)} ({number(one.cosine)})" for one in row.nearest)
        if near:
            lines.append(f"   near {near}, by {row.by}")
        for attribute, counts in row.shared.items():
            told = ", ".join(f"{value} ({count})" for value, count in counts.items())
            lines.append(f"   shares {attribute}: {told}")
        lines += [f"   made from {_read(read)}" for read in row.read]
    return "\n".join(lines)


def _read(read: Read) -> str:
    return f"{read.asset} @ {read.data_version}" + (f": {read.brief}" if read.brief else "")


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _named(entity: Named) -> str:
    return f"{entity.id} {entity.title}" if entity.title else entity.id


def _titled(value: Any, titles: Mapping[str, str]) -> str:
    found = titles.get(value) if isinstance(value, str) else None
    return f"{value} ({found})" if found else str(value)


def _value(name: str, value: Any) -> Iterator[str]:
    first, *more = str(value)[:_LONG].splitlines() or [""]
    yield f"{name}: {first}"
    yield from (f"  {line}" for line in more)
