"""What prompts and recorded answers saw, against the split that they are used with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .description import NO_CUTOFF, UNKNOWN_CUTOFF, WHOLE_LOG, Recorded, Source
from .ranking_spec import RankingSpec
from .training import HISTORY, SPLIT_NAMES, TEST, TRAIN, VALID, TrainingData

LABELS_SEEN = "labels_seen"  # the author saw ratings of training rows
VALID_SEEN = "valid_seen"  # validation rows were cut from what the author saw
CONTAMINATED = "contaminated"  # the author may have seen test rows; accepted on purpose
MEMORISED = "memorised"  # a language model whose answers are read knows the data set by heart
_SHORTEST_TITLE = 5  # letters; shorter titles occur in any text


class LeakageError(ValueError):
    """An input knows more than its split allows; the message says what and the mend."""


@dataclass(frozen=True)
class Violation:
    """An interaction that a prompt must not show, or a text that tells of one."""

    user_id: str
    item_id: str
    found: str  # valid, test, train (where only history is allowed) or absent

    def __str__(self) -> str:
        what = "is not in the log" if self.found == "absent" else f"is a {self.found} row"
        return f"user {self.user_id!r}, item {self.item_id!r} {what}"


def prompt_violations(
    data: TrainingData,
    users: Sequence[str],
    items: Sequence[str],
    *,
    history_only: bool = False,
) -> list[Violation]:
    """Return the pairs (``users[i]``, ``items[i]``) of a prompt that are no training interaction.

    A pair is allowed when any of its rows is a TRAIN or HISTORY row; with ``history_only``, a
    HISTORY row. Each pair is reported once.
    """
    width = data.n_items + 1
    user, item = data.users.index(users), data.items.index(items)
    asked = user * width + item
    parts = (HISTORY,) if history_only else (TRAIN, HISTORY)
    pair = data.user * width + data.item
    allowed = np.isin(asked, pair[np.isin(data.split, parts)]) & (user > 0) & (item > 0)
    bad = np.flatnonzero(~allowed)
    found = dict.fromkeys((users[i], items[i], int(asked[i])) for i in bad.tolist())
    if not found:
        return []
    there = np.isin(pair, [key for *_, key in found])
    rows = zip(pair[there].tolist(), data.split[there].tolist(), strict=True)
    names = {key: SPLIT_NAMES[part] for key, part in rows}
    return [Violation(str(u), str(i), names.get(key, "absent")) for u, i, key in found]


def title_violations(
    data: TrainingData, texts: Mapping[str, str], titles: Mapping[str, str], split: int = TEST
) -> list[Violation]:
    """Return users whose text names the title of an item that they meet only in ``split``.

    ``texts`` maps user ids to generated texts, ``titles`` item ids to titles. Titles under five
    letters, and titles that the user's training rows contain as well, are passed over.
    """
    ids = data.items.ids
    plain = [_plain(titles.get(i, "")) for i in ids]
    known = np.isin(data.split, (TRAIN, HISTORY))
    violations = []
    for user_id, position in zip(texts, data.users.index(list(texts)), strict=True):
        if not position:
            continue
        rows = slice(data.user_start[position], data.user_start[position + 1])
        item, part, trained = data.item[rows], data.split[rows], known[rows]
        targets = set(item[part == split].tolist()) - set(item[trained].tolist())
        if not targets:
            continue
        text = f" {_plain(texts[user_id])} "
        read = {plain[i - 1] for i in item[trained].tolist()}
        for i in sorted(targets):
            title = plain[i - 1]
            if len(title) >= _SHORTEST_TITLE and title not in read and f" {title} " in text:
                violations.append(Violation(user_id, ids[i - 1], SPLIT_NAMES[split]))
    return violations


def _plain(text: str) -> str:
    """Return words in lower case, without a trailing year: "Matrix, The (1999)" -> "matrix the"."""
    text = re.sub(r"\s*\((?:1[5-9]|20)\d\d\)\s*$", "", text or "")
    return " ".join(re.findall(r"\w+", text.casefold()))


def recorded_flags(
    recorded: Recorded | Source | RankingSpec,
    data: TrainingData | None,
    *,
    accept_contaminated: bool = False,
) -> tuple[str, ...]:
    """Return the marks that results made with ``recorded`` must carry on this split.

    ``labels_seen``, ``valid_seen`` and, only with ``accept_contaminated``, ``contaminated``.
    Raises ``LeakageError`` when what the author saw is unknown or reaches past the training rows.
    ``data`` is None for answers about items: they serve every split, so only ``none`` fits.
    """
    name = recorded.key if isinstance(recorded, Recorded) else recorded.name
    cutoff = recorded.data_cutoff
    if cutoff == NO_CUTOFF:
        return (LABELS_SEEN,) if recorded.labels_seen else ()
    info = data.info if data is not None else {}
    options = info.get("options", {})
    here = {info.get("split"), options.get("column") if isinstance(options, dict) else None}
    flags = [LABELS_SEEN] if recorded.labels_seen else []
    if data is not None and cutoff in here:
        if data.info.get("valid_from_train") and (data.split == VALID).any():
            flags.append(VALID_SEEN)
        return tuple(flags)
    if accept_contaminated:
        return (*flags, CONTAMINATED)
    saw = {
        UNKNOWN_CUTOFF: "it is not recorded which interactions their prompts saw",
        WHOLE_LOG: "their prompts saw the whole log, test rows included",
    }.get(cutoff, f"their prompts saw the training rows of {cutoff!r}")
    mend = "" if cutoff in (UNKNOWN_CUTOFF, WHOLE_LOG) else f"use the split {cutoff!r}, "
    place = f"the split {info.get('split')!r}"
    if data is None:
        place, mend = "every split, as answers about items must", ""
    raise LeakageError(
        f"recorded answers {name!r} do not fit {place}: {saw}; "
        f"{mend}generate answers from this split, or use them with `[llm] accept_contaminated = "
        "true`: everything made from them is then marked contaminated and never promoted"
    )
