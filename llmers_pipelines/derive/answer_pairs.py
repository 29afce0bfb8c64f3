"""What a teacher answered, as examples for a student who is asked another way (SLIM, WWW 2024)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ..data.text import ACCEPTED
from ..plan import PlanError
from ..prompts.rows import user_rows
from ..prompts.task import PromptTask
from .derivation import DerivedTable, Given


@dataclass(frozen=True)
class AnswerPairs(DerivedTable):
    """Examples ``prompt`` (of ``task``), ``answer`` (the teacher's), one per accepted answer.

    Sources: the answers about users, the items, the splits. A user whom ``task`` would not ask
    about is left out. ``shown`` are the items of the rows that the prompt may read.
    """

    rows: ClassVar[str] = "examples"
    reads_words: ClassVar[bool] = True

    task: PromptTask | None = None

    def __post_init__(self) -> None:
        if self.task is None or self.task.entity != "user":
            raise PlanError("AnswerPairs needs `task`, the student's question about a user")

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        assert self.task is not None
        data = given.log
        answers = given.table("status")
        items = given.table("item_id")
        fields = (given.context or {}).get("fields", {})
        told = user_rows(answers.select(["user_id"]), data, items, fields)
        rows, unasked, refused = [], 0, 0
        pairs = zip(told, answers["text"].to_pylist(), answers["status"].to_pylist(), strict=True)
        for row, text, status in pairs:
            if status not in ACCEPTED or not text:
                refused += 1
            elif self.task.unaskable(row, given.context):
                unasked += 1
            else:
                known = getattr(self.task, "known", lambda r: r["history"])(row)
                rows.append({
                    "example_id": row["user_id"], "user_id": row["user_id"],
                    "prompt": json.dumps(self.task.render(row, given.context), ensure_ascii=False),
                    "answer": [text], "shown": [e["item_id"] for e in known],
                })  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        return table, {"answers": len(told), "not_accepted": refused, "not_askable": unasked}


SCHEMA = pa.schema([
    ("example_id", pa.string()), ("user_id", pa.string()), ("prompt", pa.string()),
    ("answer", pa.list_(pa.string())), ("shown", pa.list_(pa.string())),
])  # fmt: skip
