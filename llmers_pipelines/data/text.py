"""Text components: what an encoder reads about an item, a user or an answer.

Each component has ``texts(*, table, log, items, fields) -> Texts``. ``table`` has one row per
entity (column ``item_id`` or ``user_id``); ``items`` is the item table; ``log`` the training log;
``fields`` maps a column of the item table to its kind, in declared order. Texts depend on their
inputs alone, so their hash may key a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..plan import Component
from .schema import TEXT, TITLE, DataError
from .training import HISTORY, TRAIN, TrainingData

FieldKinds = Mapping[str, str]  # column -> kind; "text" and "category" columns carry words
WORDY = ("text", "category")
LOG = "the splits of its task"
ACCEPTED = ("ok", "repaired")  # statuses of a Generate row whose text is the model's own


@dataclass(frozen=True)
class Texts:
    """One text per entity, in the order of the table that was read.

    ``mask`` is False where the text is missing (then it is "") or a fallback in its place.
    """

    entity: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    mask: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.texts) == len(self.mask):
            raise ValueError(
                f"texts of {self.entity}: {len(self.ids)} ids, {len(self.texts)} texts, mask "
                f"{self.mask.shape}; all need the same number of rows"
            )

    def to_table(self) -> pa.Table:
        """Return columns ``<entity>_id``, ``text`` and ``own_text`` (the mask)."""
        columns = {f"{self.entity}_id": self.ids, TEXT: self.texts, "own_text": self.mask}
        return pa.table({name: pa.array(values) for name, values in columns.items()})


@dataclass(frozen=True)
class ItemText(Component):
    """An item's own words: the title first, then ``column: value`` lines.

    ``fields`` chooses columns; empty means all declared text and category columns. Multi-valued
    categories (lists, or ``a|b``) become ``a, b``. An item without any value has mask False.
    """

    fields: tuple[str, ...] = ()

    def texts(
        self,
        *,
        table: pa.Table,
        log: TrainingData | None = None,
        items: pa.Table | None = None,
        fields: FieldKinds | None = None,
    ) -> Texts:
        if "item_id" not in table.column_names and items is not None:
            table = items
        entity, ids = entity_ids(table)
        if entity != "item":
            raise ValueError("ItemText reads the item table (column item_id), not a user table")
        names = self.fields or _declared(fields or {}, table)
        lines = _lines(table, names, labelled=True)
        return _texts(entity, ids, lines)


@dataclass(frozen=True)
class AttributeText(Component):
    """An item as ``instruction`` and ``attribute is value; ...``, the title among them (LLMEmb).

    ``fields`` as in ``ItemText``; a value is cut at ``most`` characters. An item without any value
    has mask False.
    """

    fields: tuple[str, ...] = ()
    most: int = 100
    instruction: str = "The item has the following attributes:"

    def texts(
        self,
        *,
        table: pa.Table,
        log: TrainingData | None = None,
        items: pa.Table | None = None,
        fields: FieldKinds | None = None,
    ) -> Texts:
        entity, ids = entity_ids(table)
        if entity != "item":
            raise ValueError("AttributeText reads the item table (column item_id)")
        found = attribute_pairs(table, self.fields, fields, self.most)
        return _texts(entity, ids, [worded(self.instruction, p) if p else "" for p in found])


def attribute_pairs(
    items: pa.Table, names: Sequence[str], fields: FieldKinds | None, most: int
) -> list[list[tuple[str, str]]]:
    """Return (attribute, value) of each item's filled columns, values cut at ``most`` letters."""
    names = tuple(names) or _declared(fields or {}, items)
    if missing := [n for n in names if n not in items.column_names]:
        raise DataError(
            f"the item table has no column {missing[0]!r}; it has {', '.join(items.column_names)}"
        )
    columns = [items[n].to_pylist() for n in names]
    return [
        [(_label(n), w[:most]) for n, w in zip(names, map(_words, row), strict=True) if w]
        for row in zip(*columns, strict=True)
    ]


def worded(instruction: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the instruction and ``attribute is value; ...``."""
    return f"{instruction} " + "; ".join(f"{name} is {value}" for name, value in pairs)


@dataclass(frozen=True)
class HistoryText(Component):
    """A user's history in words: the newest ``last`` distinct items, newest first.

    Only TRAIN and HISTORY rows are read, so no held-out interaction can reach a text. Newest first
    because encoders cut at the end (LLM-ESR keeps the tail of the history as well). In a log with
    labels, ``liked`` keeps rows of label 1. A user without such rows has mask False.
    """

    last: int = 30
    fields: tuple[str, ...] = (TITLE,)
    liked: bool = True

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ValueError(f"HistoryText(last={self.last}): at least 1 item is needed")

    def texts(
        self,
        *,
        table: pa.Table | None,
        log: TrainingData | None = None,
        items: pa.Table | None = None,
        fields: FieldKinds | None = None,
    ) -> Texts:
        """Return one text per row of ``table`` (``None``: per user of the log)."""
        if log is None or items is None:
            raise ValueError(_missing(self, "the item table" if items is None else LOG))
        ids = log.users.ids if table is None else entity_ids(table)[1]
        if table is not None and entity_ids(table)[0] != "user":
            raise ValueError("HistoryText reads a user table (column user_id), not an item table")
        words = [""] * (log.n_items + 1)
        lines = _lines(items, self.fields, labelled=False)
        for position, line in zip(log.items.index(entity_ids(items)[1]), lines, strict=True):
            words[position] = line
        words[0] = ""
        item, start = self._rows(log)
        texts = []
        for user in log.users.index(ids):
            newest = item[start[user] : start[user + 1]][::-1].tolist() if user else ()
            told = [words[i] for i in dict.fromkeys(newest) if words[i]]
            texts.append("; ".join(told[: self.last]))
        return _texts("user", ids, texts)

    def _rows(self, log: TrainingData) -> tuple[np.ndarray, np.ndarray]:
        """Return the items told and the offsets int64[U + 2] of each user's rows among them."""
        keep = (log.split == TRAIN) | (log.split == HISTORY)
        if self.liked and log.label is not None:
            keep &= log.label > 0
        return log.item[keep], np.searchsorted(log.user[keep], np.arange(log.n_users + 2))


@dataclass(frozen=True)
class AnswerText(Component):
    """The text column of a Generate table.

    A row has mask True where the answer was accepted (status ok or repaired, or a table without
    statuses). Elsewhere ``fallback`` decides: ``item_text`` puts the item's own words in its place
    (mask True: a text of this item, so that a method with partial coverage starts as many rows as
    its template control; which answers are the model's own stands in the Generate table),
    ``none`` leaves the row without a text. ``with_prompt_history`` adds the user's history (KAR
    encodes "history part of the prompt + answer"); ``answer_first`` keeps the answer inside the
    encoder's length limit, which KAR's own order does not.
    """

    revision: ClassVar[int] = 2

    with_prompt_history: bool = False
    fallback: str = "item_text"
    answer_first: bool = True
    last: int = 30  # items of the history

    def __post_init__(self) -> None:
        if self.fallback not in ("item_text", "none"):
            raise ValueError(
                f"AnswerText(fallback={self.fallback!r}): expected 'item_text' or 'none'"
            )

    def texts(
        self,
        *,
        table: pa.Table,
        log: TrainingData | None = None,
        items: pa.Table | None = None,
        fields: FieldKinds | None = None,
    ) -> Texts:
        entity, ids = entity_ids(table)
        if TEXT not in table.column_names:
            raise DataError(f"an answer table needs a column text; found {table.column_names}")
        texts = [(v or "").strip() for v in table[TEXT].to_pylist()]
        if "status" in table.column_names:
            accepted = [s in ACCEPTED for s in table["status"].to_pylist()]
        else:
            accepted = [True] * len(texts)
        mask = np.array([bool(t) and a for t, a in zip(texts, accepted, strict=True)], bool)
        if self.fallback == "item_text" and not mask.all():
            texts = self._with_item_text(entity, ids, texts, items, fields)
            mask = np.array([bool(t) for t in texts], bool)
        if self.with_prompt_history:
            texts = self._with_history(entity, ids, texts, log, items)
        return Texts(entity, ids, tuple(texts), mask)

    def _with_item_text(
        self,
        entity: str,
        ids: tuple[str, ...],
        texts: list[str],
        items: pa.Table | None,
        fields: FieldKinds | None,
    ) -> list[str]:
        if entity != "item":
            raise ValueError(
                "AnswerText(fallback='item_text') cannot stand in for a missing answer about a "
                "user; choose fallback='none' (such rows then hold the mean vector)"
            )
        if items is None:
            raise ValueError(_missing(self, "the item table"))
        own = ItemText().texts(table=items, fields=fields)
        plain = dict(zip(own.ids, own.texts, strict=True))
        return [text or plain.get(i, "") for i, text in zip(ids, texts, strict=True)]

    def _with_history(
        self,
        entity: str,
        ids: tuple[str, ...],
        texts: list[str],
        log: TrainingData | None,
        items: pa.Table | None,
    ) -> list[str]:
        if entity != "user":
            raise ValueError("AnswerText(with_prompt_history=True) is for answers about users")
        users = pa.table({"user_id": pa.array(ids, pa.string())})
        told = HistoryText(last=self.last).texts(table=users, log=log, items=items).texts
        pairs = [(t, h) if self.answer_first else (h, t) for t, h in zip(texts, told, strict=True)]
        # A row without an answer stays without a text: its history alone is no answer.
        return ["\n".join(filter(None, p)) if t else "" for p, t in zip(pairs, texts, strict=True)]


def entity_ids(table: pa.Table) -> tuple[str, tuple[str, ...]]:
    """Return ("item", "user" or "row", ids as strings) of a table with one row per entity.

    Raises ``DataError`` where there is no id column, a null id, or an id with two rows.
    """
    for entity in ("row", "item", "user"):  # rows of answers name a user and an item as well
        if f"{entity}_id" in table.column_names:
            break
    else:
        raise DataError(f"expected a column item_id or user_id; found {table.column_names}")
    ids = tuple(table[f"{entity}_id"].cast(pa.string()).to_pylist())
    seen: set[str] = set()
    for row, value in enumerate(ids):
        if value is None or value in seen:
            what = "no id" if value is None else f"id {value!r} a second time"
            raise DataError(f"column {entity}_id, row {row}: {what}; expected one row per {entity}")
        seen.add(value)
    return entity, ids


def _texts(entity: str, ids: tuple[str, ...], texts: Sequence[str]) -> Texts:
    return Texts(entity, ids, tuple(texts), np.array([bool(t) for t in texts], bool))


def _missing(component: Component, what: str) -> str:
    return f"{type(component).__name__} needs {what}; name it in context=(...) of the Embed"


def _declared(fields: FieldKinds, table: pa.Table) -> tuple[str, ...]:
    title = [TITLE] if TITLE in table.column_names else []
    names = [name for name, kind in fields.items() if kind in WORDY and name != TITLE]
    if not title and not names:
        raise DataError(
            "the item table has no title and declares no text or category column; declare one in "
            "the data set's description, or choose columns with ItemText(fields=(...))"
        )
    return (*title, *names)


def _lines(table: pa.Table, names: Sequence[str], *, labelled: bool) -> list[str]:
    missing = [n for n in names if n not in table.column_names]
    if missing:
        raise DataError(
            f"the item table has no column {missing[0]!r}; it has {', '.join(table.column_names)}"
        )
    columns = [table[n].to_pylist() for n in names]
    lines = []
    for values in zip(*columns, strict=True):
        told = [(n, w) for n, w in zip(names, map(_words, values), strict=True) if w]
        if labelled:
            lines.append("\n".join(w if n == names[0] else f"{_label(n)}: {w}" for n, w in told))
        else:
            rest = ", ".join(w for _, w in told[1:])
            lines.append("".join(w for _, w in told[:1]) + (f" ({rest})" if rest else ""))
    return lines


def _label(column: str) -> str:
    return column.replace("_", " ")


def _words(value: Any) -> str:
    """Return a cell as one line of words; "" for null, NaN and blanks."""
    if value is None or value != value:  # NaN, as pandas writes a missing string
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(_words, value)))
    text = " ".join(str(value).split())
    return ", ".join(p.strip() for p in text.split("|") if p.strip()) if "|" in text else text
