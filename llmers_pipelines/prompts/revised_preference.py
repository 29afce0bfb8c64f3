"""A user's profile, corrected by what training gets wrong (LLMHD, arXiv:2409.10343).

Rows are users with ``profile`` and texts of items: ``disliked`` (met, but scored low throughout
training) and ``liked`` (not met, but scored high).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .checks import refusal, repetition, thin
from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced
from .task import Context, Message, PromptTask, Row

_SYSTEM = """\
You correct the profile of one user of a recommender system. You are given the profile, {plural} \
that do not fit the user although the user has {did} them, and {plural} that fit although the user \
has not met them. Write the profile anew such that both follow from it.
Rules:
- Keep what is not contradicted.
- Speak of kinds and qualities; do not name or recommend single {plural}.
- Plain sentences, at most {words} words, no headings and no lists.
- {data_rule}
- Answer with the text alone."""

_KINDS = {"disliked": "do_not_fit", "liked": "fit"}


@dataclass(frozen=True)
class RevisedPreference(PromptTask):
    """One text per user whose errors training is sure of; ``version`` counts from 2."""

    produces: ClassVar[str] = "user_profiles"
    entity: ClassVar[str] = "user"
    usual: ClassVar[str] = "collaborative"
    system: ClassVar[str] = _SYSTEM
    version: int = 2
    words: int = 200
    limit: int = 400  # characters told of each item

    def unaskable(self, row: Row, context: Context = None) -> str:
        if not as_data(row.get("profile")):
            return "the user has no profile"
        told = any(as_data(t) for kind in _KINDS for t in _list(row, kind))
        return "" if told else "no item speaks against the profile"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        rule = DATA_RULE.format(tag="profile").replace(
            "</profile>", "</profile>, <do_not_fit> and </do_not_fit>, and <fit> and </fit>,"
        )
        system = self.system.format(plural=domain.plural, did=domain.did, words=self.words,
                                    data_rule=rule)  # fmt: skip
        parts = [fenced("profile", [as_data(row.get("profile"))])]
        for kind, tag in _KINDS.items():
            lines = [f"- {t}" for given in _list(row, kind)
                     if (t := as_data(given, limit=self.limit))]  # fmt: skip
            if lines:
                parts.append(fenced(tag, lines))
        return [{"role": "system", "content": system},
                {"role": "user", "content": "\n".join(parts)}]  # fmt: skip

    def left_out(self, row: Row, context: Context = None) -> list[str]:
        cut = sum(len(as_data(t)) > self.limit for kind in _KINDS for t in _list(row, kind))
        return [f"items: {cut} cut at {self.limit} characters"] if cut else []

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        reasons = (check(value["text"]) for check in (refusal, repetition))
        return [r for r in (*reasons, thin(value["text"], (), least=3)) if r]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """The profile as it is: a template learns nothing from errors."""
        return {"text": as_data(row.get("profile"))}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"])


def _list(row: Row, name: str) -> list[Any]:
    found = row.get(name)
    return [] if found is None else list(found)
