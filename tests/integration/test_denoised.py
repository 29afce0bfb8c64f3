"""LLM4DSR in the graph: tuned, scored, suggested, grounded, edited, trained; killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from shop import SMALL, TUNED, Shop, made

from llmers_pipelines.llm import hf
from llmers_pipelines.orchestrate.estimate import estimate
from llmers_pipelines.plan import Generate, Teach, Tune
from llmers_pipelines.prompts.noise import END, NOISE, REPLACE
from llmers_pipelines.tune.tiny_model import make_tiny_model

pytestmark = pytest.mark.proof("llm4dsr", "equations")
CHOICE = (
    TUNED.replace("tfidf?dim=8", "tfidf?dim=16").replace(
        "controls = []", 'controls = ["permuted", "gaussian", "template"]'
    )
    + """[[methods]]
recipe = "llm4dsr"
settings = {{ samples = 12, window = 5, epochs = 1, batch = 6 }}
backbone_settings = {small}
"""
)


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made_shop = Shop.open(tmp_path / "home")
    titles = [row["title"] for row in made_shop.read("items")]
    said = [f"{NOISE}{a}{REPLACE}{b}{END}" for a, b in zip(titles, titles[3:], strict=False)]
    lm = make_tiny_model(tmp_path_factory.mktemp("lm") / "tiny", said, steps=100)
    (made_shop.home / "llmers.toml").write_text(CHOICE.format(lm=lm, small=SMALL))
    return made_shop


def node_of(shop: Shop, kind: type) -> Any:
    return next(n for n in shop.plan().nodes if isinstance(n, kind))


def rows_of(shop: Shop, prefix: str) -> Any:
    node = next(n for n in shop.plan().nodes if n.name.startswith(prefix))
    ctx = shop.context()
    return pq.read_table(ctx.manifests.path(ctx.manifest(node)) / "rows.parquet")


def test_every_stage_is_an_asset(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of the scores, then run to the end: no window is asked twice."""
    scores, asked = node_of(shop, Teach), []
    before = estimate([scores], shop.context())[0]
    assert before["llm_calls"] is None, "its prompts are not known before its log is there"
    real = hf.HfEngine.choose

    def dying(self: Any, requests: Any) -> Any:
        for n, request in enumerate(requests):
            if n == 7 and len(asked) < 8:
                raise KeyboardInterrupt
            asked.append(request.row_id)
            yield from real(self, [request])

    monkeypatch.setattr(hf.HfEngine, "choose", dying)
    with pytest.raises(KeyboardInterrupt):
        shop.work("LLM4DSR")
    planned = estimate([scores], shop.context())[0]
    assert planned["llm_calls"] == planned["rows"] - 7 and planned["stored"] == 7
    shop.work("LLM4DSR")
    assert len(asked) == len(set(asked)) == planned["rows"]
    assert made(shop.work("LLM4DSR")) == set()

    tune = shop.manifest(node_of(shop, Tune).name)
    told = shop.manifest(scores.name)
    assert told.inputs[node_of(shop, Tune).name] == tune.data_version
    assert {c.name: c.passed for c in told.checks} == {
        "no_leakage": True, "row_identity": True, "coverage": True, "quarantine_small": True,
    }  # fmt: skip
    found = rows_of(shop, scores.name)
    assert found.column_names == ["user_id", "row_id", "window", "position", "item_id", "logp"]
    edits = rows_of(shop, "features/sequence_edits")
    noisy = rows_of(shop, "features/noisy_positions")
    assert 0 < edits.num_rows <= noisy.num_rows < found.num_rows
    assert set(edits["op"].to_pylist()) == {"replace"}
    evaluation = next(m for m in shop.context().manifests.all("shop")
                      if m.name.startswith("evaluations/llm4dsr"))  # fmt: skip
    assert all(c.passed for c in evaluation.checks if c.blocking)

    said = node_of(shop, Generate)
    row = rows_of(shop, said.name).to_pylist()[0]
    shown = shop.invoke("trace", said.name, row["row_id"])
    assert shown.exit_code == 0 and "Noise Items: " in shown.output, shown.output
    user = shop.invoke("trace", scores.name, row["user_id"])
    assert user.exit_code == 0, user.output


def test_another_adapter_asks_anew(shop: Shop) -> None:
    """Answers of the untuned model, or of another adapter, are never taken for these."""
    scores = node_of(shop, Teach)
    shop.work(scores.name)
    first = shop.manifest(scores.name)
    toml = shop.home / "llmers.toml"
    toml.write_text(toml.read_text().replace("epochs = 1, b", "epochs = 2, b"))
    other = node_of(shop, Teach)
    shop.work(other.name)
    second = shop.manifest(other.name)
    assert other.name != scores.name
    assert second.sources["engine"] != first.sources["engine"]
    assert second.counts["cache_hits"] == 0 and second.counts["llm_calls"] > 0


def test_no_model_to_tune_is_told_before_anything_runs(shop: Shop) -> None:
    toml = shop.home / "llmers.toml"
    text = toml.read_text()
    toml.write_text(text.replace(text.split("[tune]")[1].split("[enc")[0], "\n"))
    result = shop.invoke("run", "LLM4DSR")
    assert result.exit_code != 0
    assert "no model to tune" in result.stderr + str(result.exception)
    assert not (shop.context().settings.data / "warehouse").exists()
