"""What an evaluation says beside its gains, from the stored weights of its cells."""

from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmers_pipelines.data.text import ItemText
from llmers_pipelines.data.training import TEST, VALID
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.data.views import kept_rows
from llmers_pipelines.evaluate.beyond import category_summary, stability, summary
from llmers_pipelines.evaluate.compare import compare
from llmers_pipelines.evaluate.predict import ctr_table, rank_table, top_k_lists
from llmers_pipelines.evaluate.report import Header, markdown, percent
from llmers_pipelines.evaluate.slices import standard_slices
from llmers_pipelines.models.itemknn import ItemKNN
from llmers_pipelines.models.knnblend import KNNBlend
from llmers_pipelines.models.popularity import Popularity
from llmers_pipelines.orchestrate.aside import beside, per_tokens, vector_grid
from llmers_pipelines.orchestrate.cell_tables import among, lists
from llmers_pipelines.orchestrate.cells import Cell
from llmers_pipelines.orchestrate.list_kinds import kinds_of
from llmers_pipelines.orchestrate.steps.evaluate import repeats
from llmers_pipelines.plan import Embed, Generate, Table, Train
from llmers_pipelines.prompts.liked_disliked import LikedDisliked
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train import trained as stored
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.trained import save_trained

TRAINS = {
    "enhanced": Train(ItemKNN(k=5), Table("splits", task="sequential")),
    "base": Train(Popularity(), Table("splits", task="sequential")),
}


@pytest.fixture
def made(tmp_path):
    """A log in which items 1 to 6 are held out of training, and a cell of each arm."""
    data = planted_rings(n_users=80, n_items=30, seed=1).data
    held = (data.item <= 6) & (data.split != TEST)
    split = np.where(held, VALID, data.split).astype(np.int8)
    data = dataclasses.replace(data, split=split, info={"protocol": "cold_item"})
    cells, models = {}, {}
    for arm, train in TRAINS.items():
        model = fit(train, data, {}, seed=0)
        save_trained(model, tmp_path / arm)
        pq.write_table(rank_table(model, data, TEST), tmp_path / arm / "test.parquet")
        record = json.loads((tmp_path / arm / "training.json").read_text())
        cells[arm, None], models[arm] = Cell(tmp_path / arm, record, False), model
    return data, cells, models


class Popular:
    def __init__(self, data):
        self.row = data.train_counts.astype(float)

    def scores(self, users, histories):
        return np.tile(self.row, (len(users), 1))


def test_tables_come_from_the_stored_weights_once(made, monkeypatch):
    data, cells, models = made
    train, cell = TRAINS["enhanced"], cells["enhanced", None]
    expected = top_k_lists(models["enhanced"], data)
    for _ in range(2):
        found = lists(cell, train, data)
        np.testing.assert_array_equal(found.users, expected.users)
        np.testing.assert_array_equal(found.items, expected.items)
        only = np.arange(31) <= 6
        only[0] = False
        wanted = rank_table(models["enhanced"], data, TEST, only=only)
        assert among(cell, train, data, "cold").equals(wanted)
        # from here on no model runs
        monkeypatch.setattr(stored, "load_trained", lambda *_: pytest.fail("the model ran again"))


def test_cold_and_warm_targets_part_the_test_rows(made):
    data, cells, _ = made
    parts = [among(cells["base", None], TRAINS["base"], data, k) for k in ("cold", "warm")]
    assert sum(p.num_rows for p in parts) == cells["base", None].table("test").num_rows
    assert (parts[0]["item"].to_numpy() <= 6).all() and (parts[1]["item"].to_numpy() > 6).all()
    assert (parts[0]["n_candidates"].to_numpy() <= 6).all()


def test_the_report_has_lists_curves_gaps_power_and_cold_candidates(made):
    data, cells, models = made
    tables = {key: cell.table("test") for key, cell in cells.items()}
    comparison = compare(tables, slices=standard_slices(data), resamples=200)
    aside = beside(cells, TRAINS, data, comparison)
    for arm, model in models.items():
        expected = summary(top_k_lists(model, data), data)
        assert {k: aside.beyond[arm][k] for k in expected} == expected
    assert aside.beyond["base"]["serendipity"] == 0.0  # popularity has no surprise
    assert aside.beyond["enhanced"]["serendipity"] > 0.3
    header = Header.of(data, title="t", dataset="d")
    report = markdown(comparison, header, beyond=aside.beyond, more=aside.grids)
    titles = [line[3:] for line in report.splitlines() if line.startswith("## ")]
    assert titles[-4:] == ["Beyond accuracy", "Gaps between groups in ndcg@10",
                           "ndcg@10 in five steps", "Cold and warm candidates"]  # fmt: skip
    assert re.search(r"- Power \(ndcg@10\): of \d+ users a difference of 0\.\d+ is found", report)
    for grid in aside.grids:
        assert grid.rows and all(len(row) == len(grid.columns) for row in grid.rows)
    cold = [r for r in aside.grids[-1].rows if r[0] == "cold" and r[2] == "recall@20"]
    assert cold[0][4] == "1.0000"  # six candidates at most


def test_lists_are_told_by_category_and_by_seed(made, monkeypatch):
    """Of the declared categories the first of several values per item; numbers of names are not."""
    data, cells, models = made
    ids = data.items.ids[::-1]  # joined by id
    told = pa.table({
        "item_id": ids, "maker": [f"m{i}" for i in ids],
        "genres": [None if n == 2 else f"a|g{n % 3}" for n in range(30)][::-1],
    })  # fmt: skip
    kind = {"story": "text", "maker": "category", "genres": "category"}
    ctx = SimpleNamespace(load=lambda node: told, field_kinds=kind)
    log = Table("splits", task="sequential", of=(Table("items"),))
    kinds = kinds_of(Train(ItemKNN(k=5), log), data, ctx)
    assert kinds.field == "genres" and kinds.membership.shape == (31, 4)
    assert kinds.membership.sum(1).tolist() == [0, 2, 2, 0, *[2] * 27]
    found = data.items.index([told["item_id"][9].as_py()])[0]
    assert kinds.membership[found].tolist() == [True, True, False, False]  # a, g2, g1, g0
    tables = {key: cell.table("test") for key, cell in cells.items()}
    comparison = compare(tables, slices=standard_slices(data), resamples=200)
    plain = beside(cells, TRAINS, data, comparison)
    names = ("category_distance", "category_entropy", "calibration")
    assert not set(names) & set(plain.beyond["base"])
    both = {("enhanced", 0): cells["enhanced", None], ("enhanced", 1): cells["base", None]}
    again = {**both, ("base", None): cells["base", None]}
    aside = beside(again, TRAINS, data, comparison, kinds)
    for arm, model in models.items():
        expected = category_summary(top_k_lists(model, data), kinds.membership, data)
        assert {n: aside.beyond[arm][n] for n in names} == expected
        assert all(v is not None for v in expected.values())
    tops = [top_k_lists(models[arm], data) for arm in ("enhanced", "base")]
    assert aside.beyond["enhanced"]["stability"] == stability(*tops) < 1
    assert aside.beyond["enhanced"]["overlap_with_base"] == stability(*tops)
    assert "stability" not in aside.beyond["base"]  # one training
    header = Header.of(data, title="t", dataset="d")
    report = markdown(comparison, header, beyond=aside.beyond, more=aside.grids)
    assert "Calibration: KL" in report and "Stability: " in report
    # a field of as many values as items says nothing of a list
    ctx.field_kinds = {"maker": "category"}
    monkeypatch.setattr("llmers_pipelines.orchestrate.list_kinds.MOST", 20)
    assert kinds_of(Train(ItemKNN(k=5), log), data, ctx) is None


def test_a_report_says_how_many_targets_were_met_before():
    data = planted_rings(n_users=80, n_items=30, seed=1).data
    rows = list(zip(data.user.tolist(), data.item.tolist(), data.split.tolist(), strict=True))
    met = {(u, i) for u, i, s in rows if s != TEST}
    again = {(u, i) for u, i, s in rows if s == TEST} & met
    assert len(again) > 1
    tables = {("base", None): rank_table(Popular(data), data, TEST)}
    assert repeats(tables) == [
        f"Dropped: {len(again)} test rows whose user had met the item before; they are no targets"
    ]
    kept = {("base", None): rank_table(Popular(data), data, TEST, repeats="keep")}
    assert repeats(kept) == []
    once = kept_rows(data, np.array([s != TEST or (u, i) not in met for u, i, s in rows]))
    assert repeats({("base", None): rank_table(Popular(once), once, TEST)}) == []


def test_clicks_have_calibration_reliability_and_both_formulas(tmp_path):
    data = contract_data("ctr")
    rng = np.random.default_rng(0)
    cells, tables = {}, {}
    for arm, noise in (("base", 0.8), ("enhanced", 0.3)):
        p = np.clip(data.label + noise * rng.standard_normal(len(data.label)), 0.01, 0.99)

        class Model:
            predict = staticmethod(lambda rows, p=p: p[rows])

        (tmp_path / arm).mkdir()
        tables[arm, 0] = ctr_table(Model(), data, TEST)
        pq.write_table(tables[arm, 0], tmp_path / arm / "test.parquet")
        cells[arm, 0] = Cell(tmp_path / arm, {}, False)
    comparison = compare(tables, resamples=200)
    aside = beside(cells, {"base": None, "enhanced": None}, data, comparison)
    assert not aside.beyond
    calibration, reliable, ratio = aside.grids
    held = tables["base", 0]
    label, p = held["label"].to_numpy(), held["p"].to_numpy()
    whole = next(r for r in calibration.rows if r[:2] == ("base", "all"))
    assert float(whole[3]) == pytest.approx(p.mean() / label.mean(), abs=1e-3)
    both = [
        0 < label[held["user"].to_numpy() == u].mean() < 1 for u in set(held["user"].to_pylist())
    ]
    assert float(whole[4]) == pytest.approx(np.mean(both), abs=1e-3)
    assert sum(int(r[1].replace(",", "")) for r in reliable.rows if r[0] == "base") == len(label)
    row, first = next(r for r in ratio.rows if r[0] == "auc"), comparison.headline
    assert row[1] == percent((first["enhanced"] - 0.5) / (first["base"] - 0.5) - 1)
    assert row[2] == percent(first["enhanced"] / first["base"] - 1)


def test_the_gain_per_million_tokens_counts_the_version_that_paid():
    task = LikedDisliked()
    asked = Generate(task, Table("users"))

    class Manifests:
        @staticmethod
        def versions(dataset, name):
            paid = {"tokens_in": 1_500_000, "tokens_out": 500_000}
            return [SimpleNamespace(counts=c) for c in (paid, {"tokens_in": 0, "tokens_out": 0})]

    ctx = SimpleNamespace(manifests=Manifests, dataset="d")
    told = SimpleNamespace(headline={"difference": 0.01}, primary="ndcg@10", power=object())
    assert per_tokens(asked, told, ctx) == (
        "Language model: 2,000,000 tokens; ndcg@10 +0.0050 per million of them"
    )
    assert per_tokens(TRAINS["enhanced"], told, ctx) == ""  # no language model


def test_item_vectors_are_judged_by_themselves():
    planted = planted_rings(n_users=80, n_items=30, seed=1)
    vectors, more = Table("items"), Table("users")
    model = Train(KNNBlend(vectors, k=5), Table("splits", task="sequential"))
    table = planted.items
    order = np.random.default_rng(0).permutation(len(table.ids))  # joined by id
    mixed = VectorTable(
        "item", tuple(table.ids[i] for i in order), table.vectors[order], table.mask[order]
    )
    ctx = SimpleNamespace(load=lambda node: {vectors: mixed, more: None}[node], field_kinds={})
    (grid,) = vector_grid(model, planted.data, ctx)
    assert grid.rows[0][-1] == "-"  # no category is declared
    assert grid.rows[0][:2] == (vectors.name, "30")
    assert float(grid.rows[0][2]) > 0.8 and float(grid.rows[0][3]) > 0.2
    assert vector_grid(TRAINS["enhanced"], planted.data, ctx) == []  # reads none


def test_the_category_of_items_is_read_off_their_vectors():
    planted = planted_rings(n_users=80, n_items=30, seed=1)
    vectors, items = Embed(ItemText(), over=Table("items")), Table("items")
    model = Train(KNNBlend(vectors, k=5), Table("splits", task="sequential"))
    ids = planted.data.items.ids[::-1]
    kind = [f"g{planted.group[planted.data.items.index([i])[0]]}|more" for i in ids]
    told = pa.table({"item_id": ids, "kind": kind})
    ctx = SimpleNamespace(load=lambda node: {vectors: planted.items, items: told}[node],
                          field_kinds={"story": "text", "kind": "category"})  # fmt: skip
    (grid,) = vector_grid(model, planted.data, ctx)
    right, common = grid.rows[0][-1].rstrip(")").split(" (")
    assert float(right) > 0.8 > float(common)
