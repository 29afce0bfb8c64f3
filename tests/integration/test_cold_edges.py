"""LLM-InS in the graph: towers, tuned judge, edges of cold items; killed and resumed; served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from shop import TUNED, Shop, made

from llmers_pipelines.llm import hf
from llmers_pipelines.orchestrate.estimate import estimate
from llmers_pipelines.plan import Teach, Tune
from llmers_pipelines.tune.tiny_model import make_tiny_model

pytestmark = pytest.mark.proof("llm_ins", "equations")
COLD = """
[splits.collaborative_cold]
protocol = "cold_item"
shares = [0.8, 0.1, 0.1]
"""
CHOICE = (
    TUNED.replace("tfidf?dim=8", "{lm}?pooling=last&normalize=0").replace(
        "controls = []", 'controls = ["permuted", "gaussian"]'
    )
    + """[[methods]]
recipe = "llm_ins"
settings = {{ k = 3, dim = 8, tower_epochs = 3, shown = 4, samples = 12, least = 0.0, most = 2 }}
backbone_settings = {{ dim = 8, layers = 1, fit = {{ epochs = 2, min_epochs = 1 }} }}
"""
)


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    own = Shop.open(tmp_path / "home")
    described = own.folder / "shop.toml"
    described.write_text(described.read_text() + COLD)
    texts = [f"'{row['title']}' Yes No" for row in own.read("items")]
    lm = make_tiny_model(tmp_path_factory.mktemp("lm") / "tiny", texts, steps=60)
    (own.home / "llmers.toml").write_text(CHOICE.format(lm=lm))
    return own


def rows_of(shop: Shop, prefix: str) -> Any:
    node = next(n for n in shop.plan().nodes if n.name.startswith(prefix))
    ctx = shop.context()
    return pq.read_table(ctx.manifests.path(ctx.manifest(node)) / "rows.parquet")


def test_cold_items_get_edges(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of the judgements, then run to the end: no pair is asked twice."""
    judge = next(n for n in shop.plan().nodes if isinstance(n, Teach))
    assert estimate([judge], shop.context())[0]["llm_calls"] is None
    asked: list[str] = []
    real = hf.HfEngine.choose

    def dying(self: Any, requests: Any) -> Any:
        for n, request in enumerate(requests):
            if n == 4 and len(asked) < 5:
                raise KeyboardInterrupt
            asked.append(request.row_id)
            yield from real(self, [request])

    monkeypatch.setattr(hf.HfEngine, "choose", dying)
    with pytest.raises(KeyboardInterrupt):
        shop.work("LLM-InS")
    planned = estimate([judge], shop.context())[0]
    assert planned["stored"] == 4
    shop.work("LLM-InS")
    assert len(asked) == len(set(asked)) == 4 + planned["llm_calls"]
    assert made(shop.work("LLM-InS")) == set()

    tuned = next(n for n in shop.plan().nodes if isinstance(n, Tune))
    told = shop.manifest(judge.name)
    assert told.inputs[tuned.name] == shop.manifest(tuned.name).data_version
    assert all(c.passed for c in told.checks) and told.counts["llm_calls"] == planned["llm_calls"]
    pairs, judged = rows_of(shop, "features/filtered_users"), rows_of(shop, judge.name)
    edges = rows_of(shop, "features/simulated_edges")
    assert judged.num_rows == pairs.num_rows > edges.num_rows > 0
    log = next(n for n in shop.plan().nodes if n.name == "catalog/splits__collaborative_cold")
    data = shop.context().load(log)
    cold = set(edges["item_id"].to_pylist())
    assert not data.train_counts[data.items.index(sorted(cold))].any()
    name = next(n for n in (m.name for m in shop.context().manifests.all("shop"))
                if n.startswith("evaluations/llm_ins"))  # fmt: skip
    found = shop.manifest(name)
    assert all(c.passed for c in found.checks if c.blocking)
    assert "cold" in found.info["report"]
    status = shop.invoke("status")
    assert status.exit_code == 0, status.output
