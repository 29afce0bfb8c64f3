"""Texts about scenarios and users, and layers written from them, in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import told_lm
from shop import SHOP, TINY, Shop

from llmers_pipelines.llm.hf import HfEngine
from llmers_pipelines.plan import Generate

pytestmark = pytest.mark.proof("llm4msr", "graph")
DECLARED = """
[splits.multi_scenario]
protocol = "time"
label = "rating >= 4"
scenario = "place"
history = 3
"""
CHOICE = """
[llmers]
dataset = "shop"
[llm]
engine = "hf"
model = "{lm}"
max_tokens = 24
temperature = 1.0
[encoder]
name = "{lm}?pooling=last&normalize=0"
[evaluation]
controls = ["permuted"]
[[methods]]
recipe = "llm4msr"
backbone_settings = {small}
"""


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    lm = told_lm.make_told_lm(tmp_path_factory.mktemp("lm"))
    shop = Shop.open(tmp_path / "home")
    rows = shop.read("interactions")
    for n, row in enumerate(rows):
        row["place"] = ("street", "web")[n % 2]
    shop.write("interactions", rows)
    declared = SHOP.replace("rating = [1, 5]", 'rating = [1, 5]\ncolumns = { place = "place" }')
    (shop.folder / "shop.toml").write_text(declared + DECLARED)
    (shop.home / "llmers.toml").write_text(CHOICE.format(lm=lm, small=TINY))
    return shop


def test_one_generation_per_scenario_and_user(shop: Shop, monkeypatch: Any) -> None:
    """Killed in the middle and started again: no question is asked twice, and then none at all."""
    asked: list[str] = []
    generate, left = HfEngine.generate, [7]

    def counted(self: Any, requests: Any, *args: Any, **more: Any) -> Any:
        for result in generate(self, requests, *args, **more):
            if left[0] == len(asked):
                raise KeyboardInterrupt
            asked.append(result.row_id)
            yield result

    monkeypatch.setattr(HfEngine, "generate", counted)
    nodes = [n for n in shop.plan().nodes if isinstance(n, Generate) and not n.llm]
    assert {n.prefix for n in nodes} == {"group_summaries", "user_profiles"}
    with pytest.raises(KeyboardInterrupt):
        shop.work("llm4msr")
    left[0] = -1
    shop.work("llm4msr")
    first = len(asked)
    assert len(set(asked)) >= 40
    assert max(map(asked.count, asked)) <= 2, "once, and once more where it was refused"
    told = {n.prefix: shop.manifest(n.name) for n in nodes}
    rows = pq.read_table(
        shop.context().manifests.path(told["group_summaries"]) / "rows.parquet"
    ).to_pylist()
    assert {r["scenario_id"] for r in rows} == {"street", "web"}
    shop.work("llm4msr")
    assert len(asked) == first
    model = next(m for m in shop.plan().methods if m.recipe.slug == "llm4msr")
    assert shop.manifest(model.evaluate.name).info["report"]
    assert shop.invoke("status").exit_code == 0
