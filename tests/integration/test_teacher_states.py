"""A deep teacher's states in the graph: tuned, exported, distilled; nothing is paid for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_lm
from safetensors.numpy import load_file
from shop import SMALL, Shop

from llmers_pipelines.llm import hf_soft
from llmers_pipelines.orchestrate.publish import materialize
from llmers_pipelines.plan import Distill, PlanError, Teach, Tune, walk
from llmers_pipelines.teach.language_model_states import LanguageModelStates

pytestmark = pytest.mark.proof("slmrec", "graph")
CHOICE = """
[llmers]
dataset = "shop"
[encoder]
name = "tfidf?dim=24"
[tune]
model = "{lm}"
[evaluation]
controls = ["shuffled"]
[[methods]]
recipe = "slmrec"
settings = {{ blocks = 3 }}
backbone_settings = {small}
"""


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    lm = tiny_lm.make_tiny_lm(tmp_path_factory.mktemp("lm"))
    shop = Shop.open(tmp_path / "home")
    small = SMALL.replace("dim = 8", "dim = 8, layers = 3")
    (shop.home / "llmers.toml").write_text(CHOICE.format(lm=lm, small=small))
    return shop


def of(shop: Shop, kind: type) -> Any:
    return next(n for n in shop.plan().nodes if isinstance(n, kind))


def test_killed_while_exporting_then_all_stages(shop: Shop, monkeypatch: Any) -> None:
    """The second run passes only the positions that the first one had not stored."""
    teach = of(shop, Teach)
    passes: list[int] = []
    forward = hf_soft.SoftPrompt.forward

    def counted(self: Any, rows: Any) -> Any:
        if not self.training:
            if len(passes) == 2:
                passes.append(0)
                raise KeyboardInterrupt
            passes.append(len(rows))
        return forward(self, rows)

    monkeypatch.setattr(hf_soft.SoftPrompt, "forward", counted)
    monkeypatch.setattr(LanguageModelStates, "BATCH", 16)
    context = shop.context()
    for node in walk([teach])[:-1]:
        materialize(node, context)
    with pytest.raises(KeyboardInterrupt):
        materialize(teach, context)
    materialize(teach, context)
    manifest = shop.manifest(teach.name)
    assert passes[:3] == [16, 16, 0] and sum(passes) == manifest.counts["positions"] == 40
    assert manifest.counts["read_back"] == 32 and manifest.counts["passes"] == 8
    assert all(c.passed for c in manifest.checks if c.blocking)


def test_one_run_makes_teacher_states_and_student(shop: Shop) -> None:
    report = shop.ask("run", "slmrec")
    assert report["success"], [r for r in report["assets"] if r.get("error")]
    keys = {r["key"].split("/")[0] for r in report["assets"]}
    assert {"tuned_models", "teacher_states", "student_weights", "registry"} <= keys
    tune, teach, student = of(shop, Tune), of(shop, Teach), of(shop, Distill)
    home = shop.context().manifests.path(shop.manifest(tune.name))
    assert set(load_file(home / "heads.safetensors")) == {"up.weight", "up.bias", "down.weight"}
    told = shop.manifest(teach.name)
    assert told.info["teacher"].endswith("tuned") and told.counts["item_table_version"]
    rows = pq.read_table(shop.context().manifests.path(told) / "rows.parquet")
    assert rows.column_names == ["user_id", "position", "layer", "vec"]
    assert set(rows["layer"].to_pylist()) == {1, 2, 3} and rows.num_rows == 3 * 40
    assert "tuned" in shop.manifest(f"evaluations/{student.slug}").info["report"]
    again = shop.ask("run", "slmrec")
    assert {r["status"] for r in again["assets"]} <= {"reused"}
    assert shop.invoke("status").exit_code == 0
    assert shop.invoke("plan", "slmrec").exit_code == 0
    traced = shop.invoke("trace", teach.name, "u05")
    assert traced.exit_code == 0, traced.output


def test_blocks_are_counted_before_anything_is_tuned(shop: Shop) -> None:
    """A student or a teacher with fewer layers than blocks is named at once."""
    toml = shop.home / "llmers.toml"
    text = toml.read_text()
    toml.write_text(text.replace("blocks = 3", "blocks = 4"))
    with pytest.raises(PlanError, match=r"4 blocks of a model with 3 layers.*layers = 4"):
        shop.plan()
    toml.write_text(toml.read_text().replace("layers = 3", "layers = 4"))
    result = shop.invoke("run", "slmrec")
    told = result.stderr + str(result.exception)
    assert result.exit_code != 0 and "4 blocks of a model with 3 layers" in told
    assert "nothing was run" in told and not (shop.context().settings.data / "tuning").exists()
