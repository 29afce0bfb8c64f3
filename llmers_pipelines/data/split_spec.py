"""The settings of one split: protocol, options and what each protocol understands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .strict_toml import Section
from .tasks import CLICK_TASKS, FIELD_TASKS, TASKS

# Options beyond the common ones, by protocol.
PROTOCOLS: dict[str, tuple[str, ...]] = {
    "leave_one_out": ("min_length",),
    "time": ("shares", "valid_from", "test_from"),
    "given": ("column", "values", "valid_share", "valid_by"),
    "random": ("shares", "by"),
    "cold_item": ("shares", "cold_share", "cold_by"),
    "cold_user": ("cold_share", "first"),
}
LATER = ("first",)
FIRST = (1, 2, 3, 5)  # rows that are known of a cold user
_SPECIFIC = tuple(dict.fromkeys(o for options in PROTOCOLS.values() for o in options))


@dataclass(frozen=True)
class SplitSpec:
    """How rows of the log become train, validation, test and history rows.

    ``shares`` are (train, valid, test). ``label`` and ``positive`` are rules such as
    ``rating >= 4``, ``event == 'click'`` or the name of a 0/1 column.
    """

    name: str
    protocol: str
    task: str
    column: str = ""  # given: the column that holds the part's name
    values: Mapping[str, str] = field(default_factory=dict)  # given: value -> part
    valid_share: float = 0.1  # given without validation rows: share of train used for it
    valid_by: str = "hash"  # or "last": the last rows of each user
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    valid_from: str = ""  # time: first moment of validation, ISO or seconds; instead of shares
    test_from: str = ""
    by: str = "user"  # random: shares of each user's rows, or "row": of all rows
    cold_share: float = 0.2  # of the items (cold_item) or the users (cold_user)
    cold_by: str = "hash"  # or "time": the items that appeared last
    first: int = 3  # cold_user: rows that are known of such a user, 1, 2, 3 or 5
    min_length: int = 3  # leave_one_out: shorter users give training rows only
    duplicates: str = "first"  # rows of one user and item: first, last or keep
    k_core: int = 0  # drop users and items with fewer interactions, repeatedly
    universe: str = "catalog"  # or "interactions": items that occur in the log
    events: tuple[str, ...] = ()  # keep these events only
    positive: str = ""  # ranking tasks: keep rows for which this holds
    label: str = ""  # click tasks: 1 where this holds
    scenario: str = ""  # multi_scenario: column of the interactions, or item.<field>, user.<field>
    impression: str = ""  # news: the column that says which rows were shown together
    history: int = 0  # ctr: first min(ceil(n/2), history) training rows feed prompts only
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """All settings; one that came later stands where its protocol reads it, so that splits
        that were made before keep their digest."""
        own = PROTOCOLS[self.protocol]
        return {k: v for k, v in asdict(self).items() if k not in LATER or k in own}

    def options(self) -> dict[str, Any]:
        """Settings in force as plain data: those of the protocol, and others that are set."""
        foreign = set(_SPECIFIC) - set(PROTOCOLS[self.protocol])
        own = {k: v for k, v in asdict(self).items() if k not in foreign and v not in ("", (), {})}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}


def parse_split(section: Section, name: str) -> SplitSpec:
    """Return the checked settings of ``[splits.<name>]``."""
    task = section.text("task") or next((t for t in TASKS if re.match(rf"{t}(_|$)", name)), "")
    if not task:
        raise section.fault("task", f"is missing and {name!r} names none; set one of {TASKS}")
    section.choice("task", task, TASKS)
    protocol = section.text("protocol", required=True)
    section.choice("protocol", protocol, tuple(PROTOCOLS))
    for option in _SPECIFIC:
        if option in section.raw and option not in PROTOCOLS[protocol]:
            who = ", ".join(p for p, options in PROTOCOLS.items() if option in options)
            raise section.fault(option, f"has no meaning for protocol {protocol!r}, only for {who}")
    shares = section.numbers("shares", (0.8, 0.1, 0.1))
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise section.fault("shares", f"is {list(shares)}; expected [train, valid, test], sum 1")
    spec = SplitSpec(
        name=name, protocol=protocol, task=task,
        column=section.text("column", required=protocol == "given"),
        values=section.table_of_texts("values"),
        valid_share=section.share("valid_share", 0.1),
        valid_by=section.choice("valid_by", section.text("valid_by", "hash"), ("hash", "last")),
        shares=(shares[0], shares[1], shares[2]),
        valid_from=section.text("valid_from"),
        test_from=section.text("test_from"),
        by=section.choice("by", section.text("by", "user"), ("user", "row")),
        cold_share=section.share("cold_share", 0.2),
        cold_by=section.choice("cold_by", section.text("cold_by", "hash"), ("hash", "time")),
        first=section.integer("first", 3),
        min_length=section.integer("min_length", 3, low=3),
        duplicates=section.choice(
            "duplicates",
            section.text("duplicates", "keep" if task in FIELD_TASKS else "first"),
            ("first", "last", "keep"),
        ),
        k_core=section.integer("k_core", 0),
        universe=section.choice(
            "universe", section.text("universe", "catalog"), ("catalog", "interactions")
        ),
        events=section.texts("events"),
        positive=section.text("positive"),
        label=section.text("label"),
        scenario=section.text("scenario", required=task == "multi_scenario"),
        impression=section.text("impression"),
        history=section.integer("history", 0),
        seed=section.integer("seed", 0),
    )  # fmt: skip
    section.finish()
    for value, part in spec.values.items():
        section.choice(f"values.{value}", part, ("train", "valid", "test", "drop"))
    if bool(spec.valid_from) != bool(spec.test_from):
        raise section.fault("valid_from", "and test_from belong together; give both or neither")
    if spec.first not in FIRST:
        raise section.fault("first", f"is {spec.first}; a cold user has 1, 2, 3 or 5 first rows")
    if spec.k_core and protocol == "time":
        raise section.fault("k_core", "looks into the future under protocol 'time'; leave it out")
    if spec.task in CLICK_TASKS and not spec.label:
        raise section.fault(
            "label", f'is missing; a {spec.task} split needs one, like "rating >= 4"'
        )
    for option, tasks in (
        ("history", CLICK_TASKS), ("scenario", ("multi_scenario",)), ("impression", ("news",))
    ):  # fmt: skip
        if getattr(spec, option) and spec.task not in tasks:
            raise section.fault(option, f"is for {' '.join(tasks)} splits, not for {spec.task!r}")
    return spec
