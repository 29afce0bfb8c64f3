"""What the stored answers are and what they cost, by model, task and prompt revision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..prices import Price
from .formats import FormatError, StoreError
from .segments import SegmentFolder

GROUP = ("model", "task", "prompt_revision")
_NUMBERS = ("answers", "tokens_in", "tokens_out", "characters")


def usage(folder: SegmentFolder) -> dict[str, Any]:
    """Return segments, bytes, rows, keys, tokens, ``unreadable`` segments and ``groups``.

    A group's ``bytes`` are its share of the files by the length of its requests and answers.
    """
    groups: dict[tuple, dict[str, int]] = {}
    keys, total, count, bad = [np.empty(0, np.uint64)], 0, 0, []
    for segment in folder.segments():
        try:
            table = folder.read(segment, [*GROUP, "key64", "tokens_in", "tokens_out", "text",
                                          "request"])  # fmt: skip
            total += segment.path.stat().st_size
        except FormatError:
            raise
        except (StoreError, FileNotFoundError) as error:
            bad.append(str(error))
            continue
        count += 1
        keys.append(table["key64"].to_numpy())
        for row in _grouped(table):
            key = tuple(row[n] or "" for n in GROUP)
            group = groups.setdefault(key, dict.fromkeys(_NUMBERS, 0))
            for name in _NUMBERS:
                group[name] += row[name] or 0
    whole = sum(g["characters"] for g in groups.values()) or 1
    rows = [
        {**dict(zip(GROUP, key, strict=True)), **numbers,
         "bytes": round(total * numbers["characters"] / whole)}
        for key, numbers in sorted(groups.items())
    ]  # fmt: skip
    return {
        "segments": count, "bytes": total, "rows": sum(r["answers"] for r in rows),
        "keys": len(np.unique(np.concatenate(keys))),
        "tokens_in": sum(r["tokens_in"] for r in rows),
        "tokens_out": sum(r["tokens_out"] for r in rows),
        "unreadable": bad, "groups": rows,
    }  # fmt: skip


def _grouped(table: pa.Table) -> list[dict[str, Any]]:
    size = pc.add(pc.fill_null(pc.binary_length(table["text"]), 0),
                  pc.fill_null(pc.binary_length(table["request"]), 0))  # fmt: skip
    flat = table.select([*GROUP, "tokens_in", "tokens_out"]).append_column("characters", size)
    sums = [(name, "sum") for name in _NUMBERS[1:]]
    rows = flat.group_by(list(GROUP)).aggregate([*sums, ([], "count_all")]).to_pylist()
    return [
        {**{name: row[name] for name in GROUP}, "answers": row["count_all"],
         **{name: row[f"{name}_sum"] for name in _NUMBERS[1:]}}
        for row in rows
    ]  # fmt: skip


def price_of(prices: Mapping[str, Price], model: str | None) -> Price | None:
    """Return the price of a stored model name, which may end in ``@<hash>`` or a remark."""
    name = model or ""
    for known in (name, name.partition(" (")[0], name.partition("@")[0]):
        if known in prices:
            return prices[known]
    return None


def money(prices: Mapping[str, Price], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what ``rows`` (model, tokens_in, tokens_out) cost by the table.

    ``{"amount": {currency: sum}, "without_price": names}``; answers that no model was paid for here
    (recorded ones) and models without a price add nothing and are named.
    """
    amount: dict[str, float] = {}
    without: set[str] = set()
    for row in rows:
        price = price_of(prices, row["model"])
        if price is None:
            without.add(row["model"] or "unknown")
            continue
        cost = price.tokens(row["tokens_in"] or 0, row["tokens_out"] or 0)
        amount[price.currency] = amount.get(price.currency, 0.0) + cost
    return {"amount": amount, "without_price": sorted(without)}
