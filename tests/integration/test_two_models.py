"""HLLM in the graph: two models tuned together, resumed, stored as vectors, never served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
from safetensors.numpy import load_file
from shop import SMALL, Shop, made

from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.deep_states import DeepStates
from llmers_pipelines.orchestrate.publish import materialize
from llmers_pipelines.plan import Derive, Distill, Embed, Table, Teach, Tune
from llmers_pipelines.tune.next_item_contrast_net import NextItemTask

pytestmark = pytest.mark.proof("hllm", "graph")
CHOICE = """
[llmers]
dataset = "shop"
[encoder]
name = "{lm}?pooling=last&normalize=0"
[tune]
checkpoint_seconds = 0
[evaluation]
controls = ["permuted"]
[[methods]]
recipe = "hllm"
settings = {{ epochs = 2, batch = 16, negatives = 6, length = 4, teach = 0.1, lr = 0.003 }}
backbone_settings = {small}
"""


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    lm = tiny_lm.make_tiny_lm(tmp_path_factory.mktemp("lm"))
    shop = Shop.open(tmp_path / "home")
    (shop.home / "llmers.toml").write_text(CHOICE.format(lm=lm, small=SMALL))
    return shop


def of(shop: Shop, kind: type) -> Any:
    return next(n for n in shop.plan().nodes if isinstance(n, kind) and n.verb == kind.verb)


def weights(shop: Shop) -> dict[str, np.ndarray]:
    home = shop.context().manifests.path(shop.manifest(of(shop, Tune).name))
    return {f"{f.parent.name}/{f.name}/{n}": a for f in sorted(home.rglob("*.safetensors"))
            for n, a in load_file(f).items()}  # fmt: skip


def test_killed_while_tuning_it_ends_the_same(shop: Shop, tmp_path: Path, monkeypatch: Any) -> None:
    """No step is made twice, and both models, the token and their versions are the same."""
    node = of(shop, Tune)
    whole = shop.copy(tmp_path / "whole")
    whole.work(node.name)
    steps: list[tuple[int, ...]] = []
    backward = NextItemTask.backward

    def dying(self: Any, rows: Any, epoch: int) -> float:
        if len(steps) == 7:
            steps.append(())
            raise KeyboardInterrupt
        steps.append((epoch, *rows.tolist()))
        return backward(self, rows, epoch)

    monkeypatch.setattr(NextItemTask, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        shop.work(node.name)
    shop.work(node.name)
    manifest = shop.manifest(node.name)
    done = [s for s in steps if s]
    assert manifest.counts["resumed_from"] == 7 and len(done) == manifest.counts["steps"]
    assert len(set(done)) == len(done)
    one, two = weights(whole), weights(shop)
    assert {n.split("/")[0] for n in one} == {"adapter", "user"}
    assert "adapter/text_token.safetensors/token" in one
    assert set(one) == set(two) and all(np.array_equal(one[n], two[n]) for n in one)
    assert manifest.data_version == whole.manifest(node.name).data_version
    assert manifest.rows == manifest.counts["examples_used"] == 80


def test_one_run_makes_vectors_states_and_a_served_student(shop: Shop) -> None:
    books = shop.read("items")
    books[6] |= {"title": "", "kind": "", "description": ""}  # b07 says nothing
    shop.write("items", books)
    report = shop.ask("run", "hllm")
    assert report["success"], [r for r in report["assets"] if r.get("error")]
    keys = {r["key"].split("/")[0] for r in report["assets"]}
    assert {"tuned_models", "llm_embeddings", "teacher_states", "student_weights"} <= keys
    tune, embed, teach = of(shop, Tune), of(shop, Embed), of(shop, Teach)
    told = shop.manifest(embed.name)
    assert told.counts["encoded"] == 23 and told.counts["mean"] == 1
    assert shop.manifest(tune.name).counts["items"] == 23 and "adapter=" in told.sources["encoder"]
    for name in (tune.name, embed.name, teach.name, f"registry/{of(shop, Distill).slug}"):
        assert all(c.passed for c in shop.manifest(name).checks if c.blocking), name
    assert shop.manifest(teach.name).counts["passes"] == 40
    again = shop.ask("run", "hllm")
    assert {r["status"] for r in again["assets"]} <= {"reused"}
    for words in (["plan", "hllm"], ["status"], ["trace", embed.name, "b01"]):
        shown = shop.invoke(*words)
        assert shown.exit_code == 0, shown.output

    context = shop.context()
    log = next(n for n in shop.plan().nodes if isinstance(n, Table) and n.table == "splits")
    users = Derive(DeepStates("user", 4), tune, embed, log)  # cached user vectors, as an asset
    assert materialize(users, context).status == "materialized"
    vectors: VectorTable = context.load(users)
    assert vectors.entity == "user" and vectors.mask.all() and len(vectors.ids) == 40
    assert float(np.asarray(vectors.vectors).std(0).max()) > 1e-3

    books[3]["description"] = "Another story altogether."
    shop.write("items", books)
    redone = made(shop.work(embed.name))
    assert tune.name in redone and embed.name in redone
    assert shop.manifest(embed.name).counts["encoded"] == 23, "another model reads all texts anew"
