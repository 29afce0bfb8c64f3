"""CKE and CFKG: joining facts to the log, their losses by hand, what is served."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from llmers_pipelines.api import knowledge, knowledge_links
from llmers_pipelines.data.training import TEST, IdMap
from llmers_pipelines.models.batches import PairBatch
from llmers_pipelines.models.cfkg import CFKG
from llmers_pipelines.models.cke import CKE
from llmers_pipelines.models.cke_net import transr_distance
from llmers_pipelines.models.factor_net import FactorNet
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.knowledge_net import join_triples
from llmers_pipelines.models.ranking_net import rank_metric, rank_targets
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit

pytestmark = [pytest.mark.proof("cke", "equations"), pytest.mark.proof("cfkg", "equations")]

LOG = Table("splits", task="sequential")
FIT = Fit(lr=1e-2, batch=64, epochs=40, min_epochs=40, eval_every=5)
KINDS = [CKE, CFKG]
kinds = pytest.mark.parametrize("kind", KINDS)


def facts(rows):
    return pa.table(dict(zip(("head_id", "relation", "tail_id"), zip(*rows, strict=True),
                             strict=True)))  # fmt: skip


LINK = pa.table({"item_id": ["a", "b", "c", "x"], "entity_id": ["e1", "e2", "e2", "e9"]})
KG = facts([("e1", "r", "z"), ("e2", "q", "e1"), ("e1", "r", "z"), ("y", "q", "z"),
            ("e9", "q", None)])  # fmt: skip


def test_items_take_the_place_of_their_entities():
    found = join_triples(KG, LINK, IdMap(("a", "b", "c", "d")), "kg")
    # e1 = a, e2 = b (the first that has it); others by name: y = 5, z = 6; x is no item of the log
    rows = set(zip(found.head.tolist(), found.relation.tolist(), found.tail.tolist(), strict=True))
    assert found.relations == ("q", "r")
    assert rows == {(1, 1, 6), (2, 0, 1), (5, 0, 6)}
    assert found.n_entities == 6
    assert found.linked.tolist() == [False, True, True, False, False]


def one_by_one(kg, link, items):
    """The same join, a triple at a time."""
    n, place = len(items), {}
    for item, entity in zip(*(link[c].to_pylist() for c in LINK.column_names), strict=True):
        if position := items.index([str(item)])[0]:
            place.setdefault(str(entity), int(position))
    rows = zip(*(kg[c].to_pylist() for c in ("head_id", "relation", "tail_id")), strict=True)
    kept = sorted({tuple(map(str, row)) for row in rows if None not in row})
    names = sorted({r for _, r, _ in kept})
    others = sorted({e for h, _, t in kept for e in (h, t)} - set(place))
    place |= {entity: at for at, entity in enumerate(others, start=n + 1)}
    ids = [(place[h], names.index(r), place[t]) for h, r, t in kept]
    return np.array(ids, np.int64).reshape(-1, 3).T, tuple(names), n + len(others)


@pytest.mark.parametrize("kind", ["words", "numbers", "chunks"])
def test_triples_are_joined_as_one_by_one(kind):
    """Words of any script, ids that are numbers, tables in pieces, cells without a value."""
    rng = np.random.default_rng(3)
    names = ["é", "Z", "a", "10", "9", "ä b", "漢", "😀", "", "None", *(f"n{i}" for i in range(40))]
    head, relation, tail = (rng.choice(m, 500).tolist() for m in (50, 7, 50))
    link = pa.table({"item_id": [f"i{i}" for i in range(30)], "entity_id": names[:30]})
    if kind == "numbers":
        kg = facts(list(zip(head, relation, tail, strict=True)))
        link = pa.table({"item_id": list(range(30)), "entity_id": list(range(5, 35))})
    else:
        rows = [(names[h], f"r{10 * r}", names[t]) for h, r, t in zip(head, relation, tail,
                                                                     strict=True)]  # fmt: skip
        kg = facts([(None if n % 50 == 0 else h, r, None if n % 70 == 3 else t)
                    for n, (h, r, t) in enumerate(rows)])  # fmt: skip
    if kind == "chunks":
        kg = pa.concat_tables([kg.slice(0, 100), kg.slice(0, 0), kg.slice(90)])
    items = IdMap(tuple(f"{'' if kind == 'numbers' else 'i'}{i}" for i in range(29, 2, -1)))
    found = join_triples(kg, link, items, "kg")
    (head, relation, tail), names, count = one_by_one(kg, link, items)
    assert found.relations == names and found.n_entities == count
    for array, wanted in ((found.head, head), (found.relation, relation), (found.tail, tail)):
        assert array.dtype == np.int64 and np.array_equal(array, wanted)


def test_faults_of_the_tables_are_named():
    items = IdMap(("a", "b"))
    with pytest.raises(ValueError, match=r"the triples have columns .* lack \['tail_id'\]"):
        join_triples(KG.drop_columns(["tail_id"]), LINK, items, "kg")
    with pytest.raises(ValueError, match=r"the links have columns .* lack \['entity_id'\]"):
        join_triples(KG, LINK.drop_columns(["entity_id"]), items, "kg")
    with pytest.raises(ValueError, match="none of 3 triples speaks of an item of the log"):
        join_triples(KG, LINK, IdMap(("p", "q")), "kg")


def test_transr_by_hand():
    head, relation, tail = torch.tensor([[[1.0, 0]], [[0.0, 2]], [[3.0, 0]]])
    maps = torch.tensor([[[0.0, 1], [1, 0]]])  # swaps the axes
    # h M = (0, 1), r = (0, 1), t M = (0, 1): |(0, 1)|^2
    assert float(transr_distance(head, relation, tail, maps)) == pytest.approx(1.0)
    assert float(transr_distance(head, relation, -tail, maps)) == pytest.approx(9.0)


def planted(seed=0):
    """Rings with a fact that names the cluster of each item, and few rows to learn it from."""
    made = planted_rings(
        n_users=150, n_items=60, clusters=3, seed=seed, follow=0.3, length=(4, 5)
    )
    ids = made.data.items.ids
    rows = [(f"e{i}", "in_cluster", f"c{made.group[n]}") for n, i in enumerate(ids, start=1)]
    link = pa.table({"item_id": ids, "entity_id": [f"e{i}" for i in ids]})
    return made.data, {knowledge: facts(rows), knowledge_links: link}


def built(kind, data, inputs, **settings):
    net = kind(knowledge, knowledge_links, dim=8, **settings).build(data, 0)
    net.read(data, inputs, 0)
    return net


def test_an_item_of_cke_is_its_vector_and_its_entity():
    data, inputs = planted()
    inputs[knowledge_links] = inputs[knowledge_links].slice(0, 10)
    net = built(CKE, data, inputs)
    items = net.items()
    torch.testing.assert_close(
        items[1:11], net.item_table.weight[1:11] + net.entity_table.weight[1:11]
    )
    assert torch.equal(items[11:], net.item_table.weight[11:])  # no entity, nothing added
    assert not items[0].any()
    h, t, w = (torch.tensor([i]) for i in (1, 62, 63))
    r = torch.tensor([0])
    right, wrong = (
        transr_distance(net.entity_table(h), net.relation[r], net.entity_table(e), net.maps[r])
        for e in (t, w)
    )
    expected = -F.logsigmoid(wrong - right)
    torch.testing.assert_close(net.triple_loss(h, r, t, w), expected[0])


def test_a_user_of_cfkg_is_moved_by_the_relation_of_choosing():
    data, inputs = planted()
    net = built(CFKG, data, inputs)
    users = net.users()
    torch.testing.assert_close(users[1:], net.user_table.weight[1:] + net.chosen)
    assert not users[0].any()
    entities = torch.cat([net.item_table.weight, net.other])
    assert len(entities) == net.n_entities + 1
    h, r, t, w = (torch.tensor([i]) for i in (2, 0, 61, 63))
    moved = entities[2] + net.relation[0]
    expected = -(F.logsigmoid(moved @ entities[61]) + F.logsigmoid(-moved @ entities[63]))
    torch.testing.assert_close(net.triple_loss(h, r, t, w), expected)


@kinds
def test_wrong_tails_are_drawn_anew_from_all_entities_and_facts_move_items(kind, monkeypatch):
    """Not from items alone, never the padding; what is learned of a triple is served."""
    data, inputs = planted()
    net = built(kind, data, inputs, triples=64)
    drawn, given = [], []
    monkeypatch.setattr(net, "triple_loss", lambda h, r, t, w: (
        drawn.append(w.clone()), given.append(h.clone()), net.item_table.weight.sum() * 0
    )[-1])  # fmt: skip
    user, item = (torch.from_numpy(x[:32]) for x in (data.user, data.item))
    batch = PairBatch(user, item, torch.arange(1, 9)[None])
    for _ in range(40):
        net.loss(batch)
    seen = set(torch.cat(drawn).tolist())
    assert seen == set(range(1, net.n_entities + 1)) and net.n_entities > data.n_items
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(given[0], given[1])
    monkeypatch.undo()
    h, r, t, w = (torch.tensor([i]) for i in (2, 0, 61, 63))
    before = net.items()[2].detach().clone()
    net.triple_loss(h, r, t, w).backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.1 * (p.grad if p.grad is not None else 0)
    assert not torch.equal(net.items()[2], before)


@kinds
def test_a_plain_network_is_served(kind):
    data, inputs = planted()
    net = built(kind, data, inputs)
    users = torch.arange(0, 5)

    class Batch:
        user, items = users, torch.tensor([[0, 3]] * 5)

    served = net.folded()
    assert type(served) is FactorNet
    expected = net.score(net.user_state(Batch))
    torch.testing.assert_close(served.score(served.user_state(Batch)), expected)
    assert not served.user_table.weight[0].any() and not served.item_table.weight[0].any()


@kinds
def test_facts_that_name_the_taste_help_and_wrong_ones_do_not(kind):
    gain, wrong = [], []
    for seed in (0, 1):
        data, inputs = planted(seed)
        rng = np.random.default_rng(seed)
        tails = inputs[knowledge]["tail_id"].to_pylist()
        dealt = inputs[knowledge].set_column(2, "tail_id", pa.array(list(rng.permutation(tails))))

        def hits(weight, kg, data=data, inputs=inputs, seed=seed):
            backbone = kind(knowledge, knowledge_links, dim=16, weight=weight, negatives=32,
                            triples=256, fit=FIT)  # fmt: skip
            model = fit(Train(backbone, LOG), data, inputs | {knowledge: kg}, seed=seed).model
            return rank_metric("hr@10", rank_targets(model, data, TEST))

        base = hits(0.0, inputs[knowledge])
        gain.append(hits(4.0, inputs[knowledge]) - base)
        wrong.append(hits(4.0, dealt) - base)
    assert np.mean(gain) > np.mean(wrong) + 0.03, (gain, wrong)
    assert np.mean(gain) > 0.02, (gain, wrong)


@kinds
def test_a_training_without_its_facts_says_so(kind):
    data, _ = planted()
    with pytest.raises(KeyError):
        fit(Train(kind(knowledge, knowledge_links, fit=FIT), LOG), data, {}, seed=0)
