from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmers_pipelines.enhance.hierarchy_tree import HierarchyTree
from llmers_pipelines.enhance.hierarchy_tree_net import ServedTree, halves, paths
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hgcf import HGCF
from llmers_pipelines.models.hyperboloid_net import centroid, distance2, exp0
from llmers_pipelines.models.served import load_served
from llmers_pipelines.plan import PlanError, Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit

pytestmark = pytest.mark.proof("harec", "equations")

LOG = Table("splits", task="collaborative")
BACKBONE = HGCF(dim=4, layers=2, negatives=2, fit=Fit(lr=0.5, batch=32, epochs=2, min_epochs=1))


@pytest.fixture(scope="module")
def data():
    return planted_rings(n_users=30, n_items=20).data


def groups(sizes, apart=2.0):
    """Points in well separated groups, one per direction."""
    rng = np.random.default_rng(1)
    at = [apart * np.array([np.cos(a), np.sin(a)]) for a in np.linspace(0, 2 * np.pi, len(sizes),
                                                                       endpoint=False)]  # fmt: skip
    rows = [at[g] + rng.normal(0, 0.02, 2) for g, n in enumerate(sizes) for _ in range(n)]
    return exp0(torch.tensor(np.array(rows)))


def test_two_groups_of_one_size_are_the_two_halves():
    points = groups([6, 6])
    second = halves(points, 20, np.random.default_rng(0))
    assert second[:6].unique().numel() == second[6:].unique().numel() == 1
    assert second[0] != second[6]


def test_halves_are_balanced_where_groups_are_not_and_no_swap_is_better():
    points = groups([9, 4])
    second = halves(points, 50, np.random.default_rng(0))
    assert int(second.sum()) == 6
    one, two = centroid(points[~second]), centroid(points[second])
    cost = (distance2(points, two).sqrt() - distance2(points, one).sqrt()).numpy()
    # a swap of any two between the halves, centres kept, is no nearer
    assert cost[second.numpy()].max() <= cost[~second.numpy()].min() + 1e-12


def test_a_path_is_the_way_from_the_root_and_depends_on_points_and_seed_alone():
    points = groups([4, 4, 4, 4])
    found, layers = paths(points, 2, 20, 0)
    assert layers == 2 and sorted(np.bincount(found)) == [4, 4, 4, 4]
    assert [len(set(found[g : g + 4])) for g in range(0, 16, 4)] == [1, 1, 1, 1]
    again, _ = paths(points, 2, 20, 0)
    assert found.tolist() == again.tolist()
    deepest, most = paths(points, 0, 20, 0)
    assert most == 4 and sorted(deepest) == list(range(16))
    odd, layers = paths(points[:11], 9, 20, 0)
    assert layers == 3 and np.ptp(np.bincount(odd, minlength=8)) <= 1


def test_the_table_has_each_member_once_per_layer_below_its_parent(data):
    trained = fit(Train(BACKBONE, LOG, fuse=(HierarchyTree(layers=3),)), data, {}, seed=0)
    table: pa.Table = trained.beside["hierarchy"]
    rows = {r["node_id"]: r for r in table.to_pylist()}
    assert sorted(rows) == list(range(1, 16)) and rows[1]["parent_id"] is None
    for layer in range(4):
        level = [r for r in rows.values() if r["layer"] == layer]
        for side, ids in (("users", data.users.ids), ("items", data.items.ids)):
            assert sorted(i for r in level for i in r[side]) == sorted(ids)
        sizes = [len(r["users"]) + len(r["items"]) for r in level]
        assert max(sizes) - min(sizes) <= 1
    for row in rows.values():
        if row["parent_id"]:
            parent = rows[row["parent_id"]]
            assert set(row["users"]) <= set(parent["users"]) and parent["layer"] == row["layer"] - 1


def test_the_served_tree_is_that_of_the_table_and_changes_no_score(data):
    bare = fit(Train(BACKBONE, LOG), data, {}, seed=0)
    trained = fit(Train(BACKBONE, LOG, fuse=(HierarchyTree(layers=3),)), data, {}, seed=0)
    history = [data.item[:4]]
    np.testing.assert_array_equal(bare.scores([1], history), trained.scores([1], history))
    served = load_served(*trained.export()).net
    (tree,) = served.hooks
    assert type(tree) is ServedTree
    users, items, layers = tree.places()
    assert layers == 3
    leaves = [r for r in trained.beside["hierarchy"].to_pylist() if r["layer"] == 3]
    for place, leaf in enumerate(leaves):
        assert {data.users.ids[u - 1] for u in np.flatnonzero(users[1:] == place) + 1} == set(
            leaf["users"]
        )
        assert {data.items.ids[i - 1] for i in np.flatnonzero(items[1:] == place) + 1} == set(
            leaf["items"]
        )


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(PlanError, match="HierarchyTree"):
        HierarchyTree(layers=31)
    with pytest.raises(PlanError, match="HierarchyTree"):
        HierarchyTree(steps=0)
