import json

import numpy as np
import pytest

from llmers_pipelines.data.text import Texts
from llmers_pipelines.data.training import IdMap
from llmers_pipelines.data.vectors import VectorTable
from llmers_pipelines.derive.kept import ids_sha256
from llmers_pipelines.derive.pca import PCA
from llmers_pipelines.encode import invariants as inv
from llmers_pipelines.encode.run import embed_texts
from llmers_pipelines.testing.encoders import HashingEncoder

WORDS = [
    "war drama", "war film", "sea drama", "black pen", "blue pen", "", "office desk", "desk lamp",
]  # fmt: skip
IDS = tuple("abcdefgh")


def texts():
    return Texts("item", IDS, tuple(WORDS), np.array([bool(w) for w in WORDS]))


def table():
    return embed_texts(texts(), HashingEncoder(16), None)[0]


def changed(source, row=0, by=1.0):
    vectors = source.vectors.copy()
    vectors[row] += by * np.arange(source.dim)
    return VectorTable(source.entity, source.ids, vectors, source.mask)


def test_row_identity_sees_a_shifted_row(tmp_path):
    good = table()
    good.save(tmp_path)
    ids = IdMap(IDS[::-1])  # joined by id, never by position
    assert inv.row_identity(good, ids, stored=tmp_path).passed
    shifted = VectorTable("item", IDS, np.roll(good.vectors, 1, axis=0), good.mask)
    check = inv.row_identity(shifted, ids, stored=tmp_path)
    assert not check.passed and "a" in check.details["wrong_ids"]
    assert not inv.row_identity(good, IdMap(("x",)), stored=tmp_path).passed
    assert not inv.row_identity(good, IdMap(()), stored=tmp_path).passed


@pytest.mark.parametrize("ids", [IdMap(()), IdMap(("x",))])
def test_a_table_without_rows_is_in_order(tmp_path, ids):
    none = VectorTable("text", (), np.zeros((0, 4), np.float32), np.zeros(0, bool))
    none.save(tmp_path)
    check = inv.row_identity(none, ids, stored=tmp_path)
    assert check.passed and check.details["known"] == 0
    assert not inv.row_identity(table(), IdMap(IDS), stored=tmp_path).passed


def test_padding_row_must_be_zero():
    aligned, mask = table().aligned(IdMap(IDS))
    assert inv.padding(aligned, mask).passed
    assert not inv.padding(aligned + 1).passed
    assert not inv.padding(aligned, np.ones(9, bool)).passed


def test_coverage_reports_fallbacks_and_refuses_gaps():
    check = inv.coverage(table(), IDS)
    assert check.passed and check.details["fallback_share"] == 1 / 8
    assert not inv.coverage(table(), IDS, max_fallback=0.1).passed
    assert not inv.coverage(table(), [*IDS, "new"]).passed
    assert inv.coverage(table(), [*IDS, "new"]).details["examples"] == ["new"]
    assert not inv.coverage(table(), IDS[:-1]).passed
    assert not inv.coverage(changed(table(), by=np.nan), IDS).passed
    doubled = VectorTable("item", ("a", "a"), np.ones((2, 3), np.float32), np.ones(2, bool))
    assert not inv.coverage(doubled, ["a"]).passed


def test_determinism_compares_alone_together_and_stored():
    assert inv.determinism(table(), texts(), HashingEncoder(16)).passed
    check = inv.determinism(changed(table(), by=0.05), texts(), HashingEncoder(16))
    assert not check.passed and check.details["worst_1_minus_cosine"] > 1e-3

    class Neighbourly(HashingEncoder):
        def encode(self, texts, progress=None):
            out = super().encode(texts)
            return out + 0.1 * out.mean(0)  # as padding that leaks into the mean would

    assert not inv.determinism(table(), texts(), Neighbourly(16)).passed
    empty = Texts("item", ("a",), ("",), np.zeros(1, bool))
    assert inv.determinism(table(), empty, HashingEncoder(16)).details["checked"] == 0


def test_incrementality_counts():
    assert inv.incrementality(3, 3).passed and not inv.incrementality(8, 3).passed
    assert inv.incrementality(2, 3).passed  # one was stored meanwhile by somebody else


def test_unchanged_rows_see_a_refit():
    before = table()
    assert inv.unchanged_rows(before, before).details["compared"] == 7  # the fallback may move
    assert not inv.unchanged_rows(before, changed(before)).passed
    assert inv.unchanged_rows(before, changed(before), changed=["a"]).passed
    assert inv.unchanged_rows(before, changed(before, row=5)).passed
    scaled = VectorTable("item", IDS, before.vectors * 2, before.mask)
    assert not inv.unchanged_rows(before, scaled).passed
    narrow, _ = PCA(dim=3).apply([before])
    assert not inv.unchanged_rows(before, narrow).passed


def test_reducer_hygiene_wants_logged_variance_and_allowed_rows():
    source = table()
    _, info = PCA(dim=3).apply([source])
    allowed = ids_sha256([i for i, known in zip(IDS, source.mask, strict=True) if known])
    assert inv.reducer_hygiene(info, allowed).passed
    assert not inv.reducer_hygiene(info, ids_sha256(list(IDS))).passed
    assert not inv.reducer_hygiene({"fit_rows": 3}).passed


def test_sign_convention():
    assert inv.sign_convention(np.array([[1.0, -0.5], [0, 0]])).passed
    assert inv.sign_convention(np.array([[1.0, 0], [-2, 1]])).details["wrong"] == [1]


def test_geometry_reports_and_refuses_collapse():
    kinds = ("war", "war", "pen", "pen", "desk", "desk")
    categories = {i: [kind] for i, kind in zip("abdegh", kinds, strict=True)}
    check = inv.geometry(table(), categories, k=1)
    assert check.passed and check.details["rows"] == 7
    assert check.details["category_purity"] == 1.0 > check.details["purity_by_chance"]
    assert json.loads(json.dumps(check.details)) == check.details
    same = VectorTable("item", IDS, np.ones((8, 4), np.float32), np.ones(8, bool))
    check = inv.geometry(same)
    assert not check.passed and check.details["duplicate_rate"] == 7 / 8
    assert check.details["anisotropy"] == pytest.approx(1)
    rows = np.outer(np.arange(1, 9), [1, 2]).astype(np.float32)
    line = VectorTable("item", IDS, rows, np.ones(8, bool))
    assert not inv.geometry(line).passed
    none = VectorTable("item", IDS, np.zeros((8, 4), np.float32), np.zeros(8, bool))
    assert not inv.geometry(none).passed and "NaN" not in json.dumps(inv.geometry(none).details)


def test_geometry_reads_a_sample_of_a_large_table(monkeypatch):
    monkeypatch.setattr(inv, "SAMPLE", 3)
    assert inv.geometry(table()).details["rows"] == 3


def test_permutation_control_golden_orders():
    control = inv.permutation_control
    assert control(0.050, 0.060, {"permuted": 0.048, "gaussian": 0.049}).passed
    check = control(0.050, 0.060, {"permuted": 0.055})
    assert not check.passed and check.details["better than vanilla"] == ["permuted"]
    assert control(0.050, 0.060, {"permuted": 0.0505}, {"permuted": (0.001, 0.0)}).passed
    check = control(0.050, 0.060, {"permuted": 0.049, "gaussian": 0.051}, {"permuted": (1, 0)})
    assert not check.passed and check.details["better than vanilla"] == ["gaussian"]
    check = control(0.050, 0.040, {"permuted": 0.049})
    assert not check.passed and check.details["not below enhanced"] == ["permuted"]
    assert not control(0.050, 0.060, {"permuted": 0.049}, {"permuted": (0.0, 0.02)}).passed


def test_matched_budget_names_what_differs():
    base = {"dim": 64, "loss": "ce", "trials": 20}
    assert inv.matched_budget(base, dict(base)).passed
    check = inv.matched_budget(base, {"dim": 448, "loss": "ce", "warmup": 3})
    assert not check.passed
    assert check.details["differ"] == {"dim": [64, 448], "trials": [20, None], "warmup": [None, 3]}


def test_no_language_model_scans_module_names():
    fine = ["llmers_pipelines.registry.scorer", "torch.nn", "tokenizers_of_mine"]
    fine.append("llmers_pipelines.llms")
    assert inv.no_language_model(fine).passed
    for bad in ("transformers.models.bert", "vllm", "llmers_pipelines.encode.run"):
        check = inv.no_language_model([*fine, bad])
        assert not check.passed and check.details["found"] == [bad]


def test_module_names_cover_submodules_and_bases():
    class Part(HashingEncoder):
        pass

    class Model:
        def modules(self):
            return [self, Part(4)]

    names = inv.module_names(Model())
    assert {__name__, "llmers_pipelines.testing.encoders"} <= names
    assert "llmers_pipelines.testing.encoders" in inv.module_names(Part(4))
