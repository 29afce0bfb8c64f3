from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from llmers_pipelines.data.training import TEST, TRAIN, VALID, IdMap, TrainingData
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.data.views import kept_rows
from llmers_pipelines.models import ease_net, itemknn_net
from llmers_pipelines.models.als import ALS
from llmers_pipelines.models.decay_net import decay_weights
from llmers_pipelines.models.ease import EASE
from llmers_pipelines.models.ease_net import ease_weights
from llmers_pipelines.models.histories import history_before, rows_of, unique_pairs
from llmers_pipelines.models.itemknn import ItemKNN
from llmers_pipelines.models.itemknn_net import binary_matrix
from llmers_pipelines.models.knnblend import KNNBlend
from llmers_pipelines.models.knnblend_net import KNNBlendNet
from llmers_pipelines.models.popularity import Popularity
from llmers_pipelines.models.ranking_net import ndcg, rank_targets
from llmers_pipelines.models.served import load_served
from llmers_pipelines.models.textknn import TextKNN
from llmers_pipelines.orchestrate.steps.evaluate import cautions
from llmers_pipelines.plan import Evaluate, PlanError, Table, Train, canonical
from llmers_pipelines.testing.planted import planted_rings, renumbered_items
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.trained import load_trained, save_trained

pytestmark = [
    pytest.mark.proof("popularity", "equations"),
    pytest.mark.proof("itemknn", "equations"),
    pytest.mark.proof("ease", "equations"),
    pytest.mark.proof("textknn", "equations"),
    pytest.mark.proof("knnblend", "equations"),
]

LOG, VECTORS = Table("splits", task="sequential"), Table("items")
MODELS = {
    "popularity": Popularity(),
    "itemknn": ItemKNN(k=5),
    "ease": EASE(l2=10.0),
    "textknn": TextKNN(VECTORS),
    "knnblend": KNNBlend(VECTORS, k=5),
    "als": ALS(dim=8),
}
every = pytest.mark.parametrize("name", MODELS)


def small_log(extra=()):
    """Users 1..3 with items {1, 2}, {1, 2}, {2, 3}, and one validation row."""
    user = [1, 1, 2, 2, 2, 3, 3]
    item = [1, 2, 1, 2, 3, 2, 3]
    split = [TRAIN, TRAIN, TRAIN, TRAIN, VALID, TRAIN, TRAIN]
    return TrainingData(
        "collaborative", IdMap(("a", "b", "c")), IdMap(("x", "y", "z")),
        np.array(user), np.array(item), np.arange(7), np.array(split, np.int8),
    )  # fmt: skip


def trained(backbone, data, inputs=None):
    return fit(Train(backbone, LOG), data, inputs or {}, seed=0)


@pytest.fixture(scope="module")
def rings():
    return planted_rings(n_users=80, n_items=30, seed=2)


@every
def test_beats_chance_where_it_can_and_is_served_bit_for_bit(name, rings, tmp_path):
    model = trained(MODELS[name], rings.data, {VECTORS: rings.items})
    found = ndcg(rank_targets(model.model, rings.data, TEST))
    assert (found > 0.7) == (name != "popularity")
    users = np.arange(rings.data.n_users + 1)
    lists = history_before(rings.data, TEST).lists(users)
    scores = model.scores(users, lists)
    assert np.isneginf(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1:]).all()
    assert np.array_equal(scores, load_served(*model.export()).scores(users, lists))
    save_trained(model, tmp_path)
    loaded = load_trained(tmp_path, model.train, rings.data)
    assert np.array_equal(scores, loaded.scores(users, lists))
    assert loaded.best_valid == model.best_valid


@every
def test_renumbering_items_changes_nothing(name, rings):
    if name == "als":
        pytest.skip("its start is drawn by position; see test_als")
    other, new = renumbered_items(rings.data, seed=4)
    a = trained(MODELS[name], rings.data, {VECTORS: rings.items})
    b = trained(MODELS[name], other, {VECTORS: rings.items})  # joined by id
    users = np.arange(1, rings.data.n_users + 1)
    x = a.scores(users, history_before(rings.data, TEST).lists(users))
    y = b.scores(users, history_before(other, TEST).lists(users))
    np.testing.assert_allclose(y[:, new], x, rtol=1e-4, atol=1e-5)


def test_ease_golden_case():
    x = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]])
    weights = ease_weights(x.T @ x, 1.0)
    expected = [[0, 0.6667, -0.25], [0.5714, 0, 0.375], [-0.2857, 0.5, 0]]
    np.testing.assert_allclose(weights, expected, atol=5e-5)
    model = trained(EASE(l2=1.0, decay="mean"), small_log())
    np.testing.assert_allclose(
        model.scores([3], [np.array([2, 3])])[0, 1:], [0.2857, 0.5, 0.375], atol=5e-5
    )


def test_ease_refuses_what_would_not_fit_and_what_has_no_inverse(rings):
    big = dataclasses.replace(rings.data, items=IdMap(tuple(map(str, range(40_001)))))
    with pytest.raises(ValueError, match="EASE on 40001 items would need 22 GiB"):
        EASE().build(big, 0)
    with pytest.raises(ValueError, match="not positive definite; use l2 > 0"):
        ease_weights(np.ones((2, 2)), 0.0)


def test_ease_holds_one_matrix(monkeypatch):
    """In doubles it takes 8 N^2 bytes; the reference works on copies."""
    monkeypatch.setattr(ease_net, "BLOCK", 32)
    rng = np.random.default_rng(0)
    n, l2 = 600, 3.0
    x = csr_matrix((rng.random((500, n + 1)) < 0.1).astype(np.float32))
    tracemalloc.start()
    weights = ease_weights(ease_net.co_occurrence(x), l2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 11 * n**2
    dense = x.toarray()[:, 1:].astype(np.float64)
    inverse = np.linalg.inv(dense.T @ dense + l2 * np.eye(n))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(weights, expected, atol=1e-9)


def test_ease_inverts_in_double_precision():
    """Of three items that always go together c times, ``B = c / (l2 + 2 c)`` off the diagonal."""
    c, l2 = 100_000.0, 1e-3
    weights = ease_weights(np.full((3, 3), c), l2)
    np.testing.assert_allclose(weights[~np.eye(3, dtype=bool)], c / (l2 + 2 * c), atol=1e-6)
    assert np.float32(c) + np.float32(l2) == np.float32(c)  # single precision loses the penalty


def test_itemknn_similarities_by_hand():
    model = trained(ItemKNN(k=3, shrink=0.0, decay="mean"), small_log())
    scores = model.scores([0, 0], [np.array([1]), np.array([1, 2])])
    similar = 2 / np.sqrt(2 * 3)  # of items 1 and 2
    np.testing.assert_allclose(scores[0, 1:], [0, similar, 0], rtol=1e-6)
    np.testing.assert_allclose(scores[1, 1:], [similar, similar, 1 / np.sqrt(3)], rtol=1e-6)


def test_itemknn_keeps_k_neighbours_of_each_target_and_shrinks():
    model = trained(ItemKNN(k=1, shrink=1.0, decay="mean"), small_log())
    scores = model.scores([0], [np.array([1, 3])])  # target 2 keeps item 1, not item 3
    np.testing.assert_allclose(scores[0, 2], 2 / (np.sqrt(6) + 1), rtol=1e-6)


@pytest.mark.parametrize("bound", [{"BLOCK": 7}, {"BLOCK_FLOATS": 5 * 31 + 30}])
def test_itemknn_in_blocks_is_itemknn_at_once(monkeypatch, rings, bound):
    """31 columns in blocks of 7 or 5, the last one shorter."""
    rows = rows_of(rings.data, (TRAIN,))
    x = binary_matrix(*unique_pairs(rows.user, rows.item, rings.data.n_items), rings.data)
    assert itemknn_net.block_rows(x.shape[1]) > x.shape[1] == 31
    at_once = itemknn_net.neighbours(x, 5, 10.0)
    for name, value in bound.items():
        monkeypatch.setattr(itemknn_net, name, value)
    assert itemknn_net.block_rows(31) == bound.get("BLOCK", 5)
    for one, other in zip(at_once, itemknn_net.neighbours(x, 5, 10.0), strict=True):
        np.testing.assert_array_equal(one, other)
    dense = x.toarray()
    both, norm = dense.T @ dense, np.sqrt(dense.sum(0))
    similar = both / (np.outer(norm, norm) + 10.0) * (1 - np.eye(31))
    least = np.sort(similar, axis=1)[:, -5]
    target, other, value = at_once
    np.testing.assert_allclose(value, similar[target, other], rtol=1e-6)
    assert (value >= least[target] * (1 - 1e-6)).all()
    kept = (similar >= least[:, None] * (1 - 1e-6)) & (similar > 0)
    assert len(target) == kept.sum() == len(set(zip(target, other, strict=True)))


def test_itemknn_bounds_what_is_dense_at_a_time():
    assert itemknn_net.block_rows(20_000) == 2048
    assert itemknn_net.block_rows(1_000_000) == 67  # 256 MiB, not the 7.6 GiB of 2,048 rows
    assert itemknn_net.block_rows(10**9) == 1


def test_decays_and_the_harmonic_golden_case():
    assert decay_weights("mean", 3).tolist() == [1, 1, 1]
    assert decay_weights("last", 3).tolist() == [0, 0, 1]
    assert decay_weights("linear", 12)[0] == pytest.approx(1e-5)
    w = decay_weights("harmonic", 3).numpy()
    rows = np.array([[1, 0], [0, 1], [1, 1]])
    np.testing.assert_allclose(w @ rows / w.sum(), [0.7273, 0.8182], atol=5e-5)
    with pytest.raises(ValueError, match="unknown decay 'half'"):
        decay_weights("half", 1)


def test_padding_of_a_block_does_not_change_a_score(rings):
    for name in MODELS:
        model = trained(MODELS[name], rings.data, {VECTORS: rings.items})
        alone = model.scores([1], [np.array([3, 4])])
        beside = model.scores([1, 2], [np.array([3, 4]), np.arange(1, 12)])
        np.testing.assert_allclose(beside[0], alone[0], rtol=1e-5, atol=1e-6)


def test_textknn_scores_the_cosine_and_leaves_out_items_without_text():
    data = small_log()
    table = VectorTable(
        "item", ("z", "x", "y"), np.array([[0, 2], [1, 0], [3, 3]], np.float32),
        np.array([True, True, False]),
    )  # fmt: skip
    model = trained(TextKNN(VECTORS, centre=False), data, {VECTORS: table})
    scores = model.scores([1], [np.array([1, 3])])[0, 1:]  # z, the newest, counts twice
    np.testing.assert_allclose(scores, [1 / 5**0.5, 0, 2 / 5**0.5], rtol=1e-6)


def test_textknn_names_what_is_wrong_with_its_vectors():
    data = small_log()
    mask = np.ones(1, bool)
    with pytest.raises(ValueError, match="needs vectors of items, got vectors of users"):
        trained(TextKNN(VECTORS), data, {VECTORS: VectorTable("user", ("a",), mask[None], mask)})
    with pytest.raises(ValueError, match="none of the 1 vectors belongs to an item"):
        trained(TextKNN(VECTORS), data, {VECTORS: VectorTable("item", ("q",), mask[None], mask)})


def test_the_blend_weight_is_the_best_on_validation(rings):
    model = trained(MODELS["knnblend"], rings.data, {VECTORS: rings.items})
    values = []
    for weight in MODELS["knnblend"].weights:
        one = trained(
            dataclasses.replace(MODELS["knnblend"], weights=(weight,)), rings.data,
            {VECTORS: rings.items},
        )  # fmt: skip
        values.append(one.best_valid)
    assert model.best_valid == max(values)
    assert len(set(values)) > 2


@pytest.mark.parametrize("name", ["popularity", "itemknn", "ease", "als"])
def test_similarities_and_counts_are_of_training_rows_alone(name, rings):
    """Rows that are held out leave every weight as it is: those of the test, and of validation."""
    alike = {"decay": "mean"} if hasattr(MODELS[name], "decay") else {}  # else validation chooses
    backbone = dataclasses.replace(MODELS[name], **alike)
    known = kept_rows(rings.data, rings.data.split == TRAIN)
    one, other = (backbone.build(d, 0) for d in (rings.data, known))
    one.fit(rings.data, {})
    other.fit(known, {})
    weights = one.state_dict()
    assert len(known.user) < len(rings.data.user) and any(w.numel() for w in weights.values())
    for key, value in other.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_popularity_counts_training_rows_alone():
    model = trained(Popularity(), small_log())
    assert model.scores([1], [np.array([], int)])[0, 1:].tolist() == [2, 3, 1]


def test_popularity_of_the_newest_days_of_training(tmp_path):
    """Item 2 is the most popular of all times, item 3 of the last day; validation is not read."""
    day = 86_400
    data = TrainingData(
        "sequential", IdMap(("a", "b")), IdMap(("x", "y", "z")),
        np.array([1, 1, 1, 1, 2, 2, 2, 2]), np.array([2, 2, 3, 1, 2, 1, 3, 1]),
        np.array([0, 1, 2 * day, 9 * day, 0, day, 2 * day, 9 * day]),
        np.array([TRAIN, TRAIN, TRAIN, VALID] * 2, np.int8),
    )  # fmt: skip
    history = [np.array([], int)]
    for days, expected in ((0, [1, 3, 2]), (1, [0, 0, 2]), (2, [1, 1, 2]), (3, [1, 3, 2])):
        model = trained(Popularity(days=days), data)
        assert model.scores([1], history)[0, 1:].tolist() == expected
        served = load_served(*model.export())
        assert served.scores([1], history)[0, 1:].tolist() == expected
    assert "days" not in str(canonical(Popularity(), inputs=True))  # cells stay what they are
    with pytest.raises(PlanError, match="days is -1"):
        Popularity(days=-1)
    ordered = dataclasses.replace(data, info={"clock": "order"})
    trained(Popularity(), ordered)
    with pytest.raises(ValueError, match="days = 7 needs timestamps"):
        trained(Popularity(days=7), ordered)


def test_popularity_of_all_times_is_cautioned_where_the_split_follows_time():
    """In the report of whoever is compared; the default and its identity stay."""
    data = dataclasses.replace(small_log(), info={"protocol": "time"})
    log = Table("splits", task="collaborative")
    node = Evaluate(Train(ItemKNN(), log), Train(EASE(), log), references=(
        Train(Popularity(), log), Train(Popularity(days=30), log),
    ))  # fmt: skip
    (told,) = cautions(node, data)
    assert told.startswith("recommenders/popularity") and "days = 30" in told
    assert cautions(node, dataclasses.replace(data, info={"protocol": "leave_one_out"})) == []


DECAYED = {
    "ease": EASE(), "itemknn": ItemKNN(), "als": ALS(), "textknn": TextKNN(VECTORS),
    "knnblend": KNNBlend(VECTORS),
}  # fmt: skip


def grouped_log(follows):
    """Histories of two items of a group and then one of another; the target is of one of them.

    Six groups of four items. Vectors of the items say the group, a little blurred.
    """
    rng, rows = np.random.default_rng(0), []
    for _ in range(150):
        most, newest = rng.choice(6, 2, replace=False)
        first, second, third = most * 4 + rng.permutation(4)[:3]
        last, after = newest * 4 + rng.permutation(4)[:2]
        rows.append([first, second, last, third if follows == "most" else after])
    items = 1 + np.array(rows)
    data = TrainingData(
        "sequential", IdMap(tuple(map(str, range(150)))), IdMap(tuple(map(str, range(24)))),
        np.repeat(np.arange(1, 151), 4), items.ravel(), np.tile(np.arange(4), 150),
        np.tile(np.array([TRAIN, TRAIN, TRAIN, VALID], np.int8), 150),
    )  # fmt: skip
    vectors = np.repeat(np.eye(6), 4, axis=0) + 0.05 * rng.standard_normal((24, 6))
    table = VectorTable("item", data.items.ids, vectors.astype(np.float32), np.ones(24, bool))
    return data, {VECTORS: table}


def decays_of(model):
    """The decay of a net, or of each part of a blend."""
    nets = [model.items, model.text] if isinstance(model, KNNBlendNet) else [model]
    return [net.config["decay"] for net in nets]


@pytest.mark.parametrize("name", DECAYED)
@pytest.mark.parametrize(("follows", "expected"), [("newest", "harmonic"), ("most", "mean")])
def test_the_decay_is_that_which_ranks_better_on_validation(name, follows, expected):
    data, inputs = grouped_log(follows)
    found = {}
    for decay in ("harmonic", "mean"):
        fixed = trained(dataclasses.replace(DECAYED[name], decay=decay), data, inputs)
        assert set(decays_of(fixed.model)) == {decay}
        found[decay] = ndcg(rank_targets(fixed.model, data, VALID))
    assert found[expected] > max(v for d, v in found.items() if d != expected) + 0.02
    assert set(decays_of(trained(DECAYED[name], data, inputs).model)) == {expected}


def test_each_part_of_a_blend_settles_its_decay_alone():
    """Item 6 a + b is met with those of its a and has the text of its b; a target has the newest
    item's a and the b of the two older ones.
    """
    rng, rows = np.random.default_rng(0), []
    for number in range(240):
        a, b = rng.permutation(6), rng.permutation(6)
        together = 6 * a[0] + b[:4]
        apart = [6 * a[1] + b[0], 6 * a[2] + b[0], 6 * a[3] + b[1], 6 * a[3] + b[0]]
        rows.append(together if number < 120 else apart)
    split = np.full((240, 4), TRAIN, np.int8)
    split[120:, 3] = VALID
    data = TrainingData(
        "sequential", IdMap(tuple(map(str, range(240)))), IdMap(tuple(map(str, range(36)))),
        np.repeat(np.arange(1, 241), 4), 1 + np.array(rows).ravel(), np.tile(np.arange(4), 240),
        split.ravel(),
    )  # fmt: skip
    texts = np.tile(np.eye(6, dtype=np.float32), (6, 1))
    table = VectorTable("item", data.items.ids, texts, np.ones(36, bool))
    model = trained(KNNBlend(VECTORS), data, {VECTORS: table}).model
    assert decays_of(model) == ["harmonic", "mean"]


@pytest.mark.parametrize("name", DECAYED)
def test_without_validation_the_decay_is_harmonic(name):
    """On a log whose validation would choose the mean."""
    data, inputs = grouped_log("most")
    data = dataclasses.replace(data, split=np.where(data.split == VALID, TEST, data.split))
    net = DECAYED[name].build(data, 0)
    net.fit(data, inputs)
    assert set(decays_of(net)) == {"harmonic"}


def test_an_unknown_decay_is_refused(rings):
    with pytest.raises(ValueError, match=r"unknown decay 'newest': use one of .*validated"):
        EASE(decay="newest").build(rings.data, 0)
