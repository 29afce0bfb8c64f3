"""Requests as canonical JSON: what enters the key of a stored answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .pictures import image_sha256
from .protocol import EngineInfo, GenRequest, Message


def request_json(request: GenRequest, info: EngineInfo) -> str:
    """Return everything of ``request`` that may change its answer, as one canonical line.

    An engine that does not read prompts answers by row, so there the row id is part of it.
    """
    content: dict[str, Any] = {
        "messages": [hashed(message, info) for message in request.messages],
        "sampling": {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop),
        },
        "schema": request.schema,
    }
    if "prompts" not in info.capabilities:
        content["row_id"] = request.row_id
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8")


def hashed(message: Message, info: EngineInfo) -> dict[str, Any]:
    """Return the message with each image replaced by its hash, and by how the model reads images.

    The latter is no part of the engine's identity, so that keys of texts do not depend on it.
    """
    content = message["content"]
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    return {"role": message["role"], "content": [_hashed_part(part, info) for part in content]}


def _hashed_part(part: Mapping[str, Any], info: EngineInfo) -> dict[str, Any]:
    if part.get("type") != "image":
        return dict(part)
    told = {"type": "image", "sha256": image_sha256(part["image"])}
    return told | ({"processor": info.image_processor} if info.image_processor else {})


def row_sha256(row: Mapping[str, Any]) -> str:
    """Return the hash of a canonical row: the version that a recorded answer belongs to."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def description_sha(row: Mapping[str, Any], columns: Sequence[tuple[str, str]] = ()) -> str:
    """Return the first 12 hexadecimal digits of the hash of an item's source record.

    ``columns`` are pairs (name in the source record, column of the row); none takes the row as it
    is. The record is ``json.dumps(record, sort_keys=True, ensure_ascii=False)``.
    """
    record = {source: row.get(column) for source, column in columns} if columns else dict(row)
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def _plain(value: Any) -> Any:
    """Return numpy values, dates and the like as JSON data."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
