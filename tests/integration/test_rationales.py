"""SLIM in the graph: teacher, student, texts for all, vectors, training; killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from shop import SMALL, TUNED, Shop, made

from llmers_pipelines.llm import hf
from llmers_pipelines.orchestrate.estimate import estimate
from llmers_pipelines.plan import Generate, Tune
from llmers_pipelines.tune.tiny_model import make_tiny_model

pytestmark = pytest.mark.proof("slim", "equations")
CHOICE = (
    TUNED.replace("controls = []", 'controls = ["permuted", "template"]')
    + """[[methods]]
recipe = "slim"
settings = {{ sample = 12, epochs = 2, batch = 6, tokens = 40 }}
backbone_settings = {small}
"""
)


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    out = Shop.open(tmp_path / "home")
    said = [f"Preferences: {k}. Categories: {k}s. Suggestions: more {k}."
            for k in ("sea", "crime", "space")] * 8  # fmt: skip
    lm = make_tiny_model(tmp_path_factory.mktemp("lm") / "tiny", said, steps=80)
    (out.home / "llmers.toml").write_text(CHOICE.format(lm=lm, small=SMALL))
    return out


def test_a_student_writes_for_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two batches of the student's answers: none of the first is asked again."""
    plan = shop.plan()
    tune = next(n for n in plan.nodes if isinstance(n, Tune))
    said = next(n for n in plan.nodes if isinstance(n, Generate) and n.adapter is not None)
    taught = next(n for n in plan.nodes if isinstance(n, Generate) and n in tune.examples.inputs)
    assert said.prefix == taught.prefix == "rationales" and said.name != taught.name
    asked: list[str] = []
    real = hf.HfEngine.generate

    def dying(self: Any, requests: Any, **more: Any) -> Any:
        for result in real(self, requests, **more):
            if len(asked) == 16:
                asked.append("killed")
                raise KeyboardInterrupt
            asked.append(result.row_id)
            yield result

    monkeypatch.setattr(hf.HfEngine, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        shop.work("SLIM")
    row = estimate([said], shop.context())[0]
    assert row["askable"] == 40 and row["cached"] == 16, "what was answered is kept"
    shop.work("SLIM")
    first = [a for a in asked if a != "killed"]
    repaired = shop.manifest(said.name).counts
    assert len(set(first)) == 40 and len(first) >= 40
    assert repaired["llm_calls"] + 16 == len(first), "each question was asked once"
    assert made(shop.work("SLIM")) == set()

    teacher = shop.manifest(taught.name)
    assert teacher.rows == 12 and teacher.counts["templated"] == 12, "no model behind the teacher"
    assert shop.manifest(tune.name).rows == 12
    ctx = shop.context()
    table = pq.read_table(ctx.manifests.path(ctx.manifest(said)) / "rows.parquet")
    assert set(table["cutoff"].drop_null().to_pylist()) <= {4}  # 7 training rows, 70 %: 4
    assert "adapter:" in shop.manifest(said.name).sources["engine"]
    shown = shop.invoke("trace", said.name, "u01")
    assert shown.exit_code == 0 and "oldest first" in shown.output
    evaluation = next(m for m in ctx.manifests.all("shop") if m.name.startswith("evaluations/slim"))
    assert all(c.passed for c in evaluation.checks if c.blocking)


def test_the_template_control_has_no_student(shop: Shop) -> None:
    control = [n for n in shop.plan().nodes if isinstance(n, Generate) and n.llm == "template"]
    assert control and all(n.adapter is None for n in control)
