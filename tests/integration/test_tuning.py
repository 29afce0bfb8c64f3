"""Tuned models in the graph: made once, resumed, named by what they are, checked for leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_lm
from safetensors.numpy import load_file
from shop import SMALL, Shop, made

from llmers_pipelines.orchestrate.estimate import estimate
from llmers_pipelines.orchestrate.publish import stale_because
from llmers_pipelines.orchestrate.tuned import adapter_folder
from llmers_pipelines.plan import Tune
from llmers_pipelines.tune import loop_net
from llmers_pipelines.tune.contrast_net import ContrastTask

METHOD = "LLMEmb"
CHOICE = """
[llmers]
dataset = "shop"
[encoder]
name = "{lm}?pooling=mean&normalize=0"
[evaluation]
controls = ["permuted"]
[[methods]]
recipe = "llmemb"
settings = {{ pca = 8, epochs = 2 }}
backbone_settings = {small}
"""


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lm.make_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture
def tuning(tmp_path: Path, llm: Path) -> Shop:
    shop = Shop.open(tmp_path / "home")
    (shop.home / "llmers.toml").write_text(CHOICE.format(lm=llm, small=SMALL))
    return shop


def tune_of(shop: Shop) -> Tune:
    return next(n for n in shop.plan().nodes if isinstance(n, Tune))


def test_a_tuned_encoder_is_an_asset(tuning: Shop) -> None:
    """One command makes all stages; again, nothing is tuned, encoded or trained."""
    report = tuning.ask("run", METHOD)
    assert {r["status"] for r in report["assets"]} == {"materialized"}
    node = tune_of(tuning)
    manifest = tuning.manifest(node.name)
    assert node.key[0] == "tuned_models" and manifest.counts["epochs"] == 2
    assert {c.name: c.passed for c in manifest.checks}.items() >= {
        "no_leakage": True, "weights_finite": True}.items()  # fmt: skip
    folder = adapter_folder(node, tuning.context())
    assert {p.suffix for p in folder.rglob("*")} == {".safetensors", ".json"}
    again = tuning.ask("run", METHOD)
    assert {r["status"] for r in again["assets"]} == {"reused"}
    embedded = next(m for m in tuning.context().manifests.all("shop")
                    if m.name.startswith("llm_embeddings/attribute_text"))  # fmt: skip
    assert "adapter=" in embedded.sources["encoder"]
    assert embedded.inputs[node.name] == manifest.data_version
    shown = tuning.invoke("trace", embedded.name, "b01")
    assert shown.exit_code == 0, shown.output
    status = tuning.invoke("status")
    assert status.exit_code == 0 and "tuned_models" not in status.stdout


def test_killed_while_tuning(tuning: Shop, tmp_path: Path, monkeypatch: Any) -> None:
    """The second run goes on from the last snapshot and ends with the same bytes."""
    node = tune_of(tuning)
    tuning.choose("[tune]\ncheckpoint_seconds = 0")
    whole = tuning.copy(tmp_path / "whole")
    whole.work(node.name)
    steps = 0
    backward = ContrastTask.backward

    def dying(self: Any, rows: Any, epoch: int) -> float:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise KeyboardInterrupt
        return backward(self, rows, epoch)

    monkeypatch.setattr(ContrastTask, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        tuning.work(node.name)
    monkeypatch.undo()
    counted = []
    save = loop_net.save
    monkeypatch.setattr(loop_net, "save", lambda *a: (counted.append(a[1]), save(*a)))
    tuning.work(node.name)
    assert tuning.manifest(node.name).counts["resumed_from"] == 1
    assert 1 not in counted, "the first step was not made again"
    one, two = (load_file(adapter_folder(node, s.context()) / "adapter_model.safetensors")
                for s in (whole, tuning))  # fmt: skip
    assert all(np.array_equal(one[n], two[n]) for n in one)
    assert whole.manifest(node.name).data_version == tuning.manifest(node.name).data_version


def test_what_is_tuned_changes_with_examples_and_settings(tuning: Shop) -> None:
    node = tune_of(tuning)
    tuning.work(node.name)
    before = tuning.manifest(node.name)
    books = tuning.read("items")
    books[0]["description"] = "Another story altogether."
    tuning.write("items", books)
    assert node.name in made(tuning.work(node.name))
    assert tuning.manifest(node.name).data_version != before.data_version
    toml = tuning.home / "llmers.toml"
    toml.write_text(toml.read_text().replace("epochs = 2", "epochs = 3"))
    other = tune_of(tuning)
    assert other.name != node.name and other.digest != node.digest


def test_a_plan_names_what_cannot_be_tuned(tuning: Shop) -> None:
    toml = tuning.home / "llmers.toml"
    text = toml.read_text()
    toml.write_text(text.replace(text.split('"')[3], "tfidf?dim=24"))
    node = tune_of(tuning)
    ctx = tuning.context()
    assert estimate([node], ctx)[0]["state"] != "fresh"
    result = tuning.invoke("run", METHOD)
    assert result.exit_code != 0 and "no weights to tune" in result.stderr + str(result.exception)
    assert not (tuning.context().settings.data / "tuning").exists()


def test_examples_that_show_held_out_rows_are_refused(tuning: Shop, monkeypatch: Any) -> None:
    """The tuner itself looks: a table that passed no check of its own is not trained on."""
    from llmers_pipelines.orchestrate.context import StepError
    from llmers_pipelines.orchestrate.steps import tune as step

    tuning.work("features/attribute_views__items", "catalog/splits__sequential")
    ctx, node = tuning.context(), tune_of(tuning)
    log = next(n for n in tuning.plan().nodes if n.name == "catalog/splits__sequential")
    data = ctx.load(log)
    held = np.flatnonzero(data.split == 2)[0]
    user, item = data.users.ids[data.user[held] - 1], data.items.ids[data.item[held] - 1]
    table = pq.read_table(ctx.manifests.path(ctx.manifest(node.examples)) / "rows.parquet")
    import pyarrow as pa

    n = table.num_rows
    for shown, why in (([item], "test row"), (None, "do not tell")):
        rows = [shown, *[[]] * (n - 1)]
        seen = table.append_column("user_id", pa.array([user] * n)).append_column(
            "shown", pa.array(rows, pa.list_(pa.string())))  # fmt: skip
        monkeypatch.setattr(step, "log_of", lambda nodes: log)
        monkeypatch.setattr(type(ctx), "load",
                            lambda self, x, s=seen: data if x is log else s)  # fmt: skip
        with pytest.raises(StepError, match=why):
            step.run(node, ctx)
    assert not (ctx.settings.data / "tuning").exists()


def test_losses_are_kept(tuning: Shop) -> None:
    node = tune_of(tuning)
    tuning.work(node.name)
    ctx = tuning.context()
    told = json.loads((ctx.manifests.path(ctx.manifest(node)) / "losses.json").read_text())
    assert [e["epoch"] for e in told["losses"]] == [1, 2] and told["trained"] > 0
    assert not stale_because(node, ctx)
