"""The registered model's contract: a frame of users in, a frame of recommendations out.

In: ``user_id`` (string; null for a visitor) and, optionally, ``history`` (list of item ids).
Params: ``k``, ``exclude_seen``, ``explain``. Out: one row per user and recommended item.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from .scorer import Scorer

PARAMS = {"k": 10, "exclude_seen": True, "explain": False}
COLUMNS = ("row", "user_id", "rank", "item_id", "title", "score", "model", "version", "fallback",
           "explanation")  # fmt: skip


def recommend_frame(
    scorer: Scorer, frame: pd.DataFrame, params: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Return the recommendations of each row of ``frame``; ``row`` is its number in the request.

    ``fallback`` is empty where the model itself answered; ``explanation`` is JSON, or empty.
    """
    import pandas as pd

    given = {**PARAMS, **(params or {})}
    users = [None if pd.isna(u) else str(u) for u in frame["user_id"]]
    histories: list[list[str] | None] = [None] * len(frame)
    if "history" in frame:
        histories = [_history(number, h) for number, h in enumerate(frame["history"])]
    answers = scorer.recommend_many(
        users, int(given["k"]), histories=histories, exclude_seen=bool(given["exclude_seen"]),
        explain=bool(given["explain"]),
    )  # fmt: skip
    rows = [
        (number, answer["user"], rank, item["item_id"], item["title"], item["score"],
         answer["model"], answer["version"], answer["fallback"] or "",
         json.dumps(item["why"], ensure_ascii=False) if "why" in item else "")
        for number, answer in enumerate(answers)
        for rank, item in enumerate(answer["items"], start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _history(number: int, value: Any) -> list[str] | None:
    if value is None or isinstance(value, float):  # pandas marks a missing list as NaN
        return None
    if isinstance(value, str) or not all(isinstance(i, str) for i in value):
        raise ValueError(
            f"row {number}: history is {value!r}; expected a list of item ids as text, or null"
        )
    return list(value)


def signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    kinds = {"row": DataType.long, "rank": DataType.long, "score": DataType.double}
    return ModelSignature(
        inputs=Schema([
            ColSpec(DataType.string, "user_id"),
            # not Array: its check fails on a frame where only some rows have a history
            ColSpec(AnyType(), "history", required=False),
        ]),
        outputs=Schema([
            ColSpec(kinds.get(name, DataType.string), name, required=name != "title")
            for name in COLUMNS
        ]),
        params=ParamSchema([
            ParamSpec("k", DataType.long, PARAMS["k"]),
            ParamSpec("exclude_seen", DataType.boolean, PARAMS["exclude_seen"]),
            ParamSpec("explain", DataType.boolean, PARAMS["explain"]),
        ]),
    )


def input_example(folder: Path) -> pd.DataFrame:
    """Two rows: a known user and a visitor with a history."""
    import pandas as pd

    from .bundle import load_bundle

    bundle = load_bundle(folder, verify=False)
    items = [bundle.items.id(int(p)) for p in bundle.by_popularity[:2]]
    return pd.DataFrame({"user_id": [bundle.users.id(1), ""], "history": [items, items]})


def requirements(config: Mapping[str, Any]) -> list[str]:
    """Pinned third-party packages of the serving process.

    Our own package is left out: the serving environment installs it, and a name that no public
    registry holds must never be looked up there.
    """
    from importlib.metadata import version

    names = ["numpy", "pandas", "pyarrow", "safetensors", "torch"]
    if config["index"] and config["index"]["kind"] != "flat":
        names.append("faiss-cpu")
    return [f"{name}=={version(name).split('+')[0]}" for name in names]
