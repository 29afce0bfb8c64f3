"""Rationales: asked before the cut, taught to a student, fused behind the cut (SLIM)."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.data.cuts import cut_of
from llmers_pipelines.data.training import TRAIN, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.answer_pairs import AnswerPairs
from llmers_pipelines.derive.sampled_users import SampledUsers
from llmers_pipelines.enhance.rationale_fusion import RationaleFusion
from llmers_pipelines.enhance.rationale_fusion_net import FusionHook, cutoffs
from llmers_pipelines.models.batches import SequenceBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.ranking_net import scoring_batch
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import fold
from llmers_pipelines.orchestrate.steps.derive_checks import entity_checks, example_checks
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.prompts.rationale import STEPS, UserRationale
from llmers_pipelines.prompts.rows import user_rows
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.sequence_loader import Loader

pytestmark = pytest.mark.proof("slim", "equations")
LOG, ITEMS, USERS = Table("splits", task="sequential"), Table("items"), Table("users")
FIT = Fit(lr=3e-3, batch=16, epochs=2, min_epochs=1)
BACKBONES = {
    "sasrec": SASRec(dim=8, inner=16, dropout=0.2, fit=FIT),
    "gru4rec": GRU4Rec(dim=8, hidden=12, dropout=0.2, fit=FIT),
}
every = pytest.mark.parametrize("name", BACKBONES)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return planted_rings(n_users=30, n_items=20, seed=2).data


@pytest.fixture(scope="module")
def texts(data: TrainingData) -> dict[Any, VectorTable]:
    rng = np.random.default_rng(1)
    out = {}
    for node, entity, ids in ((ITEMS, "item", data.items.ids), (USERS, "user", data.users.ids)):
        mask = np.ones(len(ids), bool)
        mask[::5] = False
        drawn = rng.normal(size=(len(ids), 6)).astype(np.float32)
        out[node] = VectorTable(entity, ids, drawn, mask)
    return out


def attached(data: TrainingData, texts: Any, name: str = "sasrec", **more: Any) -> Any:
    model = BACKBONES[name].build(data, 0)
    attach_parts(model, (RationaleFusion(ITEMS, USERS, **more),), data, texts, 0)
    return model.eval()


@every
@pytest.mark.parametrize("mode", ["id", "text"])
def test_the_folded_tables_score_like_the_model(
    name: str, mode: Any, data: Any, texts: Any
) -> None:
    model = attached(data, texts, name, mode=mode)
    with torch.no_grad():
        model.hooks[0].absent.normal_()
    users = np.array([0, 1, 2, 7])  # unknown, without a text, with one
    batch = scoring_batch(users, [np.array([3, 4]), np.array([6]), np.array([9, 1, 2])] * 1
                          + [np.array([5])], model.max_len)  # fmt: skip
    with torch.no_grad():
        before = model.score(model.user_state(batch))
        served = fold(model)
        after = served.score(served.user_state(batch))
    torch.testing.assert_close(after[:, 1:], before[:, 1:], rtol=1e-4, atol=1e-5)
    names = {n for n, _ in served.named_buffers()} | {n for n, _ in served.named_parameters()}
    assert not any("text" in n or "items" in n for n in names if n.startswith("hooks"))


@every
def test_ids_alone_are_the_backbone(name: str, data: Any, texts: Any) -> None:
    """g_f = [0 | I]: every score is the backbone's."""
    plain = BACKBONES[name].build(data, 0).eval()
    model = attached(data, texts, name)
    model.load_state_dict(plain.state_dict(), strict=False)
    hook = model.hooks[0]
    width = hook.absent.shape[0]
    with torch.no_grad():
        hook.fuse.weight.copy_(torch.cat([torch.zeros(width, width), torch.eye(width)], 1))
        hook.fuse.bias.zero_()
        batch = scoring_batch(np.array([1, 2]), [np.array([3, 4, 5]), np.array([6])], None)
        ours = model.score(model.user_state(batch))
        theirs = plain.score(plain.user_state(batch))
    torch.testing.assert_close(ours[:, 1:], theirs[:, 1:], rtol=0, atol=1e-6)


@every
def test_weight_0_is_the_backbone_bit_for_bit(name: str, data: Any, texts: Any) -> None:
    part = RationaleFusion(ITEMS, USERS)
    base = fit(Train(BACKBONES[name], LOG), data, {}, seed=1).export()[1]
    off = fit(Train(BACKBONES[name], LOG, fuse=(part.inert(),)), data, texts, seed=1).export()[1]
    assert all(np.array_equal(base[k], off[k]) for k in base)


def test_without_ids_names_do_not_count(data: Any, texts: Any) -> None:
    """Items in another order score alike, whatever the id table holds; unseen items are scored."""
    model = attached(data, texts, mode="text")
    batch = scoring_batch(np.array([2, 3]), [np.array([3]), np.array([6])], None)
    with torch.no_grad():
        before = model.score(model.user_state(batch))[:, 1:]
        model.item_table.weight.normal_()
        assert torch.equal(model.score(model.user_state(batch))[:, 1:], before)
    order = np.random.default_rng(0).permutation(len(data.items))
    place = np.argsort(order) + 1
    moved = dataclasses.replace(
        data, items=IdMap(tuple(data.items.ids[i] for i in order)), item=place[data.item - 1]
    )
    other = attached(moved, texts, mode="text")
    own = {k: v for k, v in model.state_dict().items() if k.startswith("hooks")}
    other.load_state_dict(own, strict=False)
    with torch.no_grad():
        after = other.score(other.user_state(batch))[:, 1:]
    torch.testing.assert_close(after, before[:, order], rtol=0, atol=1e-6)
    counts = np.bincount(data.item[data.split == TRAIN], minlength=len(data.items) + 1)[1:]
    assert counts.min() >= 0 and len(set(before[0].tolist())) > 10


def test_a_text_is_shown_to_targets_behind_its_cut_alone(data: Any, texts: Any) -> None:
    """For every training row of every user: rationale cut-off <= index of the target."""
    assert [cut_of(n, 0.7) for n in (0, 1, 2, 3, 10, 11)] == [0, 1, 1, 2, 7, 7]
    hook = attached(data, texts).hooks[0]
    cut = cutoffs(data, 0.7)
    assert torch.equal(hook.cut, cut)
    loader = Loader(data, SASRec(max_len=4, fit=FIT), 0)  # short windows: several per user
    seen = 0
    for batch in loader.epoch(1):
        shown = hook.visible(batch) & (batch.items > 0)
        for row, column in shown.nonzero():
            user = int(batch.user[row])
            pad = int((batch.items[row] == 0).sum())
            index = int(batch.begin[row]) + int(column) - pad + 1
            mine = data.item[(data.user == user) & (data.split == TRAIN)]
            assert mine[index] == batch.targets[row, column] and index >= int(cut[user])
            seen += 1
    rows = sum(len(data.item[(data.user == u) & (data.split == TRAIN)]) - int(cut[u])
               for u in range(1, data.n_users + 1))  # fmt: skip
    assert seen == rows, "each row behind the cut is taught with its text"


def test_the_maps_by_hand() -> None:
    """Items without a text, and targets before the cut, read one learned vector."""
    items = torch.tensor([[0.0], [2.0], [9.0]])
    hook = FusionHook(items, torch.tensor([False, True, False]), torch.tensor([[0.0], [5.0]]),
                      torch.tensor([False, True]), 1, "text", 1.0)  # fmt: skip
    with torch.no_grad():
        hook.text.weight.fill_(3.0)
        hook.text.bias.fill_(1.0)
        hook.absent.fill_(-4.0)
    assert hook.item_output(None, lambda ids: None, None).tolist() == [[0], [7], [-4]]
    hook.cut[1] = 2
    batch = SequenceBatch(torch.tensor([1]), torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]]),
                          torch.tensor([0]))  # fmt: skip
    states = hook.user_state(None, lambda b: torch.zeros(1, 3, 1), batch)
    assert states.tolist() == [[[-4], [-4], [16]]]  # targets 0, 1 | 2: behind the cut


def test_sides_must_be_encoded_alike(data: Any, texts: Any) -> None:
    wide = VectorTable("user", data.users.ids, np.ones((30, 7), np.float32), np.ones(30, bool))
    with pytest.raises(ValueError, match=r"width 6, .* 7: one map"):
        attached(data, {**texts, USERS: wide})
    with pytest.raises(PlanError, match="mode"):
        RationaleFusion(ITEMS, USERS, mode="other")  # type: ignore[arg-type]


def row_of(n: int) -> dict[str, Any]:
    history = [{"item_id": f"i{k}", "title": f"Title {k:02}"} for k in range(n)]
    return {"user_id": "u", "history": history}


def test_a_rationale_reads_nothing_behind_the_cut() -> None:
    task = UserRationale(share=0.5)
    prompt = task.render(row_of(6))[-1]["content"]
    assert "Title 02" in prompt and "Title 03" not in prompt
    value = task.parse("Preferences: a\nCategories: b\nSuggestions: c").value
    assert task.resolved(value, row_of(6))["cutoff"] == 3
    told = task.template(row_of(6))["text"]
    assert all(s in told for s in STEPS) and "Title 02" in told and "Title 03" not in told
    assert task.unaskable({"user_id": "u", "history": []})


@pytest.mark.parametrize(
    ("text", "why"),
    [("Preferences: a\nSuggestions: c", "'Categories:' is missing"),
     ("Categories: a\nPreferences: b\nSuggestions: c", "out of order"), ("", "empty")],
)  # fmt: skip
def test_a_teacher_goes_through_all_steps(text: str, why: str) -> None:
    assert why in UserRationale().parse(text).reason
    brief = UserRationale(brief=True).parse(text)
    assert (brief.status == "ok") is bool(text), "of a student any text is taken"


def test_a_rationale_that_names_what_comes_later_is_refused() -> None:
    told = "Preferences: quiet stories of the sea\nCategories: novels\nSuggestions: Title 05 surely"
    task = UserRationale(share=0.5)
    value = task.parse(told).value
    assert "behind the cut: 'title 05'" in " ".join(task.ground(value, row_of(6)))
    assert task.ground(value, row_of(3)) == []


@pytest.fixture(scope="module")
def items(data: TrainingData) -> pa.Table:
    return pa.table(
        {"item_id": list(data.items.ids), "title": [f"Film {i}" for i in data.items.ids]}
    )


def test_pairs_teach_what_was_accepted(data: TrainingData, items: pa.Table) -> None:
    users = list(data.users.ids[:4])
    answers = pa.table({
        "user_id": users, "text": ["Preferences: a", None, "b", "c"],
        "status": ["ok", "quarantined", "repaired", "ok"],
    })  # fmt: skip
    task = UserRationale(share=0.5, brief=True)
    table, info = AnswerPairs(task).apply([answers, items], log=data, context={"fields": {}})
    assert table["example_id"].to_pylist() == [users[0], users[2], users[3]]
    assert info == {"answers": 4, "not_accepted": 1, "not_askable": 0}
    (row,) = user_rows(pa.table({"user_id": users[:1]}), data, items, {})
    assert json.loads(table["prompt"][0].as_py()) == task.render(row, {"fields": {}})
    assert table["shown"][0].as_py() == [e["item_id"] for e in task.known(row)]
    assert all(c.passed for c in example_checks(table, data))
    with pytest.raises(PlanError, match="task"):
        AnswerPairs()


def test_a_sample_of_users(data: TrainingData) -> None:
    users = pa.table({"user_id": [*data.users.ids, "nobody"]})
    table, info = SampledUsers(n=7).apply([users], log=data)
    assert table.num_rows == 7 == info["drawn"] and "nobody" not in table["user_id"].to_pylist()
    assert table.equals(SampledUsers(n=7).apply([users], log=data)[0])
    assert not table.equals(SampledUsers(n=7, seed=1).apply([users], log=data)[0])
    assert entity_checks(table, data)[0].passed
    twice = pa.concat_tables([table, table.slice(0, 1)])
    assert not entity_checks(twice, data)[0].passed
