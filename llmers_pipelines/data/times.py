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
        return Times(values, missing, np.zeros(len(values), bool), True, "timestamp")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(column, mode)
    missing = np.asarray(pc.is_null(column, nan_is_null=True))
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
    number = found["number"]
    numeric = pc.count(number).as_py() >= max(1, pc.count(found["moment"]).as_py())
    if "%" not in mode and mode != "iso" and (mode != "auto" or numeric):
        bad = ~missing & np.asarray(pc.is_null(number))
        values = np.asarray(pc.fill_null(number, 0), dtype=np.float64)
        if np.array_equal(values, np.floor(values)):  # 64-bit integers stay exact
            values = np.asarray(pc.fill_null(found["whole"], 0), dtype=np.int64)
        return _from_numbers(values, missing, bad, mode)
    bad = ~missing & np.asarray(pc.is_null(found["moment"]))
    values = np.asarray(pc.fill_null(found["moment"], 0), dtype=np.int64)
    return Times(values, missing, bad, True, "iso" if "%" not in mode else mode)


def _from_numbers(raw: np.ndarray, missing: np.ndarray, bad: np.ndarray, mode: str) -> Times:
    usable = ~missing & ~bad
    if mode == "auto" and usable.any():
        size = float(np.median(np.abs(raw[usable])))
        mode = next((unit for low, unit in _UNITS if size >= low), "order")
    if mode in ("order", "auto", "iso"):
        # "iso" given numbers: nothing can be a date, every row is reported
        wrong = usable if mode == "iso" else np.zeros_like(bad)
        finite = np.where(np.isfinite(raw), raw, 0)
        return Times(finite.astype(np.int64), missing, bad | wrong, mode == "iso", mode)
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
