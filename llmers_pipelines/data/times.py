"""Moments from whatever a log holds: dates, ISO text, seconds, milliseconds or a plain order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .duck import connect
from .sources import literal

_MICRO = 1_000_000
_LIMIT = 7_300_000_000 * _MICRO  # the year 2201: beyond it a unit was mistaken
_WORD = 2.0**63  # no 64-bit integer holds more
# Smallest typical value of each unit, for moments after 1973.
_UNITS = ((1e17, "nanoseconds"), (1e14, "microseconds"), (1e11, "milliseconds"), (1e8, "seconds"))
_TO_MICRO = {"nanoseconds": 1e-3, "microseconds": 1, "milliseconds": 1_000, "seconds": _MICRO}


@dataclass(frozen=True)
class Times:
    """Moments int64[n] in microseconds UTC, or order numbers; masks of empty and bad values."""

    values: np.ndarray
    missing: np.ndarray
    bad: np.ndarray
    clock: bool  # False: the values are an order, not moments
    unit: str  # what the source held

    def seconds(self) -> np.ndarray:
        """Whole seconds (rounded down), or the order where there is no clock."""
        return self.values // _MICRO if self.clock else self.values

    @property
    def finer_than_seconds(self) -> bool:
        return self.clock and bool((self.values % _MICRO != 0).any())


def parse_times(column: pa.ChunkedArray, mode: str = "auto") -> Times:
    """Return the moments of ``column``.

    ``mode`` is auto, seconds, milliseconds, iso, order or a strptime format. Under auto, numbers
    are told apart by their median size, and text is read as ISO 8601 (UTC where no zone is given).
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micro = pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None)
        moments = pc.cast(pc.cast(column, micro, safe=False), pa.int64())
        missing = np.asarray(pc.is_null(moments))
        values = np.asarray(pc.fill_null(moments, 0), dtype=np.int64)
        return _from_moments(values, missing, np.zeros(len(values), bool), "timestamp")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(column, mode)
    missing = np.asarray(pc.is_null(column, nan_is_null=True))
    if pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64())
    raw = column.to_numpy() if column.null_count == 0 else pc.fill_null(column, 0).to_numpy()
    return _from_numbers(np.where(missing, 0, raw), missing, np.zeros(len(missing), bool), mode)


def _from_text(column: pa.ChunkedArray, mode: str) -> Times:
    text = pc.utf8_trim_whitespace(column)
    missing = np.asarray(pc.fill_null(pc.equal(text, ""), True))
    moment = "try_cast(t AS TIMESTAMPTZ)"
    if "%" in mode:
        moment = f"try_strptime(t, {literal(mode)})::TIMESTAMPTZ"
    connection = connect()
    connection.register("log", pa.table({"t": text}))
    found = connection.sql(
        "SELECT try_cast(t AS BIGINT) AS whole, try_cast(t AS DOUBLE) AS number, "
        f"epoch_us({moment}) AS moment FROM log"
    ).to_arrow_table()
    number = found["number"].to_numpy().astype(np.float64)  # null becomes NaN
    number = np.where(np.abs(number) < _WORD, number, np.nan)  # "nan", "inf" and 1e300 are no time
    readable = ~np.isnan(number)
    numeric = int(readable.sum()) >= max(1, pc.count(found["moment"]).as_py())
    if "%" not in mode and mode != "iso" and (mode != "auto" or numeric):
        bad = ~missing & ~readable
        values = np.where(readable, number, 0)
        if np.array_equal(values, np.floor(values)):  # 64-bit integers stay exact
            whole = np.asarray(pc.fill_null(found["whole"], 0), dtype=np.int64)
            exact = np.asarray(pc.is_valid(found["whole"])) & readable
            values = np.where(exact, whole, values.astype(np.int64))
        return _from_numbers(values, missing, bad, mode)
    bad = ~missing & np.asarray(pc.is_null(found["moment"]))
    values = np.asarray(pc.fill_null(found["moment"], 0), dtype=np.int64)
    return _from_moments(values, missing, bad, "iso" if "%" not in mode else mode)


def _from_moments(values: np.ndarray, missing: np.ndarray, bad: np.ndarray, unit: str) -> Times:
    """``values`` are microseconds; "infinity" and the years 1 and 9999 stand for no moment."""
    far = (values > _LIMIT) | (values < -_LIMIT)
    return Times(np.where(far, 0, values), missing, bad | (far & ~missing), True, unit)


def _from_numbers(raw: np.ndarray, missing: np.ndarray, bad: np.ndarray, mode: str) -> Times:
    if raw.dtype.kind == "f":
        bad = bad | (~missing & ~(np.abs(raw) < _WORD))
        raw = np.where(bad, 0, raw)
    usable = ~missing & ~bad
    if mode == "auto" and usable.any():
        size = float(np.median(np.abs(raw[usable])))
        mode = next((unit for low, unit in _UNITS if size >= low), "order")
    if mode in ("order", "auto", "iso"):
        # "iso" given numbers: nothing can be a date, every row is reported
        wrong = usable if mode == "iso" else np.zeros_like(bad)
        return Times(_whole(raw, usable), missing, bad | wrong, mode == "iso", mode)
    factor = _TO_MICRO[mode]
    limit = _LIMIT / factor
    too_big = usable & (np.abs(raw) > limit)
    kept = np.where(too_big, 0, raw)
    if factor < 1:
        values = kept.astype(np.int64) // 1_000
    elif kept.dtype.kind == "f":
        values = np.round(kept * factor).astype(np.int64)
    else:
        values = kept.astype(np.int64) * np.int64(factor)
    return Times(values, missing, bad | too_big, True, mode)


def _whole(raw: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return order numbers as int64: fractions give way to the rank of their distinct value."""
    if raw.dtype.kind != "f" or np.array_equal(raw[usable], np.floor(raw[usable])):
        return np.where(usable, raw, 0).astype(np.int64)
    ranks = np.zeros(len(raw), np.int64)
    ranks[usable] = np.unique(raw[usable], return_inverse=True)[1]
    return ranks
