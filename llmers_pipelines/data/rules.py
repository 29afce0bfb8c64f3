"""Rules over columns of the log, like ``rating >= 4``, as masks."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .schema import DataError
from .strict_toml import near
from .validate import to_numbers

_OPERATORS = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
    ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_VALUE = r"""(?:'([^']*)'|"([^"]*)"|(\S+))"""
_FORM = re.compile(rf"^\s*([\w.\- ]+?)\s*(?:(>=|<=|==|!=|>|<)\s*{_VALUE})?\s*$")


@dataclass(frozen=True)
class Rule:
    """``column operator value``; without an operator the column itself is 0 or 1."""

    text: str
    column: str
    operator: str = ""
    number: float = float("nan")
    word: str = ""

    def holds(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return bool[n], where the rule holds, and bool[n], where its column has a value."""
        if self.column not in table.column_names:
            raise DataError(
                f"rule {self.text!r}: the interactions have no column {self.column!r}"
                f"{near(self.column, table.column_names) or ';'} "
                f"columns: {', '.join(table.column_names)}"
            )
        column = table[self.column]
        if self.operator and self.word:
            words = pc.cast(column, pa.string())
            equal = np.asarray(pc.fill_null(pc.equal(words, self.word), False))
            return (equal if self.operator == "==" else ~equal), np.asarray(pc.is_valid(words))
        if pa.types.is_boolean(column.type):
            column = pc.cast(column, pa.int8())
        values, bad = to_numbers(column)
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"rule {self.text!r}: {column[at].as_py()!r} in column {self.column!r} is no number"
            )
        known = ~np.isnan(values)
        if not self.operator:
            if not np.isin(values[known], (0, 1)).all():
                raise DataError(
                    f"rule {self.text!r}: column {self.column!r} holds more than 0 and 1; write a "
                    f'comparison, like "{self.column} >= 4"'
                )
            return known & (values == 1), known
        with np.errstate(invalid="ignore"):
            return known & _OPERATORS[self.operator](values, self.number), known


def parse_rule(text: str) -> Rule:
    """Return the rule that ``text`` states, or raise ``DataError`` with an example."""
    found = _FORM.match(text)
    if not found:
        raise DataError(f'rule {text!r} is not of the form "rating >= 4" or "event == \'click\'"')
    column, sign, single, double, bare = found.groups()
    if not sign:
        return Rule(text, column)
    word = single if single is not None else double
    if word is None:
        try:
            return Rule(text, column, sign, number=float(bare))
        except ValueError:
            word = bare
    if sign not in ("==", "!="):
        raise DataError(f"rule {text!r}: words can be compared by == and != only")
    return Rule(text, column, sign, word=word)
