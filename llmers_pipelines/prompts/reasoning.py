"""The four questions about chains of reasons in a history (LLMRG, arXiv:2308.10835).

``ChainReasoning``: which earlier item each item follows from, and why. ``FillStep``: a step with
its end masked. ``ScoreChains``: how well each chain fits the person. ``ExtendChains``: titles that
might come next. Items are told by numbers of the list that is shown, so that none is invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from .checks import normal, refusal
from .domains import domain_of
from .fields import DATA_RULE, as_data, fenced
from .schema import answer_schema, narrow
from .task import Context, Message, PromptTask, Row

_REASON = """\
You are given the {plural} that one person has {did}, oldest first and numbered, the numbers to \
explain, and chains of reasons found so far. For each number to explain say which earlier number \
it follows from and why, or 0 where it starts something new.
Answer with one JSON object: {{"steps": [{{"item": 2, "after": 1, "reason": "..."}}]}}
Rules:
- "after" is smaller than "item". Each number to explain once.
- The reason names what the two {plural} share for this person, at most twelve words, no titles.
- {data_rule}
- Answer with the JSON object alone."""

_FILL = """\
A person has {did} a {noun}, and for the reason given then one more, whose title is hidden. Name \
the hidden {noun}.
Rules:
- Answer with the title alone.
- {data_rule}"""

_SCORE = """\
You are given the {plural} that one person has {did}, oldest first, and numbered chains of \
reasons that may lead from one to the next. Say for each chain how well it explains this person, \
from 1 (not at all) to 10 (convincing).
Answer with one JSON object of one number per chain, in their order: {{"scores": [7]}}
Rules:
- {data_rule}
- Answer with the JSON object alone."""

_EXTEND = """\
You are given the {plural} that one person has {did}, oldest first, and chains of reasons that \
hold for this person. Follow the chains: name {plural} that the person might choose next and has \
not yet.
Answer with one JSON object: {{"imagined": ["...", "..."]}}
Rules:
- At most {most} titles of real {plural}, the likeliest first.
- {data_rule}
- Answer with the JSON object alone."""


class Step(BaseModel):
    item: int
    after: int
    reason: str = Field(max_length=120)


class ChainReasoningAnswer(BaseModel):
    steps: list[Step] = Field(min_length=1, max_length=40)


class ChainReasoningRow(BaseModel):
    """What is published: the k-th item follows from the k-th ``after`` ("" where it starts one)."""

    items: list[str]
    after: list[str]
    reasons: list[str]


@dataclass(frozen=True)
class _Chains(PromptTask):
    """``round`` names the round that asks; rows are those of ``derive/reasoning.py``."""

    entity: ClassVar[str] = "user"
    usual: ClassVar[str] = "sequential"

    round: int = 1

    def pairs(self, row: Row) -> list[tuple[str, str]]:
        return [(row["user_id"], item) for item in row["items"]]

    def _messages(self, system: str, tag: str, parts: Mapping[str, Sequence[str]]) -> list[Message]:
        rule = DATA_RULE.format(tag=tag)
        for name in list(parts)[1:]:
            rule = rule.replace(f"</{tag}>", f"</{tag}>, and between <{name}> and </{name}>,", 1)
        content = "\n".join(fenced(n, list(lines)) for n, lines in parts.items() if lines)
        return [{"role": "system", "content": system.replace("{data_rule}", rule)},
                {"role": "user", "content": content}]  # fmt: skip


@dataclass(frozen=True)
class ChainReasoning(_Chains):
    """A step to each item that no verified step explains yet; steps that cannot be are left out."""

    produces: ClassVar[str] = "kg_edges"
    answer: ClassVar[type[BaseModel]] = ChainReasoningAnswer
    published: ClassVar[type[BaseModel] | None] = ChainReasoningRow
    system: ClassVar[str] = _REASON

    def unaskable(self, row: Row, context: Context = None) -> str:
        asked = row.get("asked") and len(row["items"]) > 1
        return "" if asked else "there is nothing to explain"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(plural=domain.plural, did=domain.did, data_rule="{data_rule}")
        told = [f"{n}. {as_data(t, limit=120)}" for n, t in enumerate(row["titles"], start=1)]
        wanted = [str(n) for n in self._numbers(row)]
        messages = self._messages(system, "history", {
            "history": told, "chains": [as_data(c, limit=600) for c in row["chains"]],
        })  # fmt: skip
        messages[1]["content"] += f"\nNumbers to explain: {', '.join(wanted)}"
        return messages

    def _numbers(self, row: Row) -> list[int]:
        place = {item: n for n, item in enumerate(row["items"], start=1)}
        return [place[i] for i in row["asked"] if i in place]

    def row_schema(self, row: Row) -> dict[str, Any]:
        numbers = self._numbers(row)
        schema = narrow(answer_schema(self.answer), "steps[].item", enum=numbers)
        schema = narrow(schema, "steps[].after", enum=list(range(max(numbers))))
        return narrow(schema, "steps", max_items=len(numbers))

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        said = [refusal(s["reason"]) for s in value["steps"]]
        if any(said):
            return [next(r for r in said if r)]
        return [] if self._sound(value, row) else ["no step leads from an earlier number of the "
                                                   "list to one that was asked about"]  # fmt: skip

    def _sound(self, value: Mapping[str, Any], row: Row) -> list[Mapping[str, Any]]:
        """Return the first step to each number that was asked about, from an earlier number."""
        wanted, found = set(self._numbers(row)), {}
        for step in value["steps"]:
            n, after = step["item"], step["after"]
            if n in wanted and 0 <= after < n and (not after or normal(step["reason"])):
                found.setdefault(n, step)
        return [found[n] for n in sorted(found)]

    def resolved(self, value: Mapping[str, Any], row: Row) -> dict[str, Any]:
        ids, steps = ["", *row["items"]], self._sound(value, row)
        return {"items": [ids[s["item"]] for s in steps], "after": [ids[s["after"]] for s in steps],
                "reasons": [as_data(s["reason"]) if s["after"] else "" for s in steps]}  # fmt: skip

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """Each item follows from the one before it, because it came after it."""
        return {"steps": [{"item": n, "after": n - 1, "reason": "came right after"}
                          for n in self._numbers(row)]}  # fmt: skip

    def text(self, value: Mapping[str, Any]) -> str:
        """Return the steps of an answer, as it came or as it is published."""
        if "steps" in value:
            steps = [(s["after"], s["item"], s["reason"]) for s in value["steps"]]
        else:
            steps = list(zip(value["after"], value["items"], value["reasons"], strict=True))
        return as_data("; ".join(f"{a or 'start'} -> {i} ({r})" for a, i, r in steps))


@dataclass(frozen=True)
class FillStep(PromptTask):
    """The title that fills the mask of a step: what is known of a pair, and of nobody."""

    produces: ClassVar[str] = "kg_edges"
    entity: ClassVar[str] = "step"
    system: ClassVar[str] = _FILL
    round: int = 1

    def unaskable(self, row: Row, context: Context = None) -> str:
        told = as_data(row.get("after_title")) and as_data(row.get("reason"))
        return "" if told else "the step has no title or no reason"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(did=domain.did, noun=domain.noun,
                                    data_rule=DATA_RULE.format(tag="step"))  # fmt: skip
        lines = [f"from: {as_data(row['after_title'], limit=120)}",
                 f"reason: {as_data(row['reason'], limit=120)}", "to: [hidden]"]  # fmt: skip
        return [{"role": "system", "content": system},
                {"role": "user", "content": fenced("step", lines)}]  # fmt: skip

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        said = refusal(value["text"])
        return [said] if said else []

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """The control believes every step."""
        return {"text": as_data(row["item_title"])}

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data(value["text"], limit=200)


class ScoreChainsAnswer(BaseModel):
    scores: list[Annotated[int, Field(ge=1, le=10)]] = Field(min_length=1, max_length=40)


@dataclass(frozen=True)
class ScoreChains(_Chains):
    """One number from 1 to 10 per chain of a person, in the order of the chains."""

    produces: ClassVar[str] = "sample_scores"
    answer: ClassVar[type[BaseModel]] = ScoreChainsAnswer
    system: ClassVar[str] = _SCORE

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if row.get("chains") else "there is no chain to score"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(plural=domain.plural, did=domain.did, data_rule="{data_rule}")
        chains = [f"{n}. {as_data(c, limit=600)}" for n, c in enumerate(row["chains"], start=1)]
        told = [as_data(t, limit=120) for t in row["titles"]]
        return self._messages(system, "history", {"history": told, "chains": chains})

    def row_schema(self, row: Row) -> dict[str, Any]:
        schema = narrow(answer_schema(self.answer), "scores", max_items=len(row["chains"]))
        schema["properties"]["scores"]["minItems"] = min(40, len(row["chains"]))
        return schema

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        found, wanted = len(value["scores"]), min(40, len(row["chains"]))
        return [] if found == wanted else [f"{wanted} chains are to be scored, the answer has "
                                           f"{found} numbers"]  # fmt: skip

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """The control finds every chain convincing."""
        return {"scores": [10] * min(40, len(row["chains"]))}

    def text(self, value: Mapping[str, Any]) -> str:
        return ", ".join(map(str, value["scores"]))


class ExtendChainsAnswer(BaseModel):
    imagined: list[Annotated[str, Field(max_length=120)]] = Field(min_length=1, max_length=10)


@dataclass(frozen=True)
class ExtendChains(_Chains):
    """At most ``most`` titles that might come next, as the model writes them."""

    produces: ClassVar[str] = "generated_items"
    answer: ClassVar[type[BaseModel]] = ExtendChainsAnswer
    system: ClassVar[str] = _EXTEND
    most: int = 5

    def unaskable(self, row: Row, context: Context = None) -> str:
        return "" if row.get("chains") else "there is no chain to extend"

    def render(self, row: Row, context: Context = None) -> list[Message]:
        domain = domain_of(context)
        system = self.system.format(plural=domain.plural, did=domain.did, most=self.most,
                                    data_rule="{data_rule}")  # fmt: skip
        told = [as_data(t, limit=120) for t in row["titles"]]
        chains = [as_data(c, limit=600) for c in row["chains"]]
        return self._messages(system, "history", {"history": told, "chains": chains})

    def row_schema(self, row: Row) -> dict[str, Any]:
        return narrow(answer_schema(self.answer), "imagined", max_items=self.most)

    def ground(self, value: Mapping[str, Any], row: Row) -> list[str]:
        said = [refusal(t) for t in value["imagined"]]
        if any(said):
            return [next(r for r in said if r)]
        return [] if any(map(normal, value["imagined"])) else ["the answer names no title"]

    def template(self, row: Row, context: Context = None) -> dict[str, Any]:
        """The control imagines nothing new: what it names is known and leads nowhere."""
        return {"imagined": [as_data(t, limit=120) or "nothing" for t in row["titles"][-1:]]
                or ["nothing"]}  # fmt: skip

    def text(self, value: Mapping[str, Any]) -> str:
        return as_data("; ".join(value["imagined"]))
