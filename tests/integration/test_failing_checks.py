"""Each blocking check fails, through its step, where the part that it watches goes wrong."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from failing import Patch, Ranked, named, ranks, step_checks, wrapped
from safetensors.numpy import load_file, save_file
from shop import BOOKS, Shop
from torch import nn

from llmers_pipelines.api import PCA, Derive, NearestNeighbours, Teach, TrainedRanking
from llmers_pipelines.data import splits as splitting
from llmers_pipelines.data.training import TRAIN, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.candidates import TopCandidates
from llmers_pipelines.encode import run as encoding
from llmers_pipelines.encode.tfidf import TfidfEncoder
from llmers_pipelines.evaluate import gate
from llmers_pipelines.orchestrate import cells, checks
from llmers_pipelines.orchestrate.steps import evaluate, run_verb, table, teach, train
from llmers_pipelines.plan import Node
from llmers_pipelines.registry.mlflow_store import MlflowStore, model_name
from llmers_pipelines.registry.scorer import Scorer
from llmers_pipelines.teach.teacher import Taught
from llmers_pipelines.train import loop

LOG, TEXTS = "catalog/splits__sequential", "llm_embeddings/item_summary"
Break = Callable[[Shop, Patch], Node | None]
CASES: dict[tuple[str, str], tuple[str, Break]] = {}
# Failing cases that other files have.
ELSEWHERE = {
    ("_GENERATE", "no_leakage"): "test_pipeline.py",
    ("_CANDIDATES", "no_leakage"): "test_candidates.py",
    ("_TEACH", "no_leakage"): "test_distillation.py",
    **{
        (kind, check): "unit/orchestrate/test_derived_checks.py"
        for kind, check in (
            ("_ENTITIES", "row_identity"), ("_POSITIONS", "row_identity"),
            ("_PAIRS", "row_identity"), ("_ADDED", "row_identity"),
            ("_EDGES", "row_identity"), ("_EDGES", "no_leakage"),
            ("_GRAPHS", "row_identity"), ("_GRAPHS", "no_leakage"),
            ("_EXAMPLES", "row_identity"), ("_EXAMPLES", "no_leakage"),
            ("_TUNE", "no_leakage"), ("_TUNE", "weights_finite"),
        )
    },
}  # fmt: skip


def case(kind: str, check: str, name: str) -> Callable[[Break], Break]:
    """Declare how to break what ``check`` watches; a break may return another node to run."""

    def keep(broken: Break) -> Break:
        CASES[kind, check] = name, broken
        return broken

    return keep


def test_no_blocking_check_is_left_out() -> None:
    groups = {n: v for n, v in vars(checks).items() if n.isupper() and isinstance(v, tuple)}
    blocking = {(n, c.name) for n, kinds in groups.items() for c in kinds if c.blocking}
    assert blocking == {k for k in CASES if k[1] != "permutation_control"} | set(ELSEWHERE)


@pytest.mark.parametrize(("kind", "check"), CASES)
def test_it_fails_through_its_step(
    own: Shop, kind: str, check: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    name, broken = CASES[kind, check]
    node = named(own, name)
    if kind == "_EMBED":
        shutil.rmtree(own.home / "data/llmers/vectors")
    other = broken(own, monkeypatch)
    found = step_checks(own, other or node, tmp_path / "out")[check]
    assert not found.passed
    declared = {c.name: c.blocking for c in getattr(checks, kind)}
    assert found.blocking == declared[check]


@case("_TABLE", "rows_valid", "catalog/items")
def _repeated_ids(shop: Shop, monkeypatch: Patch) -> None:
    def twice(right: Any, ctx: Any) -> Any:
        catalog = right(ctx)
        items = pa.concat_tables([catalog.items, catalog.items.slice(0, 1)])
        return dataclasses.replace(catalog, items=items)

    wrapped(monkeypatch, table, "_load", twice)


@case("_TABLE", "quarantine_small", "catalog/items")
def _bad_rows(shop: Shop, monkeypatch: Patch) -> None:
    rows = shop.read("items")
    shop.write("items", [*rows, *rows[:3]])


def _other_log(monkeypatch: Patch, change: Callable[[TrainingData], dict[str, Any]]) -> None:
    def other(right: Any, *args: Any) -> TrainingData:
        data = right(*args)
        return dataclasses.replace(data, **change(data))

    wrapped(monkeypatch, splitting, "build_training_data", other)


@case("_SPLITS", "splits_disjoint", LOG)
def _one_split(shop: Shop, monkeypatch: Patch) -> None:
    _other_log(monkeypatch, lambda data: {"split": np.full_like(data.split, TRAIN)})


@case("_SPLITS", "no_future", LOG)
def _trained_on_the_future(shop: Shop, monkeypatch: Patch) -> None:
    def later(data: TrainingData) -> dict[str, Any]:
        time = data.time.copy()
        time[np.flatnonzero(data.split == TRAIN)[0]] = data.time.max() + 1
        return {"time": time}

    _other_log(monkeypatch, later)


def _reversed_rows(shop: Shop, monkeypatch: Patch) -> None:
    def swapped(right: Any, self: VectorTable, folder: Path) -> None:
        right(dataclasses.replace(self, vectors=np.array(self.vectors[::-1])), folder)

    save = VectorTable.save
    monkeypatch.setattr(VectorTable, "save", lambda self, folder: swapped(save, self, folder))


def _padding_is_an_item(shop: Shop, monkeypatch: Patch) -> None:
    right = VectorTable.aligned

    def aligned(self: VectorTable, ids: Any) -> Any:
        rows, mask = right(self, ids)
        rows[0] = 1
        return rows, mask

    monkeypatch.setattr(VectorTable, "aligned", aligned)


for _kind, _name in (("_EMBED", TEXTS), ("_DERIVE", "features/pca")):
    case(_kind, "row_identity", _name)(_reversed_rows)
    case(_kind, "padding", _name)(_padding_is_an_item)


@case("_EMBED", "coverage", TEXTS)
def _a_row_less(shop: Shop, monkeypatch: Patch) -> None:
    def short(right: Any, *args: Any) -> Any:
        made, counts = right(*args)
        return VectorTable("item", made.ids[:-1], made.vectors[:-1], made.mask[:-1]), counts

    wrapped(monkeypatch, encoding, "embed_texts", short)


@case("_EMBED", "determinism", TEXTS)
def _depends_on_the_batch(shop: Shop, monkeypatch: Patch) -> None:
    right = TfidfEncoder.encode

    def encode(self: TfidfEncoder, texts: Any, progress: Any = None) -> Any:
        made = right(self, texts, progress)
        return made + made.mean(0)

    monkeypatch.setattr(TfidfEncoder, "encode", encode)


@case("_EMBED", "incrementality", TEXTS)
def _pays_twice(shop: Shop, monkeypatch: Patch) -> None:
    run_verb(named(shop, TEXTS), shop.context())  # the store has all of them now
    wrapped(
        monkeypatch,
        encoding,
        "embed_texts",
        lambda right, texts, encoder, store, progress: right(texts, encoder, None, progress),
    )


def test_a_lost_vector_store_is_filled_again_without_an_alarm(own: Shop) -> None:
    shutil.rmtree(own.home / "data/llmers/vectors")
    rows = own.read("items")
    rows[0]["description"] = "Something quite new about whales."
    own.write("items", rows)
    own.work("llm_embeddings/item_text")
    manifest = own.manifest("llm_embeddings/item_text")
    found = next(c for c in manifest.checks if c.name == "incrementality")
    assert found.passed and manifest.held_by == []
    assert found.details["encoded"] == found.details["missing from the store"] == BOOKS


@case("_DERIVE", "reducer_hygiene", "features/pca")
def _wrong_sign(shop: Shop, monkeypatch: Patch) -> None:
    right = PCA.apply

    def flipped(self: PCA, *args: Any, **more: Any) -> Any:
        made, info = right(self, *args, **more)
        return made, {**info, "explained_variance": 1.5}

    monkeypatch.setattr(PCA, "apply", flipped)


@case("_NEIGHBOURS", "row_identity", LOG)
def _ones_own_neighbour(shop: Shop, monkeypatch: Patch) -> Node:
    found = pa.table({"item_id": ["b01"], "rank": [1], "other_id": ["b01"], "cos": [1.0]})
    monkeypatch.setattr(NearestNeighbours, "apply", lambda *args, **more: (found, {}))
    return Derive(NearestNeighbours(), named(shop, TEXTS))


@case("_CANDIDATES", "row_identity", LOG)
def _offered_twice(shop: Shop, monkeypatch: Patch) -> Node:
    found = pa.table({"user_id": ["u01", "u01"], "rank": [1, 2], "item_id": ["b01", "b01"]})
    told = {"held_out_seen": 0}
    monkeypatch.setattr(TopCandidates, "apply", lambda *args, **more: (found, told))
    return Derive(TopCandidates(), named(shop, LOG))


@case("_TEACH", "row_identity", LOG)
def _ranked_twice(shop: Shop, monkeypatch: Patch) -> Node:
    rows = pa.table({"user_id": ["u01", "u01"], "position": [1, 1], "rank": [1, 2],
                     "item_id": ["b01", "b01"], "distance": [0.0, 0.5]})  # fmt: skip
    monkeypatch.setattr(teach, "_trained", lambda *args: Taught(rows, "probe"))
    return Teach(TrainedRanking(), named(shop, LOG), (named(shop, "recommenders/sasrec"),))


def _other_weights(shop: Shop, monkeypatch: Patch, change: Callable[[np.ndarray], None]) -> None:
    def spoiled(right: Any, *args: Any) -> cells.Cell:
        cell = right(*args)
        folder = shop.home / "spoiled"
        shutil.copytree(cell.folder, folder)
        arrays = load_file(folder / "weights.safetensors")
        change(arrays["item_table.weight"])
        save_file(arrays, folder / "weights.safetensors")
        return dataclasses.replace(cell, folder=folder)

    wrapped(monkeypatch, train, "run_cell", spoiled)


@case("_TRAIN", "weights_finite", "recommenders/sasrec")
def _not_a_number(shop: Shop, monkeypatch: Patch) -> None:
    _other_weights(shop, monkeypatch, lambda weights: weights.__setitem__((3, 0), np.nan))


@case("_TRAIN", "padding", "recommenders/sasrec")
def _padding_is_trained(shop: Shop, monkeypatch: Patch) -> None:
    _other_weights(shop, monkeypatch, lambda weights: weights.__setitem__((0, 0), 1.0))


@case("_TRAIN", "frozen_unchanged", "recommenders/llm2x")
def _vectors_are_changed(shop: Shop, monkeypatch: Patch) -> None:
    shutil.rmtree(shop.home / "data/llmers/cells")

    def writable(right: Any, *args: Any) -> Any:
        return {
            node: dataclasses.replace(made, vectors=np.array(made.vectors))
            for node, made in right(*args).items()
        }

    def moved(right: Any, node: Any, data: Any, inputs: Any, **more: Any) -> Any:
        for made in inputs.values():
            made.vectors[1] += 1
        return right(node, data, inputs, **more)

    wrapped(monkeypatch, cells, "inputs_of", writable)
    wrapped(monkeypatch, loop, "fit", moved)


@case("_EVALUATE", "permutation_control", "evaluations/llm2x")
def _permuted_beats_the_base(shop: Shop, monkeypatch: Patch) -> None:
    ranks(monkeypatch, base=0, permuted=4, enhanced=9)


@case("_EVALUATE", "metrics_finite", "evaluations/kar")
def _all_are_clicks(shop: Shop, monkeypatch: Patch) -> None:
    class Clicked(Ranked):
        def table(self, split: str) -> pa.Table:
            rows = self.cell.table(split)
            at = rows.schema.get_field_index("label")
            ones = pa.array(np.ones(rows.num_rows), rows.schema.field(at).type)
            return rows.set_column(at, rows.schema.field(at), ones)

    wrapped(
        monkeypatch,
        evaluate,
        "gather",
        lambda right, *args: {k: Clicked(c, 0, c) for k, c in right(*args).items()},
    )


@case("_EVALUATE", "matched_budget", "evaluations/llm2x")
def _the_base_is_trained_for_longer(shop: Shop, monkeypatch: Patch) -> None:
    base = named(shop, "evaluations/llm2x").base  # type: ignore[attr-defined]

    def longer(right: Any, node: Any, *args: Any) -> Any:
        if node == base:
            fit = dataclasses.replace(node.backbone.fit, epochs=3)
            node = dataclasses.replace(node, backbone=dataclasses.replace(node.backbone, fit=fit))
        return right(node, *args)

    shutil.rmtree(shop.home / "data/llmers/cells")
    wrapped(monkeypatch, evaluate, "run_cell", longer)


@case("_REGISTER", "no_llm_at_serving", "registry/llm2x")
def _an_encoder_is_served(shop: Shop, monkeypatch: Patch) -> None:
    def with_adapter(right: Any, *args: Any, **more: Any) -> Scorer:
        scorer = right(*args, **more)
        kind = type("Adapter", (nn.Module,), {"__module__": "llmers_pipelines.encode.adapter"})
        scorer.ranker.served.net.hooks.append(kind())
        return scorer

    wrapped(monkeypatch, Scorer, "load", with_adapter)


@case("_REGISTER", "loads", "registry/llm2x")
def _no_answer(shop: Shop, monkeypatch: Patch) -> None:
    empty = {"items": [], "fallback": None}
    monkeypatch.setattr(Scorer, "recommend", lambda self, user, k: empty)


@case("_CHAMPION", "alias_consistent", "registry/champion__sequential")
def _the_alias_does_not_move(shop: Shop, monkeypatch: Patch) -> None:
    ctx, node = shop.context(), named(shop, "registry/champion__sequential")
    verdicts = run_verb(node, ctx).info["verdicts"]
    name = model_name(ctx.dataset, "sequential")
    MlflowStore.from_settings(shop.settings()).set_champion(name, verdicts[-1]["version"])
    monkeypatch.setattr(gate, "decide", lambda *a, **m: gate.Decision(True, ("better",), {}))
    monkeypatch.setattr(MlflowStore, "set_champion", lambda *args: None)
