"""Answers of a batch interface back into the response store, each under the key that was asked.

Reads the output and error files of OpenAI's batch interface and of vLLM's run_batch. Nothing is
taken on trust: an answer counts only for a request that was exported from here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..prices import Price
from ..store.responses import ResponseStore, response_key
from .batch_export import outbox
from .chat_form import Completion, read_completion, same_model
from .identity import file_sha256
from .key_scrub import without_key
from .ledger import Bill, Use
from .meter import nanos, utc_day
from .openai_http import error_of
from .protocol import EngineError

CHUNK = 5000  # lines that are looked up and stored together
_SHOWN = 200


@dataclass(frozen=True)
class Fault:
    """A line that cannot be used: where it is, why, and how it begins."""

    file: str
    line: int
    reason: str
    text: str


@dataclass
class Imported:
    """``failed``: reasons of requests that the provider did not answer; they stay missing."""

    lines: int = 0
    stored: int = 0
    known: int = 0  # answered before: by this file, another one, or a run
    failed: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    money: float = 0.0
    uncounted: int = 0  # answers whose file tells no usage
    unpriced: tuple[str, ...] = ()  # models without a price
    hide: Callable[[str], str] = field(default=str, repr=False)  # takes the key out of messages


@dataclass(frozen=True)
class _Line:
    number: int
    text: str
    key: str
    document: Mapping[str, Any]


def import_batch(
    file: Path,
    *,
    data: Path,
    ledger: Any,
    prices: Mapping[str, Price],
    aliases: Sequence[str] = (),
    key: str = "",
) -> Imported:
    """Store the answers of ``file`` that are not stored yet, and book what they cost.

    ``aliases``: names under which the asked model was served elsewhere. ``key``: of the provider;
    it is hidden wherever the file holds it. A second import of a file stores and books nothing; one
    after an import that broke off books no line twice. ``EngineError`` where the file is not there.
    """
    if not file.is_file():
        raise EngineError(f"{file}: no such file")
    store, asked = ResponseStore(data / "responses"), outbox(data)
    run = f"batch-{file_sha256(file)[:12]}"
    done = Imported(hide=partial(without_key, key=key, always=True))
    unpriced: set[str] = set()
    with store.writer(flush_rows=CHUNK, flush_seconds=1e9) as writer:
        for lines in _chunks(file, done):
            requests = {r["key"]: r for r in asked.records(line.key for line in lines)}
            stored = store.known(requests)
            answers: list[tuple[Mapping[str, Any], Completion]] = []
            bills: list[Bill] = []
            for line in lines:
                row = requests.get(line.key)
                if row is None or not _whole(row):
                    _fault(done, file, line.number, line.text, (
                        f"custom_id {line.key[:80]!r} was not exported from here; import the "
                        "answers where `llmers batch export` ran"
                    ) if row is None else "what was exported for this request is damaged; export "
                        "it anew")  # fmt: skip
                    continue
                found = _answer(line, row, aliases, done, file)
                if found is None:
                    continue
                found = replace(found, text=without_key(found.text, key),
                                served=done.hide(found.served))  # fmt: skip
                if line.key in stored:
                    done.known += 1
                    continue
                stored.add(line.key)
                answers.append((row, found))
                name = json.loads(row["libraries"])["model"]
                price = prices.get(name)
                cost = 0.0
                if price is None:
                    unpriced.add(name)
                else:
                    cost = price.tokens(
                        found.tokens_in, found.tokens_out, cached=found.cached, batch=True
                    )
                used = Use(1, found.tokens_in + found.tokens_out, nanos(cost))
                bills.append(Bill(_mark(line), name, used))
                _count(done, found, cost)
            # Booked before stored: after a crash in between too much is counted, never too little.
            # The marks keep the next import of the same lines from booking them again.
            ledger.book_once(utc_day(), run, bills)
            for row, found in answers:
                _put(writer, row, found, file)
            writer.flush()
            ledger.forget(_mark(line) for line in lines if line.key in stored)
    done.unpriced = tuple(sorted(unpriced))
    return done


def _chunks(file: Path, done: Imported) -> Iterator[list[_Line]]:
    """Yield readable lines in chunks; others become faults."""
    chunk: list[_Line] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, text in enumerate(lines, 1):
            if not text.strip():
                continue
            done.lines += 1
            try:
                document = json.loads(text)
            except (ValueError, RecursionError) as error:
                _fault(done, file, number, text, f"not JSON ({error}); is the file complete?")
                continue
            key = document.get("custom_id") if isinstance(document, dict) else None
            if not isinstance(key, str) or len(key) != 64 or set(key) - set("0123456789abcdef"):
                _fault(done, file, number, text, "no custom_id of this project (64 hex digits)")
                continue
            chunk.append(_Line(number, text, key, document))
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _answer(
    line: _Line, row: Mapping[str, Any], aliases: Sequence[str], done: Imported, file: Path
) -> Completion | None:
    """Return the line's answer; None after noting why there is none."""
    response = line.document.get("response")
    response = response if isinstance(response, Mapping) else {}
    body, status = response.get("body"), response.get("status_code", 200)
    error = error_of(line.document) or error_of(body)
    if line.document.get("error") or status != 200 or (error and not _has_choices(body)):
        code = error.get("type") or error.get("code") or ""
        said = " ".join(done.hide(str(error.get("message") or "")).split())[:_SHOWN]
        done.failed[" ".join(filter(None, (f"HTTP {status}", done.hide(str(code)), said)))] += 1
        return None
    try:
        found = read_completion(body)
    except ValueError as why:
        _fault(done, file, line.number, line.text, str(why))
        return None
    most_out = json.loads(row["request"])["sampling"]["max_tokens"]
    most = (len(row["request"].encode()) + 64, most_out)
    found = found.within(most)
    if not found.known:  # nobody says what it cost: it counts with its bound
        found = replace(found, tokens_in=most[0], tokens_out=most[1])
    name = json.loads(row["libraries"])["model"]
    if not any(same_model(allowed, found.served) for allowed in (name, *aliases)):
        _fault(done, file, line.number, line.text, (
            f"asked of {name!r}, answered by {found.served!r}; if these are the same weights, "
            f"give --served-as {found.served}"
        ))  # fmt: skip
        return None
    return found


def _whole(row: Mapping[str, Any]) -> bool:
    """Say whether an exported row still holds the request that its key stands for."""
    if not (row["identity"] and row["request"] and row["libraries"]):
        return False
    return response_key(row["identity"], row["request"]) == row["key"]


def _mark(line: _Line) -> str:
    """Return what an answer is booked under: the same line is the same answer, in any file."""
    return hashlib.sha256(line.text.strip().encode("utf-8", "replace")).hexdigest()


def _has_choices(body: Any) -> bool:
    return isinstance(body, Mapping) and bool(body.get("choices"))


def _fault(done: Imported, file: Path, number: int, text: str, reason: str) -> None:
    # Hidden before it is cut: a cut could leave half of the key.
    shown = done.hide(text.strip())[:_SHOWN]
    done.faults.append(Fault(str(file), number, done.hide(reason), shown))


def _count(done: Imported, found: Completion, money: float) -> None:
    done.stored += 1
    done.tokens_in += found.tokens_in
    done.tokens_out += found.tokens_out
    done.tokens_cached += found.cached
    done.money += money
    done.uncounted += not found.known


def _put(writer: Any, row: Mapping[str, Any], found: Completion, file: Path) -> None:
    beside = {"batch": file.name} | ({"served": found.served} if found.served else {})
    writer.put(
        text=found.text, finish_reason=found.finish_reason, request=row["request"],
        identity=row["identity"], tokens_in=found.tokens_in, tokens_out=found.tokens_out,
        engine=row["engine"], model=row["model"], libraries=json.dumps(beside, sort_keys=True),
        task=row["task"], prompt_revision=row["prompt_revision"], row_id=row["row_id"],
    )  # fmt: skip
