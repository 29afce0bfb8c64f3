"""LLMHD in the graph: rounds of training, asking and rewriting; killed, resumed, never re-asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from shop import Shop, made

from llmers_pipelines.llm import hf
from llmers_pipelines.llm.protocol import GenResult
from llmers_pipelines.tune.tiny_model import make_tiny_model

pytestmark = pytest.mark.proof("llmhd", "equations")
SPLIT = """
[splits.collaborative]
protocol = "leave_one_out"
"""
CHOICE = """
[llmers]
dataset = "shop"
[llm]
engine = "hf"
model = "{lm}"
max_tokens = 60
[encoder]
name = "tfidf?dim=16"
[evaluation]
controls = ["permuted", "gaussian"]
[[methods]]
recipe = "llmhd"
settings = {{ summary = true, most = 0.2, grow = 0, variance_share = 0.2, last = 3, gamma = 2 }}
backbone_settings = {{ loss = "bpr", dim = 8, layers = 1, fit = {{ epochs = 4, min_epochs = 4 }} }}
"""


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    own = Shop.open(tmp_path / "home")
    described = own.folder / "shop.toml"
    text = described.read_text().split("[recorded.item_summary]")[0]
    described.write_text(text + SPLIT)
    titles = [row["title"] for row in own.read("items")]
    lm = make_tiny_model(tmp_path_factory.mktemp("lm") / "tiny", titles, steps=20)
    (own.home / "llmers.toml").write_text(CHOICE.format(lm=lm))
    return own


def written(request: Any) -> str:
    """Return a text that each kind of question accepts, another one for other data."""
    words = request.messages[-1]["content"].lower()
    found = re.findall(r"the (sea|crime|space) book (\d+)", words)
    kind, number = found[-1] if found else ("sea", "0")
    if request.schema is None:
        return f"Prefers calm stories of {kind}, long ones of {len(words)} pages most of all."
    return json.dumps({"summary": f"Book {number} tells a story of {kind} and of those around it.",
                       "themes": [kind], "mood": "calm", "audience": "adult readers"})  # fmt: skip


def rows_of(shop: Shop, prefix: str) -> Any:
    node = next(n for n in shop.plan().nodes if n.name.startswith(prefix))
    ctx = shop.context()
    return pq.read_table(ctx.manifests.path(ctx.manifest(node)) / "rows.parquet")


def test_rounds_are_assets(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while pairs are scored, then run to the end: what was asked is not asked again."""
    asked: list[str] = []
    real = hf.HfEngine.generate

    def counting(self: Any, requests: Any, **more: Any) -> Any:
        """Scores are the model's own; it is too small to write a text, so texts are given."""
        for request in requests:
            told = str(request.messages)
            if '"score"' not in told:
                asked.append(told)
                yield GenResult(request.row_id, written(request), tokens_in=1, tokens_out=1)
                continue
            if sum('"score"' in a for a in asked) == 3 and "killed" not in asked:
                asked.append("killed")
                raise KeyboardInterrupt
            asked.append(told)
            yield from real(self, [request], **more)

    monkeypatch.setattr(hf.HfEngine, "generate", counting)
    with pytest.raises(KeyboardInterrupt):
        shop.work("LLMHD")
    shop.work("LLMHD")
    paid = [a for a in asked if a != "killed"]
    assert sum('"score"' in a for a in paid) > 3 and len(paid) == len(set(paid))
    assert made(shop.work("LLMHD")) == set() and len(asked) == 1 + len(paid)

    found = {m.name: m for m in shop.context().manifests.all("shop")}
    rounds = sorted(n for n in found if n.startswith("recommenders/") and "statistics" in n)
    assert len(rounds) == 2
    folder = shop.context().manifests.path(found[rounds[0]])
    told = pq.read_table(folder / "beside_statistics.parquet")
    assert set(told["epochs"].to_pylist()) == {3}
    first = rows_of(shop, "sample_scores/preference_score__collaborative")
    assert set(first["score"].to_pylist()) <= {*range(11), None}
    assert set(first["profile_version"].drop_null().to_pylist()) <= {1}
    hard = rows_of(shop, "features/hard_samples")
    assert hard.num_rows and all(c.passed for m in found.values() for c in m.checks if c.blocking)
    wrong = rows_of(shop, "features/confident_errors")
    revised = rows_of(shop, "user_profiles/revised_preference")
    assert revised["user_id"].to_pylist() == wrong["user_id"].to_pylist()
    shown = shop.invoke("trace", "sample_scores/preference_score__collaborative",
                        first["pair_id"][0].as_py())  # fmt: skip
    assert shown.exit_code == 0, shown.output


def test_nothing_is_asked_without_variance(shop: Shop) -> None:
    """eps_v = 0 is truncated loss: the method runs, and no score is paid for."""
    toml = shop.home / "llmers.toml"
    toml.write_text(toml.read_text().replace("variance_share = 0.2", "variance_share = 0.0"))
    nodes = [n.name for n in shop.plan().nodes if n.name.startswith("features/hard_candidates")]
    shop.work(nodes[0])
    assert rows_of(shop, "features/hard_candidates").num_rows == 0
