"""What a run has learned of an endpoint: what it refuses, ignores, or does not tell."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .chat_form import Completion, Form, same_model
from .schema_check import breach

REFUSED_AT_FIRST = 20  # rows refused before the first answer: then it is not about the rows


class Seen:
    """Counts over all threads; ``notes`` says them once, however often they occurred."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers = 0
        self._refused = 0
        self._checked = 0
        self._broken = 0
        self._example = ""
        self._uncounted = 0
        self._taken: set[str] = set()  # forms of schema that were taken at least once
        self._once: dict[str, str] = {}

    def refused(self) -> bool:
        """Note a row that was refused; True where nothing but refusals came so far."""
        with self._lock:
            self._refused += 1
            return not self._answers and self._refused >= REFUSED_AT_FIRST

    def answered(self, asked: str, schema: Mapping[str, Any] | None, found: Completion) -> None:
        """Note an answer, and check that it obeys the schema that was sent with its request."""
        wrong = breach(schema, found.text) if schema and found.finish_reason == "stop" else ""
        with self._lock:
            self._answers += 1
            self._uncounted += not found.known
            self._checked += schema is not None and found.finish_reason == "stop"
            self._broken += bool(wrong)
            self._example = self._example or wrong
            if not same_model(asked, found.served):
                self._once.setdefault("model", (
                    f"asked for model {asked!r}, answered by {found.served!r}: if that is another "
                    "model, give its name as llm.model, or its state as llm.revision"
                ))  # fmt: skip

    def settled(self, old: Form, tried: Form, schema: bool, reason: str) -> Form:
        """Return the form to use from now on, after ``tried`` was taken.

        A lower schema becomes the rule only where the higher one was never taken: one row's schema
        may be at fault.
        """
        with self._lock:
            new = replace(old, limit=tried.limit, seed=old.seed and tried.seed)
            if schema:
                self._taken.add(tried.schema)
                if old.schema not in self._taken:
                    new = replace(new, schema=tried.schema)
            if new.schema != old.schema:
                how = "without any schema" if new.schema == "none" else "without its limits"
                self._once["schema"] = (
                    f"the endpoint refuses the JSON schema ({reason}): asked {how}; answers are "
                    f'checked afterwards (llm.schema_form = "{new.schema}" saves the first refusal)'
                )
            if new.limit != old.limit:
                self._once["limit"] = f'the endpoint wants llm.token_limit = "{new.limit}"'
            if new.seed != old.seed:
                self._once["seed"] = "the endpoint takes no seed: asked without it"
            return new

    def notes(self) -> tuple[str, ...]:
        with self._lock:
            out = list(self._once.values())
            if self._broken:
                out.append(
                    f"{self._broken} of {self._checked} answers break the JSON schema that was "
                    f"sent ({self._example}): the endpoint does not enforce response_format. They "
                    "are parsed all the same and asked again where that fails; an endpoint that "
                    "enforces json_schema saves these calls"
                )
            if self._uncounted:
                out.append(
                    f"{self._uncounted} answers came without usage: counted with the most that "
                    "they can have used"
                )
            return tuple(out)
