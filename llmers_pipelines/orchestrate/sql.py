"""Questions to DuckDB, in which every asset is a view and nothing can be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import Settings
from ..store.manifests import ManifestStore


def connect(settings: Settings, dataset: str) -> Any:
    """Return a connection with one view per table or vector asset, and ``store.responses``.

    A view is called ``<prefix>.<slug>``.
    Files outside of the views cannot be read: external access is switched off after the views'
    tables are loaded as Arrow.
    """
    import duckdb
    import pyarrow.dataset as ds

    store = ManifestStore(settings.data)
    connection = duckdb.connect(":memory:")
    for manifest in store.all(dataset):
        folder = store.path(manifest)
        if (folder / "rows.parquet").is_file():
            rows: Any = ds.dataset(folder / "rows.parquet")
        elif (folder / "vectors.npy").is_file():
            rows = _vectors(folder)
        else:
            continue
        schema, name = manifest.name.split("/")
        connection.execute(f'create schema if not exists "{schema}"')
        handle = f"asset_{len(connection.execute('show all tables').fetchall())}"
        connection.register(handle, rows)
        connection.execute(f'create view "{schema}"."{name}" as select * from {handle}')
    responses = settings.data / "responses"
    if any(responses.glob("**/*.parquet")):
        connection.execute("create schema if not exists store")
        connection.register("store_responses", ds.dataset(responses, format="parquet"))
        connection.execute("create view store.responses as select * from store_responses")
    connection.execute("set enable_progress_bar = false")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def _vectors(folder: Path) -> Any:
    """Return id, known (False: a fallback) and vector, FLOAT[E], of a vector table."""
    import numpy as np
    import pyarrow as pa

    from ..data.vectors import VectorTable

    table = VectorTable.load(folder)
    flat = pa.array(np.ravel(table.vectors))  # no copy: the file stays where it is
    vectors = pa.FixedSizeListArray.from_arrays(flat, table.dim)
    return pa.table({f"{table.entity}_id": table.ids, "known": table.mask, "vector": vectors})


def ask(connection: Any, query: str, limit: int | None = None) -> tuple[list[str], list[tuple]]:
    """Return column names and rows of one question; ``ValueError`` for anything that is none."""
    import duckdb

    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type not in allowed:
        raise ValueError("one question at a time: SELECT, WITH, DESCRIBE, SHOW or EXPLAIN")
    result = connection.execute(statements[0])
    rows = result.fetchall() if limit is None else result.fetchmany(limit)
    return [column[0] for column in result.description], rows
