"""What is special to news recommenders: words, impressions, views."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST, TRAIN, VALID, Field, IdMap, TrainingData
from llmers_pipelines.data.words import word_codes
from llmers_pipelines.models.batches import CtrBatch
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.naml import NAML
from llmers_pipelines.models.news_net import AdditiveAttention, SelfAttention
from llmers_pipelines.models.nrms import NRMS
from llmers_pipelines.models.served import load_served
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.clicks import auc, user_auc
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.news_loader import Loader, groups_of

LOG = Table("splits", task="news")
FIT = Fit(lr=1e-2, batch=32, epochs=20, min_epochs=10, patience=5, metric="auc")
SMALL = {
    "nrms": NRMS(word_dim=8, heads=2, head=4, attention=6, fit=FIT),
    "naml": NAML(word_dim=8, filters=8, category_dim=4, attention=6, fit=FIT),
}
kinds = pytest.mark.parametrize(
    "backbone",
    [pytest.param(b, id=n, marks=pytest.mark.proof(n, "equations")) for n, b in SMALL.items()],
)


@pytest.fixture(scope="module")
def data():
    return contract_data("news")


def batch(history, rating=None, item=3):
    n = len(history)
    return CtrBatch(
        user=torch.ones(n, dtype=torch.long), item=torch.full((n,), item),
        history=torch.tensor(history),
        history_rating=None if rating is None else torch.tensor(rating), label=None, rows=None,
    )  # fmt: skip


def planted_news(seed=0, n_users=60, n_items=90, shown=6, each=8):
    """Users of two kinds click the one item of their topic among ``shown``; titles say the topic.

    Test impressions show items that training never met, so that ids know nothing.
    """
    rng = np.random.default_rng(seed)
    topic = np.arange(n_items) % 3
    words = ("ball goal team", "vote law tax", "rain snow wind")
    titles = [f"{words[i % 3].split()[i // 3 % 3]} of x{i}" for i in range(n_items)]
    taste = rng.integers(2, size=n_users)
    old, new = np.arange(n_items) < 60, np.arange(n_items) >= 60
    rows = []
    for u in range(n_users):
        for n in range(each):
            part = TRAIN if n < each - 2 else VALID if n == each - 2 else TEST
            pool = old if part == TRAIN else new
            liked = rng.choice(np.flatnonzero(pool & (topic == taste[u])))
            others = rng.choice(np.flatnonzero(pool & (topic != taste[u])), shown - 1, False)
            for i in (liked, *others):
                rows.append((u + 1, i + 1, n, part, float(i == liked), u * each + n + 1))
    user, item, time, split, label, impression = (np.array(c) for c in zip(*rows, strict=True))
    return TrainingData(
        "news", IdMap(tuple(f"u{n}" for n in range(n_users))),
        IdMap(tuple(f"i{n}" for n in range(n_items))), user, item, time, split.astype(np.int8),
        label=label.astype(np.float32), impression=impression,
        item_texts={"title": word_codes(titles, old)},
        item_fields={"topic": Field(np.concatenate([[0], topic + 1]).astype(np.int32),
                                    ("sport", "state", "sky"))},
    )  # fmt: skip


def by_impression(data, label, rows, trained):
    values, _ = user_auc(data.impression[rows], label[rows] > 0.5, trained.predict(rows))
    return values.mean()


def test_self_attention_is_that_of_an_independent_implementation():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(6, 2, 3), torch.nn.MultiheadAttention(6, 2, batch_first=True)
    with torch.no_grad():
        ours.projections.bias.normal_()
        theirs.in_proj_weight.copy_(ours.projections.weight)
        theirs.in_proj_bias.copy_(ours.projections.bias)
        theirs.out_proj.weight.copy_(torch.eye(6))
        theirs.out_proj.bias.zero_()
    x, mask = torch.randn(2, 4, 6), torch.tensor([[1, 1, 1, 0], [0, 1, 0, 1]]).bool()
    expected = theirs(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask])


def test_additive_attention_by_hand_and_nothing_to_attend_to():
    attention = AdditiveAttention(2, 1)
    with torch.no_grad():
        attention.project.weight.copy_(torch.tensor([[1.0, -1.0]]))
        attention.project.bias.fill_(0.5)
        attention.query.weight.fill_(2.0)
    h = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    a, b = math.exp(2 * math.tanh(1.5)), math.exp(2 * math.tanh(-0.5))
    out = attention(h, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(out, torch.tensor([[a, b]]) / (a + b))
    assert not attention(h, torch.zeros(1, 3, dtype=torch.bool)).any()


def loud(backbone, data):
    """An untrained net whose biases are not zero, so that a mistake with them shows."""
    net = backbone.build(data, 0).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.normal_(generator=draw)
            else:
                p.mul_(2)
    return net


def shares(scores):
    e = (scores - scores.max()).exp()
    return e / e.sum()


def plainly_pooled(attention, h):
    """Additive attention over h (L, W), position by position."""
    v, b, q = attention.project.weight, attention.project.bias, attention.query.weight[0]
    scores = torch.stack([q @ torch.tanh(v @ x + b) for x in h])
    return sum(w * x for w, x in zip(shares(scores), h, strict=True))


def plainly_mixed(attention, h):
    """Self-attention over h (L, W), head by head and position by position."""
    q, k, v = (h @ attention.projections.weight.T + attention.projections.bias).chunk(3, 1)
    width = q.shape[1] // attention.heads
    out = torch.zeros_like(v)
    for head in range(attention.heads):
        at = slice(width * head, width * (head + 1))
        for t in range(len(h)):
            scores = torch.stack([q[t, at] @ k[s, at] / width**0.5 for s in range(len(h))])
            out[t, at] = sum(w * x for w, x in zip(shares(scores), v[:, at], strict=True))
    return out


@pytest.mark.proof("nrms", "equations")
def test_nrms_reads_news_and_users_by_two_attentions_each(data):
    net = loud(SMALL["nrms"], data)

    def news(item):
        codes = net.words.codes[item]
        words = net.words.table(codes[codes > 0])
        return plainly_pooled(net.word_pool, plainly_mixed(net.word_attention, words))

    with torch.no_grad():
        clicked = torch.stack([news(i) for i in (4, 5, 9)])
        torch.testing.assert_close(net.news(torch.tensor([4, 5, 9])), clicked)
        user = plainly_pooled(net.news_pool, plainly_mixed(net.news_attention, clicked))
        given = batch([[0, 0, 4, 5, 9]])
        torch.testing.assert_close(net.user_state(given)[0], user)
        torch.testing.assert_close(net.logits(given)[0], user @ news(3))


@pytest.mark.proof("naml", "equations")
def test_naml_reads_each_view_then_the_views_then_the_clicks(data):
    net = loud(SMALL["naml"], data)

    def text(view, item):
        codes = view.words.codes[item]
        words = view.words.table(codes[codes > 0])
        reach = view.convolve.kernel_size[0] // 2
        found = []
        for t in range(len(words)):
            near = [(o, t + o) for o in range(-reach, reach + 1) if 0 <= t + o < len(words)]
            total = sum(view.convolve.weight[:, :, o + reach] @ words[s] for o, s in near)
            found.append(torch.relu(total + view.convolve.bias))
        return plainly_pooled(view.pool, torch.stack(found))

    def news(item):
        views = [text(view, item) for view in net.texts]
        codes = net.categories(torch.tensor([item]))[0]
        views += [torch.relu(layer.weight @ e + layer.bias)
                  for layer, e in zip(net.dense, codes, strict=True)]  # fmt: skip
        scores = torch.stack([
            a.query.weight[0] @ torch.tanh(a.project.weight @ v + a.project.bias)
            for a, v in zip(net.view_attention, views, strict=True)
        ])  # fmt: skip
        return sum(w * v for w, v in zip(shares(scores), views, strict=True))

    with torch.no_grad():
        clicked = torch.stack([news(i) for i in (4, 5, 9)])
        torch.testing.assert_close(net.news(torch.tensor([4, 5, 9])), clicked)
        user = plainly_pooled(net.news_pool, clicked)
        given = batch([[0, 0, 4, 5, 9]])
        torch.testing.assert_close(net.user_state(given)[0], user)
        torch.testing.assert_close(net.logits(given)[0], user @ news(3))


@kinds
def test_padding_is_not_attended_to(backbone, data):
    net = backbone.build(data, 0).eval()
    short = net.logits(batch([[4, 5]]))
    torch.testing.assert_close(net.logits(batch([[0, 0, 4, 5], [7, 8, 4, 5]]))[:1], short)
    words = [m for m in net.modules() if type(m).__name__ == "Words"]
    ids = torch.arange(1, data.n_items + 1)
    before = net.news(ids)
    for table in words:  # further columns of padding
        wide = torch.nn.functional.pad(table.codes, (0, 3))
        table.codes = wide
        table.forward = lambda i, t=table: (t.table(t.codes[i]), t.codes[i] > 0)
    torch.testing.assert_close(net.news(ids), before)


@kinds
def test_a_history_is_what_was_clicked(backbone, data):
    net = backbone.build(data, 0).eval()
    plain = net.logits(batch([[4, 6]]))
    rated = net.logits(batch([[4, 5, 6]], [[5.0, 2.0, 5.0]]))
    torch.testing.assert_close(rated, plain)
    assert net.logits(batch([[4, 5]], [[2.0, 2.0]])).tolist() == [0.0]
    assert net.logits(batch([[0]])).tolist() == [0.0]


@kinds
def test_the_loss_is_a_softmax_over_a_click_and_its_negatives(backbone, data):
    net, loader = backbone.build(data, 0), Loader(data, backbone, 0)
    b = next(loader.epoch(1))
    assert b.candidates.shape[1] == 5
    assert abs(float(net.loss(b).detach()) - math.log(5)) < 0.2
    net.eval()
    state = net.user_state(b)
    scores = torch.stack(
        [(state * net.item_output(b.candidates[:, k])).sum(1) for k in range(5)], 1
    )
    expected = -torch.log_softmax(scores, 1)[:, 0].mean()
    torch.testing.assert_close(net.loss(b), expected)


@kinds
def test_an_export_has_news_vectors_and_no_words(backbone, data):
    trained = fit(Train(backbone, LOG), data, {}, seed=0)
    config, arrays = trained.export()
    assert not [k for k in arrays if "words" in k or "word_" in k or "codes" in k]
    served = load_served(json.loads(json.dumps(config)), arrays)
    rows = np.arange(100)
    b = Loader(data, backbone, 0).batch(torch.from_numpy(rows))
    histories = [h[h > 0] for h in b.history.numpy()]
    p = served.predict(data.user[rows], data.item[rows], histories)
    np.testing.assert_allclose(p, trained.predict(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("slug", SMALL)
def test_it_learns_from_words_what_a_user_reads(slug):
    data = planted_news(n_users=150)
    if slug == "nrms":
        data = dataclasses.replace(data, item_fields={})
    trained = fit(Train(SMALL[slug], LOG), data, {}, seed=0)
    rows = np.flatnonzero(data.split == TEST)
    assert by_impression(data, data.label, rows, trained) > 0.9
    mixed = np.random.default_rng(0).permutation(data.label).astype(np.float32)
    chance = fit(Train(SMALL[slug], LOG), dataclasses.replace(data, label=mixed), {}, seed=0)
    assert 0.4 < by_impression(data, mixed, rows, chance) < 0.6


def test_negatives_are_of_the_same_impression():
    data = planted_news()
    loader = Loader(data, SMALL["nrms"], 0)
    shown = {}
    for i, item, label in zip(data.impression, data.item, data.label, strict=True):
        if not label:
            shown.setdefault(i, set()).add(item)
    rows = loader._clicks
    drawn = loader.negatives(rows, np.random.default_rng(0))
    for row, items in zip(rows, drawn, strict=True):
        assert set(items) <= shown[data.impression[row]]
    assert len(np.unique(drawn[:, 0])) > 30


def test_without_what_was_passed_over_negatives_come_from_the_catalog():
    data = planted_news()
    keep = (data.label == 1) | (data.split != TRAIN)
    some = {n: getattr(data, n)[keep] for n in ("user", "item", "time", "split", "label")}
    bare = dataclasses.replace(data, **some, impression=data.impression[keep])
    loader = Loader(bare, SMALL["nrms"], 0)
    rows = loader._clicks
    drawn = np.concatenate([loader.negatives(rows, np.random.default_rng(s)) for s in range(20)])
    assert (drawn != np.tile(bare.item[rows], 20)[:, None]).all()
    assert set(np.unique(drawn)) == set(range(1, 91))


def test_groups_are_impressions_of_a_user_and_validation_is_their_mean():
    data = planted_news(n_users=4)
    again = dataclasses.replace(data, impression=data.impression * 0)
    assert len(np.unique(groups_of(data))) == 4 * 8
    assert np.array_equal(groups_of(again), data.user - 1)
    loader = Loader(data, SMALL["nrms"], 0)
    p = np.random.default_rng(0).random(len(data.user))
    loader.probabilities = lambda model, rows: p[rows]
    rows = np.flatnonzero(data.split == VALID)
    by_impression = [
        auc(data.label[rows][data.impression[rows] == i], p[rows][data.impression[rows] == i])
        for i in np.unique(data.impression[rows])
    ]
    assert loader.validate(None) == pytest.approx(np.mean(by_impression))
    one_class = dataclasses.replace(data, label=np.where(data.user == 1, 0, data.label))
    skipped = Loader(one_class, SMALL["nrms"], 0)
    skipped.probabilities = loader.probabilities
    assert skipped.validate(None) == pytest.approx(np.mean(by_impression[1:]))


def test_histories_hold_clicks_before_the_row():
    data = planted_news(n_users=3)
    loader = Loader(data, SMALL["nrms"], 0)
    rows = np.arange(len(data.user))
    b = loader.batch(torch.from_numpy(rows))
    for row in rows:
        before = (
            (data.user == data.user[row]) & (data.time < data.time[row])
            & (data.label == 1) & (data.split == TRAIN)
        )  # fmt: skip
        assert [i for i in b.history[row].tolist() if i] == data.item[before].tolist()


@pytest.mark.proof("naml", "equations")
def test_views_have_attention_of_their_own(data):
    net = SMALL["naml"].build(data, 0).eval()
    assert len(net.view_attention) == 3  # title, body, genre
    assert len({a.project.weight.data_ptr() for a in net.view_attention}) == 3
    ids = torch.tensor([6, 7])  # the first has no body
    vectors, there = net.views(ids)
    assert there.tolist() == [[True, False, True], [True, True, True]]
    for row in range(2):
        has = [v for v in range(3) if there[row, v]]
        scores = torch.stack([
            a.query.weight[0] @ torch.tanh(a.project.weight @ vectors[row, v] + a.project.bias)
            for v, a in ((v, net.view_attention[v]) for v in has)
        ])  # fmt: skip
        expected = (torch.softmax(scores, 0)[:, None] * vectors[row, has]).sum(0)
        torch.testing.assert_close(net.news(ids)[row], expected)


@pytest.mark.proof("naml", "equations")
def test_a_text_view_reads_windows_of_three_words(data):
    net = SMALL["naml"].build(data, 0).eval()
    view = net.texts[0]
    item = 6
    codes = view.words.codes[item]
    e = torch.cat([torch.zeros(1, 8), view.words.table(codes[codes > 0]), torch.zeros(1, 8)])
    w, b = view.convolve.weight, view.convolve.bias
    h = torch.stack([
        torch.relu(torch.einsum("fet,te->f", w, e[t : t + 3]) + b) for t in range(len(e) - 2)
    ])  # fmt: skip
    expected = view.pool(h.unsqueeze(0), torch.ones(1, len(h), dtype=torch.bool))
    torch.testing.assert_close(view(torch.tensor([item]), net.dropped)[0], expected)


@pytest.mark.proof("naml", "equations")
def test_a_category_of_held_out_items_alone_counts_as_missing(data):
    codes = data.item_fields["genre"].codes.copy()
    codes[codes == 3] = 0
    late = data.item[data.split != TRAIN][0]
    codes[late] = 3
    keep = (data.item != late) | (data.split != TRAIN)
    some = {n: getattr(data, n)[keep] for n in ("user", "item", "time", "split", "label", "rating")}
    genre = dataclasses.replace(data.item_fields["genre"], codes=codes)
    changed = dataclasses.replace(data, **some, item_fields={"genre": genre})
    net = SMALL["naml"].build(changed, 0)
    assert net.categories.codes[late].item() == 0
    other = int(np.flatnonzero(codes == 1)[0])
    assert net.categories.codes[other].item() == 1


def test_a_log_without_the_text_is_refused(data):
    with pytest.raises(ValueError, match=r"'headline'.*\['body', 'title'\]"):
        dataclasses.replace(SMALL["nrms"], title="headline").build(data, 0)
    with pytest.raises(ValueError, match="no texts"):
        SMALL["naml"].build(dataclasses.replace(data, item_texts={}), 0)
