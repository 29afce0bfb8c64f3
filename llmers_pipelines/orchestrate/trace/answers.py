"""One generated row: the question as it was asked, each raw answer, and why it became a value."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...config import Settings
from ...data.schema import DataError
from ...plan import Generate
from ...store.manifests import Manifest
from ...store.responses import ResponseStore, response_key
from ..context import StepError
from .entities import rows_of
from .form import AnswerRow, Attempt, Engine, Prompt
from .stored import AsMade, Cache, Stored

_OWN = ("text", "status", "reason", "raw", "request_key", "prompt_revision", "model",
        "truncated", "safety")  # fmt: skip
_AGAIN = "; asked again: "  # between the reasons of a row that was refused twice
_RECORDED = ("the answer is a recorded one, so what its author sent to the model is not known here")
_NOTHING = "no answer is recorded for this row; so it would be asked"
_TEMPLATE = "no language model read it: the template speaks from the row itself"


def answer_content(
    stored: Stored, manifest: Manifest, table: pa.Table, entity: str, row_id: str
) -> AnswerRow | None:
    """Return everything that is known of one answer; None where the table has no such row."""
    rows = rows_of(table, entity, row_id).to_pylist()
    if not rows:
        return None
    row = rows[0]
    judge = _Judge.of(stored, manifest, row, row_id)
    found = _records(stored, manifest, row, judge)
    masked = any(f.get("action") == "mask" for f in row.get("safety") or ())
    attempts = [] if masked else _attempts(row, found, judge)
    note = judge.note
    if masked:  # the store keeps the answer as it came; here it stays masked
        attempts = [Attempt(row["raw"], finish_reason="")]
        note = "; ".join(filter(None, [note, "a safety check masked parts of this answer"]))
    return AnswerRow(
        status=row["status"],
        reason=row["reason"] or "",
        text=row["text"],
        value={k: v for k, v in row.items() if k not in (*_OWN, f"{entity}_id")},
        prompt_revision=row["prompt_revision"],
        prompt=_prompt(found, judge, row),
        engine=_engine(found, manifest, row),
        attempts=tuple(attempts),
        left_out=row.get("truncated") or "",
        safety=tuple(row.get("safety") or ()),
        note=note,
    )


@dataclass(frozen=True)
class _Judge:
    """Renders and judges one row again, by the versions that its answer was made from.

    ``task`` is None where the loaded task has another revision than the row (or none is loaded):
    another revision's rules would tell another story. ``request`` is None where nothing is asked.
    """

    note: str = ""
    task: Any = None
    row: Any = None
    request: Any = None

    @classmethod
    def of(
        cls, stored: Stored, manifest: Manifest, answer: Mapping[str, Any], row_id: str
    ) -> _Judge:
        node = stored.node(manifest.name)
        if not isinstance(node, Generate) or node.over is None:
            return cls(f"{manifest.name} is not loaded by llmers.toml now, so nothing is rendered "
                       "or judged again")  # fmt: skip
        task = node.task
        if task.prompt_revision != answer["prompt_revision"]:
            return cls(f"the loaded task has revision {task.prompt_revision}, this answer "
                       f"{answer['prompt_revision']}: it is not judged again")  # fmt: skip
        from ...llm.runner import render
        from ..steps.generate import entity_rows, prompt_context, sampling_of

        try:
            view = AsMade(stored, manifest, node.over.name, task.id_column, row_id)
            columns = str(sorted(view.field_kinds.items()))
            if manifest.sources.get("columns", columns) != columns:
                return cls("other columns are declared now than when it was asked, so it is "
                           "neither rendered nor judged again")  # fmt: skip
            rows = entity_rows(node, view)
        except (StepError, DataError) as error:
            return cls(f"it cannot be rendered again: {error}")
        row = next((r for r in rows if str(r[task.id_column]) == row_id), None)
        if row is None:
            return cls("the version that it was made from has no such row")
        context = {**prompt_context(view), "images": None}  # pictures are told by their hash
        if task.unaskable(row, context):
            return cls("", task, row)
        return cls("", task, row, render(task, row_id, row, sampling_of(view), context))

    def attempt(self, told: Attempt, *, grounded: bool) -> Attempt:
        """Return ``told`` with its stage, reason and fields, as the task judges it."""
        if self.task is None or self.request is None or told.raw is None:
            return told
        from ...llm.asking import Ask
        from ...llm.protocol import GenResult
        from ...llm.runner import FINAL, judge_result

        ask = Ask(self.request.row_id, self.row, self.request, "", told.key, self.request)
        result = GenResult(ask.row_id, told.raw, told.finish_reason or "stop")
        outcome = judge_result(self.task, ask, result, grounded=grounded)
        parsed = self.task.parse(told.raw)
        if outcome.status == "ok":
            stage = ""
        elif told.finish_reason == "length":
            stage = "cut"
        elif told.finish_reason in FINAL:
            stage = "refusal"
        else:
            stage = "parse" if parsed.value is None else "grounding"
        return dataclasses.replace(told, stage=stage, reason=outcome.reason, parsed=parsed.value)


def _records(
    stored: Stored, manifest: Manifest, row: Mapping[str, Any], judge: _Judge
) -> list[dict[str, Any]]:
    """Return the stored answers of this row in the order in which they were asked for."""
    key = row["request_key"]
    if not key:
        return []
    store = answers(stored.cache, stored.settings)
    mine = store.records([key])
    if not mine:
        return []
    other = _asked_before(mine[0]) if row["status"] == "repaired" else None
    if other is not None:
        return [*store.records([other]), *mine]
    if _AGAIN in (row["reason"] or "") and judge.task is not None:
        first = str(row["reason"]).split(_AGAIN)[0]
        return [*mine, *store.records(_asked_after(mine[0], judge.task.repair(first)))]
    return mine


def answers(cache: Cache, settings: Settings) -> ResponseStore:
    """Return the home's response store, whose keys stay in memory once they were read."""
    folder = settings.data / "responses"
    return cache.get(("responses", folder), lambda: ResponseStore(folder))


def _key(record: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Return the key of another request to the model that answered ``record``."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return response_key(record["identity"], text)


def _asked_before(record: Mapping[str, Any]) -> str | None:
    """Return the key of the question that ``record`` repeats; None where it is the first.

    A refused answer is asked for again with the answer and the reason behind the messages; a cut
    one with the same messages and twice the room.
    """
    request = json.loads(record["request"])
    roles = [m["role"] for m in request["messages"]]
    if roles[-2:] == ["assistant", "user"]:
        return _key(record, {**request, "messages": request["messages"][:-2]})
    sampling = request["sampling"]
    if sampling["max_tokens"] % 2:
        return None
    half = {**sampling, "max_tokens": sampling["max_tokens"] // 2}
    return _key(record, {**request, "sampling": half})


def _asked_after(record: Mapping[str, Any], repair: str) -> list[str]:
    """Return the keys under which the question after a refused ``record`` may be stored."""
    from ...llm.neutral import COMMON, neutralize

    request = json.loads(record["request"])
    if record["finish_reason"] == "length":
        sampling = {**request["sampling"], "max_tokens": 2 * request["sampling"]["max_tokens"]}
        return [_key(record, {**request, "sampling": sampling})]
    keys = []
    for clean in (lambda text: text, lambda text: neutralize(text, COMMON)):
        more = [{"role": "assistant", "content": clean(record["text"])},
                {"role": "user", "content": clean(repair)}]  # fmt: skip
        keys.append(_key(record, {**request, "messages": [*request["messages"], *more]}))
    return keys


def _attempts(
    row: Mapping[str, Any], records: list[dict[str, Any]], judge: _Judge
) -> list[Attempt]:
    # A fallback's text is the template's, but what was refused before is a model's.
    grounded = row["model"] != "no LLM (template)" or row["status"] == "fallback"
    if not records:
        if row["raw"] is None:
            return []
        told = judge.attempt(Attempt(row["raw"], key=row["request_key"] or ""), grounded=grounded)
        return [told]
    out = []
    for record in records:
        told = Attempt(
            record["text"], finish_reason=record["finish_reason"],
            tokens_in=record["tokens_in"], tokens_out=record["tokens_out"], key=record["key"],
            asked=_seconds(record["created"]), stored=True,
        )  # fmt: skip
        out.append(judge.attempt(told, grounded=grounded))
    reasons = (row["reason"] or "").split(_AGAIN)
    if len(out) > 1:  # what the run noted counts; it is told even where nothing is judged again
        out[0] = dataclasses.replace(out[0], reason=reasons[0], asked_again=_more(records))
    elif row["status"] == "quarantined" and not out[0].reason:
        out[0] = dataclasses.replace(out[0], reason=reasons[0])
    return out


def _seconds(moment: Any) -> str:
    return moment.isoformat(timespec="seconds") if hasattr(moment, "isoformat") else str(moment)


def _more(records: list[dict[str, Any]]) -> str:
    """Return what the second question said beside the first."""
    first, second = (json.loads(r["request"]) for r in records[:2])
    more = second["messages"][len(first["messages"]) :]
    if more:
        return "\n".join(str(m["content"]) for m in more if m["role"] == "user")
    return f"the same question with room for {second['sampling']['max_tokens']} tokens"


def _prompt(records: list[dict[str, Any]], judge: _Judge, row: Mapping[str, Any]) -> Prompt:
    if records and records[0]["engine"] != "recorded":
        request = json.loads(records[0]["request"])
        return Prompt("asked", tuple(request["messages"]), request["schema"],
                      request["sampling"])  # fmt: skip
    if judge.request is not None:
        from ...llm.pictures import plain_message

        r = judge.request
        recorded = str(row["model"]).endswith("(recorded)")
        template = row["model"] == "no LLM (template)"
        return Prompt(
            "rendered", tuple(plain_message(m) for m in r.messages), r.schema,
            {"max_tokens": r.max_tokens, "temperature": r.temperature, "top_p": r.top_p,
             "seed": r.seed},
            _TEMPLATE if template else "the response store lacks it" if not recorded
            else _RECORDED if row["raw"] is not None else _NOTHING,
        )  # fmt: skip
    if judge.task is not None:
        return Prompt("", note="nothing was asked about this row")
    if records:
        request = json.loads(records[0]["request"])
        return Prompt("rendered", tuple(request["messages"]), request["schema"],
                      request["sampling"], _RECORDED)  # fmt: skip
    return Prompt("", note=judge.note)


def _engine(
    records: list[dict[str, Any]], manifest: Manifest, row: Mapping[str, Any]
) -> Engine:
    model = str(row["model"])
    cutoff = str(manifest.info.get("data_cutoff") or "")
    if records:
        record = records[-1]
        try:
            libraries = json.loads(record["libraries"] or "{}")
        except ValueError:
            libraries = {}
        return Engine(record["engine"], record["model"], record["identity"], libraries, cutoff)
    kind = "template" if model == "no LLM (template)" else (
        "recorded" if model.endswith("(recorded)") else "")  # fmt: skip
    return Engine(kind, model, "", {}, cutoff)
