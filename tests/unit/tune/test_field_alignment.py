"""A masked language model and a CTR model, pretrained together (FLIP)."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.fences import values
from llmers_pipelines.data.training import HISTORY, TRAIN, Field, TrainingData
from llmers_pipelines.derive.fenced_rows import FencedRows
from llmers_pipelines.models.dcnv2 import DCNv2
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.orchestrate.steps.derive_checks import example_checks
from llmers_pipelines.plan import PlanError
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.tune.field_alignment import FieldAlignment
from llmers_pipelines.tune.field_alignment_net import FieldAlignmentTask, tokens
from llmers_pipelines.tune.loop_net import run
from llmers_pipelines.tune.tuner import Base, Lora, TuneError

pytestmark = pytest.mark.proof("flip", "equations")
BACKBONE = DCNv2(dim=4, mlp=(8,), crosses=1, dropout=0.1)
HOW = FieldAlignment(backbone=BACKBONE, lr=3e-3, batch=32, epochs=2, project=16, schedule="cosine")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return contract_data("ctr")


def items(data: TrainingData) -> pa.Table:
    titles = [f"The {('red', 'green')[n % 2]} story {n}" for n in range(data.n_items)]
    titles[3] = ""  # an item that no text tells
    return pa.table({"item_id": data.items.ids, "title": titles})


def told(data: TrainingData, **how: Any) -> pa.Table:
    return FencedRows(**how).apply([data, items(data)], log=data)[0]


def task(lm: Path, data: TrainingData, rows: pa.Table | None = None, **how: Any) -> Any:
    settings = dataclasses.replace(HOW, **how)
    return settings.objective(Base(lm), told(data) if rows is None else rows, data)


def run_in(own: Any, folder: Path) -> dict[str, Any]:
    with torch.enable_grad():
        return run(own, own.how, folder)


def test_rows_are_told_without_what_is_to_be_learnt(data: TrainingData) -> None:
    """The clicked label is in no text, held-out rows decide nothing, and values are fenced."""
    table = told(data)
    assert all(c.passed for c in example_checks(table, data))
    assert table.num_rows == int((data.split == TRAIN).sum())
    assert data.label is not None and data.rating is not None
    other = dataclasses.replace(data, label=1 - data.label, rating=7 - data.rating)
    assert told(other, last=0).equals(told(data, last=0))
    row = table.to_pylist()[5]
    assert row["fields"] == ["user", "user.group", "item", "item.genre", "history"]
    assert values(row["text"])[:2] == ["u1", "x"]
    label = data.label.copy()
    label[row["row"]] = 1 - label[row["row"]]
    label[data.split != TRAIN] = 1 - label[data.split != TRAIN]
    moved = told(dataclasses.replace(data, label=label))
    same = [a["text"] == b["text"] for a, b in zip(table.to_pylist(), moved.to_pylist(),
                                                   strict=True)]  # fmt: skip
    after = [r["row"] > row["row"] and r["user_id"] == row["user_id"] for r in table.to_pylist()]
    assert same[5] and all(s or a for s, a in zip(same, after, strict=True)) and not all(same)


def test_fields_without_a_value_are_left_out(masked_lm: Path, data: TrainingData) -> None:
    codes = data.user_fields["group"].codes.copy()
    codes[1] = 0
    group = dataclasses.replace(data.user_fields["group"], codes=codes)
    less = dataclasses.replace(data, user_fields={"group": group})
    table = told(less, last=0)
    for row in table.to_pylist():
        assert ("user.group" in row["fields"]) == (row["user_id"] != "u1")
    own = task(masked_lm, less, table, ratio=1.0)
    rows = own.rows[:30]
    rng = np.random.default_rng(0)
    shut = own.shut(rows, own.masks(rows, rng))
    for field, at, value in own.targets(rows, shut, rng):
        if list(own.values)[field] == "user.group":
            assert all(less.user[rows[n].row] != 1 for n in at)
        assert (value >= 0).all()


def test_history_is_what_was_liked_before(data: TrainingData) -> None:
    assert data.label is not None
    ids, names = data.items.ids, dict(zip(*items(data).to_pydict().values(), strict=True))
    for row in told(data, last=2).to_pylist():
        at = row["row"]
        mine = (data.user == data.user[at]) & (data.split == TRAIN) & (data.time < data.time[at])
        liked = [ids[i - 1] for i in data.item[mine & (data.label > 0)]][-2:]
        shown = [i for i in liked if names[i]]
        assert row["shown"] == [*shown, row["item_id"]]
        assert ("history" in row["fields"]) == bool(shown)
        if shown:
            assert values(row["text"])[-1] == ", ".join(names[i] for i in shown)
            assert row["parts"][-1] == [names[i] for i in shown]
        assert [", ".join(listed) for listed in row["parts"]] == values(row["text"])
        assert ("item" in row["fields"]) == bool(names[row["item_id"]])
    assert told(data, samples=9).num_rows == 9
    cut = np.where((data.split == TRAIN) & (data.time < 3), HISTORY, data.split)
    early = dataclasses.replace(data, split=cut.astype(np.int8))
    assert told(early).num_rows == int((cut == TRAIN).sum())
    with pytest.raises(ValueError, match="table with item_id"):
        FencedRows().apply([data], log=data)


def test_a_masked_value_cannot_be_read_elsewhere(masked_lm: Path, data: TrainingData) -> None:
    """By string search over all rows, per title of a history and per value of a list."""
    several = np.array([[0, 0], *([1 + n % 3, (2 - n) % 3] for n in range(data.n_items))])
    lists = {"genre": Field(several.astype(np.int32), ("drama", "crime", "noir"))}
    taste = {"group": Field(data.user_fields["group"].codes, ("crime", "noir"))}
    again = dataclasses.replace(
        data, item=np.where(data.item > 4, 1 + data.item % 4, data.item),
        item_fields=lists, user_fields=taste,
    )  # fmt: skip
    own = task(masked_lm, again, told(again), ratio=0.3)
    texts = [values(r["text"]) for r in told(again).to_pylist()]
    fields = told(again)["fields"].to_pylist()
    leaky = titles = genres = 0
    for epoch in range(3):
        chosen = own.masks(own.rows, np.random.default_rng(epoch))
        for shown, names, shut in zip(texts, fields, chosen, strict=True):
            assert shut.any()
            open_text = " | ".join(v for v, s in zip(shown, shut, strict=True) if not s)
            for value in (v for v, s in zip(shown, shut, strict=True) if s):
                for part in value.split(", "):  # no title and no value here has a comma
                    assert not re.search(rf"(?<!\w){re.escape(part)}(?!\w)", open_text, re.I)
            at = {name: n for n, name in enumerate(names)}
            if "item" in names and "history" in names:
                seen = shown[at["item"]] in shown[at["history"]].split(", ")
                leaky += seen and shut[at["item"]]
                titles += seen and shut[at["history"]] and ", " in shown[at["history"]]
            listed = shown[at["item.genre"]].split(", ")
            genres += (
                len(listed) > 1 and shown[at["user.group"]] in listed and shut[at["item.genre"]]
            )
    assert leaky and titles and genres, "no row shows the leaks that are looked for"


def test_a_fence_ends_where_a_token_ends(masked_lm: Path, data: TrainingData) -> None:
    own = task(masked_lm, data)
    tokenizer = own.tokenizer
    for row, text in zip(own.rows, told(data)["text"].to_pylist(), strict=True):
        for clause, value in enumerate(values(text)):
            ids = [i for i, o in zip(row.ids, row.owner, strict=True) if o == clause]
            assert tokenizer.decode(ids).strip() == value
        assert row.ids[0] == tokenizer.cls_token_id and row.ids[-1] == tokenizer.sep_token_id
    whole = own.rows[5]
    for limit in range(4, len(whole.ids)):
        found = tokens(tokenizer, told(data)["text"][5].as_py(), limit)
        if found is not None:
            ids, owner, clauses = found
            assert len(ids) <= limit and set(owner) - {-1} == set(range(clauses))
            for clause in range(clauses):  # what is told of a value is all of it
                assert (owner == clause).sum() == (whole.owner == clause).sum()
    short = task(masked_lm, data, max_tokens=len(whole.ids) - 2)
    assert short.facts["texts_cut"] > 0
    with pytest.raises(TuneError, match="max_tokens"):
        task(masked_lm, data, max_tokens=4)


def test_text_and_table_hide_the_same_fields(masked_lm: Path, data: TrainingData) -> None:
    own = task(masked_lm, data)
    rows = own.rows[:40]
    rng = np.random.default_rng(0)
    chosen = own.masks(rows, rng)
    shut = own.shut(rows, chosen)
    assert own.names == ("user", "user.group", "item", "item.genre", "history", "history")
    for row, c, s in zip(rows, chosen, shut, strict=True):
        hidden = {f for f, m in zip(row.fields, c, strict=True) if m}
        assert {n for n, m in zip(own.names, s, strict=True) if m} == hidden and hidden
    for field, at, value in own.targets(rows, shut, rng):
        name = list(own.values)[field]
        assert shut[at, own.names.index(name)].all() and not name.startswith("history")
        if name == "item":
            np.testing.assert_array_equal(value + 1, data.item[[rows[n].row for n in at]])
    assert own.batch(np.array([rows[0].row])).label is None


def test_all_parts_learn_and_labels_are_not_read(
    masked_lm: Path, data: TrainingData, tmp_path: Path
) -> None:
    own = task(masked_lm, data, epochs=8, lr=1e-2)
    at = np.arange(own.size)
    own.module.eval()
    with torch.no_grad():
        before = {n: float(v) for n, v in own.losses(at, 0).items()}
        run_in(own, tmp_path / "a")
        after = {n: float(v) for n, v in own.losses(at, 0).items()}
    assert after["accuracy"] > before["accuracy"] + 0.1
    assert all(after[n] < before[n] for n in ("contrast", "words", "fields")), (before, after)
    assert own.facts["last_words"] > 0
    assert data.label is not None
    blind = dataclasses.replace(data, label=np.where(np.arange(len(data.label)) % 2, 1, 0))
    other, first = task(masked_lm, blind, told(data)), task(masked_lm, data)
    # One level decides what a history of the backbone counts as liked; no row's own label does.
    other.module.trunk.liked_from = first.module.trunk.liked_from
    for own in (other, first):
        own.module.eval()
    for a, b in zip(other.losses(at, 0).values(), first.losses(at, 0).values(), strict=True):
        assert torch.equal(a, b)


def test_killed_and_gone_on(
    masked_lm: Path, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights that are published, running statistics among them, are the same bits."""
    alone = task(masked_lm, data)
    run(alone, alone.how, tmp_path / "alone")
    steps, backward = 0, FieldAlignmentTask.backward

    def dying(self: Any, rows: Any, epoch: int) -> float:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return backward(self, rows, epoch)

    monkeypatch.setattr(FieldAlignmentTask, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        run(task(masked_lm, data), HOW, tmp_path / "b", checkpoint_seconds=0)
    again = task(masked_lm, data)
    facts = run(again, HOW, tmp_path / "b", checkpoint_seconds=0)
    assert facts["resumed_from"] == 5 and steps == 1 + facts["steps"]
    assert set(again.heads) == set(alone.heads) and any("running_var" in n for n in again.heads)
    for name, tensor in alone.heads.items():
        assert torch.equal(tensor, again.heads[name]), name
    assert again.facts == alone.facts


def test_parts_of_weight_zero_are_left_out(masked_lm: Path, data: TrainingData) -> None:
    for names in (("contrast",), ("words",), ("fields", "accuracy")):
        off = {n: 0.0 for n in ("contrast", "words", "fields") if n not in names}
        assert tuple(task(masked_lm, data, **off).losses(np.arange(8), 0)) == names


def test_bfloat16_and_an_adapter(masked_lm: Path, data: TrainingData) -> None:
    """Weights that are all trained stay in float32 under bfloat16 arithmetic."""
    rows, at = told(data), np.arange(16)
    wide = task(masked_lm, data)
    narrow = HOW.objective(Base(masked_lm, dtype="bfloat16"), rows, data)
    for own in (wide, narrow):
        own.module.eval()
    assert {p.dtype for p in narrow.module.parameters()} == {torch.float32}
    a, b = (float(t.losses(at, 0)["words"].detach()) for t in (wide, narrow))
    assert a == pytest.approx(b, rel=0.02) and a != b
    how = dataclasses.replace(HOW, whole=False, lora=Lora(rank=2))
    assert HOW.has_adapter is False and how.has_adapter
    light = how.objective(Base(masked_lm), rows, data)
    trained = {n for n, p in light.module.named_parameters() if p.requires_grad}
    assert any("lora" in n for n in trained)
    assert all("lora" in n for n in trained if n.startswith("encoder."))


def test_what_cannot_be_pretrained_is_named(masked_lm: Path, lm: Path, data: TrainingData) -> None:
    rows = told(data)
    with pytest.raises(TuneError, match="context="):
        HOW.objective(Base(masked_lm), rows)
    with pytest.raises(TuneError, match="masked language model"):
        HOW.objective(Base(lm), rows, data)
    wrong = rows.set_column(rows.column_names.index("row"), "row", pa.array([0] * rows.num_rows))
    with pytest.raises(TuneError, match="no training row of user"):
        HOW.objective(Base(masked_lm), wrong, data)
    with pytest.raises(PlanError, match="trunk"):
        FieldAlignment(backbone=DIN())
    with pytest.raises(PlanError, match="ratio"):
        FieldAlignment(backbone=DeepFM(), ratio=0.0)
    with pytest.raises(PlanError, match="weights of at least 0"):
        FieldAlignment(backbone=DeepFM(), contrast=0, words=0, fields=0)


def test_how_a_backbone_is_fitted_is_no_part_of_the_pretraining() -> None:
    other = dataclasses.replace(BACKBONE, fit=Fit(lr=0.5, epochs=1, min_epochs=1, metric="auc"))
    assert FieldAlignment(backbone=other) == FieldAlignment(backbone=BACKBONE)
    assert FieldAlignment(backbone=DeepFM()) != FieldAlignment(backbone=BACKBONE)
