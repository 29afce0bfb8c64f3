import subprocess
import sys

import numpy as np
import pytest

from llmers_pipelines.encode import encoder
from llmers_pipelines.encode.encoder import EncoderInfo, check_encoder, make_encoder
from llmers_pipelines.encode.tfidf import TfidfEncoder
from llmers_pipelines.testing.encoders import HashingEncoder


def info(**changes):
    return EncoderInfo(**({"kind": "k", "name": "n", "weights_sha256": "w", "tokenizer_sha256": "t",
                           "dim": 3} | changes))  # fmt: skip


def test_identity_follows_what_decides_the_vectors_and_not_the_name():
    changes = [
        {"kind": "x"}, {"weights_sha256": "x"}, {"tokenizer_sha256": "x"}, {"dim": 4},
        {"pooling": "cls"}, {"dtype": "bfloat16"}, {"max_length": 9}, {"normalize": False},
        {"layer": -2}, {"prefix": "query: "},
    ]  # fmt: skip
    identities = {info(**c).identity for c in changes} | {info().identity}
    assert len(identities) == len(changes) + 1
    assert info(name="other").identity == info().identity
    assert info(language_model=False).label == "n (no language model)" and info().label == "n"


def test_a_plug_in_is_named_by_module_and_factory():
    made = make_encoder("llmers_pipelines.testing.encoders:HashingEncoder?dim=12")
    assert isinstance(made, HashingEncoder) and made.info.dim == 12
    with pytest.raises(ValueError, match=r"expected package\.module:factory"):
        make_encoder("llmers_pipelines.testing.encoders:Missing")


def test_tfidf_takes_its_settings_and_state_folder(tmp_path):
    made = make_encoder("tfidf?dim=7&version=2", state_folder=tmp_path)
    assert isinstance(made, TfidfEncoder) and made.dim == 7
    assert made.path == tmp_path / "tfidf__dim7__v2.safetensors"


def test_auto_prefers_the_packaged_model_and_falls_back_without_it(monkeypatch):
    monkeypatch.setattr(encoder, "minilm_folder", lambda: None)
    assert isinstance(make_encoder(), TfidfEncoder) and isinstance(make_encoder(""), TfidfEncoder)
    with pytest.raises(FileNotFoundError, match="extra `minilm`"):
        make_encoder("minilm")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfidf?size=3", "no setting 'size'; it has dim, version"),
        ("minilm?normalize=yes", "expected 0 or 1"),
        ("/no/such/folder", "there is no such folder"),
    ],
)
def test_wrong_names_and_settings_say_what_to_do(name, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_encoder(name)


LIGHT = """
import sys
import llmers_pipelines.encode.encoder, llmers_pipelines.encode.run, llmers_pipelines.encode.tfidf
import llmers_pipelines.encode.transformer, llmers_pipelines.encode.invariants
import llmers_pipelines.derive.neighbours, llmers_pipelines.derive.pca
import llmers_pipelines.derive.columns, llmers_pipelines.data.text
import llmers_pipelines.testing.encoders
heavy = {"torch", "transformers", "sklearn", "scipy", "faiss", "safetensors", "huggingface_hub"}
sys.exit(" ".join(sorted(heavy & set(sys.modules))) or 0)
"""


def test_importing_settings_loads_no_heavy_library():
    job = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert job.returncode == 0, job.stderr


def test_the_hashing_encoder_finds_shared_words():
    texts = ["war drama", "war film", "kitchen knife", "", "WAR, drama!"]
    one = HashingEncoder(128)
    vectors = one.encode(texts)
    assert one.calls == 5 and not one.info.language_model
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0, 1], atol=1e-6)
    cos = vectors @ vectors.T
    assert cos[0, 1] > 0.3 > abs(cos[0, 2]) and (vectors[0] == vectors[4]).all()
    assert (HashingEncoder(128).encode(texts[1:2])[0] == vectors[1]).all()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("minlm", "did you mean 'minilm'"),
        ("minilm?poolin=cls", "no setting 'poolin'; it has pooling"),
        ("minilm?max_length=long", "max_length = 'long'"),
        ("tfidf?pooling=cls", "no setting 'pooling'; it has dim, version"),
    ],
)
def test_a_misspelt_encoder_is_told_without_loading_it(name, fault):
    with pytest.raises(ValueError, match=fault):
        check_encoder(name)


@pytest.mark.parametrize(
    "name", ["auto", "tfidf?dim=32", "intfloat/e5-small-v2?pooling=mean", "my.module:make?size=3"]
)
def test_a_possible_encoder_passes(name):
    check_encoder(name)
