"""Small data sets written to disk, one per test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmers_pipelines.data.description import Description, parse_description

ITEMS = "item_id,title\na,Alpha\nb,Beta\nc,Gamma\nd,Delta\n"
LOG = "user_id,item_id,rating,timestamp\n" + "".join(
    f"{u},{i},{r},{t}\n"
    for u, i, r, t in [
        ("u1", "a", 5, 1_500_000_000), ("u1", "b", 4, 1_500_000_100), ("u1", "c", 2, 1_500_000_200),
        ("u2", "b", 3, 1_500_000_050), ("u2", "a", 5, 1_500_000_150), ("u2", "d", 4, 1_500_000_250),
    ]
)  # fmt: skip

Make = Callable[..., Description]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write files and return their description; keyword arguments change the toml."""

    def write(
        items: str | bytes | None = ITEMS, log: str | bytes | None = LOG, **toml: Any
    ) -> Description:
        for name, content in (("items.csv", items), ("log.csv", log)):
            if content is not None:
                data = content if isinstance(content, bytes) else content.encode()
                (tmp_path / name).write_bytes(data)
        raw = {
            "name": "shop",
            "items": {"path": "items.csv"} | toml.pop("items_toml", {}),
            "interactions": {"path": "log.csv"} | toml.pop("log_toml", {}),
            **toml,
        }
        return parse_description(raw, tmp_path / "shop.toml")

    return write
