"""Ids as text: 7, 7.0 and "007" stay what the source meant."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXACT_FLOAT = 2**53  # above it a float has lost the last digits of an integer


def ids_as_text(
    column: pa.ChunkedArray | pa.Array, mode: str = "text"
) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return the ids as trimmed strings (null where empty) and bool[n], true where digits are lost.

    Text keeps its leading zeros, also where a file holds it as bytes. Numbers become their integer
    text (1.0 -> "1"). ``mode`` "integer" also reads text such as "007" or "7.0" as the integer "7".
    """
    if isinstance(column, pa.Array):
        column = pa.chunked_array([column])
    lost = np.zeros(len(column), bool)
    kind = column.type
    if pa.types.is_dictionary(kind):
        return ids_as_text(pc.cast(column, kind.value_type), mode)
    if pa.types.is_floating(kind):
        text, lost = _floats(column)
    elif pa.types.is_decimal(kind):
        text = pc.replace_substring_regex(pc.cast(column, pa.string()), r"\.0+$", "")
    elif is_bytes(kind):
        return ids_as_text(bytes_as_text(column), mode)
    else:
        text = pc.cast(column, pa.string())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_trim_whitespace(text)
        if mode == "integer":
            whole = pc.match_substring_regex(text, r"^\d+(\.0*)?$")
            bare = pc.replace_substring_regex(text, r"^0*(\d+?)(\.0*)?$", r"\1")
            text = pc.if_else(whole, bare, text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), lost


def is_bytes(kind: pa.DataType) -> bool:
    """Say whether a column holds bytes, of one or of several lengths."""
    types = pa.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def bytes_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return printable UTF-8 as the text that it is, other bytes (keys, UUIDs) as hexadecimal."""
    return pa.chunked_array([pa.array([text_of_bytes(v) for v in column.to_pylist()], pa.string())])


def text_of_bytes(value: bytes | None) -> str | None:
    """Return one value as ``bytes_as_text`` does."""
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    return text if all(c.isprintable() or c in "\t\r\n" for c in text) else value.hex()


def _floats(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    values = column.to_numpy().astype(np.float64)
    null = np.isnan(values)
    infinite = np.isinf(values)
    lost = infinite | (np.abs(np.where(null | infinite, 0, values)) >= EXACT_FLOAT)
    whole = ~null & ~lost & (values == np.floor(np.where(null | infinite, 0.5, values)))
    text = pc.cast(pa.array(values, mask=null), pa.string())
    integers = pa.array(np.where(whole, values, 0).astype(np.int64)).cast(pa.string())
    return pa.chunked_array([pc.if_else(pa.array(whole), integers, text)]), lost
