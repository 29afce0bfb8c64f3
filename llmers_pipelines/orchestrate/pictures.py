"""The pictures that a prompt task shows: who reads them, and which version of them a step saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.schema import DataError
from ..plan import Generate
from ..prompts.pictures import image_columns
from .context import StepContext, StepError


def looks(task: Any) -> bool:
    """Say whether a prompt task shows images to the model."""
    return bool(getattr(task, "looks", False))


def reader_of(ctx: StepContext) -> Any:
    """Return the reader of the data set's pictures. Nothing is opened until a cell is looked at."""
    from ..llm.images import ImageReader

    settings = ctx.settings
    cache = settings.data / "images"
    try:
        folder = ctx.description.folder(settings.data_root)
    except DataError:  # without a data root no path has a place; addresses still have theirs
        folder = cache / "no data root"
    return ImageReader(folder, cache, settings.images, offline=settings.offline)


def pictures_version(node: Generate, ctx: StepContext) -> str:
    """Return a version of the pictures that the rows name, and of how the model reads them."""
    from ..llm.factory import engine_info

    try:
        table = ctx.load(node.over)
    except StepError:  # the rows are not there yet
        return ""
    columns = [c for c in _columns(node, ctx.field_kinds) if c in table.column_names]
    cells = (cell for name in columns for cell in table[name].to_pylist())
    read = engine_info(ctx.settings).image_processor[:16]
    return f"{reader_of(ctx).version(cells)}+{read}"


def fetch_pictures(
    node: Generate, rows: Sequence[Mapping[str, Any]], context: Mapping[str, Any]
) -> None:
    """Fetch the addresses that the rows name, several at once, where that is allowed."""
    columns = _columns(node, context["fields"])
    context["images"].warm(row.get(column) for row in rows for column in columns)


def _columns(node: Generate, fields: Mapping[str, str]) -> tuple[str, ...]:
    return image_columns(fields, getattr(node.task, "images", ()))
