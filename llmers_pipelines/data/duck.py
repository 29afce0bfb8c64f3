"""DuckDB in memory, as every reader of files wants it."""

from __future__ import annotations

import duckdb


def connect() -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB that works in UTC, is silent and never fetches extensions."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET enable_progress_bar = false")  # it would go to stdout, into JSON
    return connection
