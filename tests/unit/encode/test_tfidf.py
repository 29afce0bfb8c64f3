import numpy as np
import pytest

from llmers_pipelines.encode.tfidf import FEATURES, TfidfEncoder

TEXTS = [
    "a war drama in the desert", "war drama at sea", "romantic comedy in paris", "comedy of errors",
    "office stapler black", "black office pen", "desert flower", "paris in the rain",
]  # fmt: skip


def fitted(texts=TEXTS, **settings):
    made = TfidfEncoder(**({"dim": 4} | settings))
    made.prepare(texts)
    return made


def test_texts_that_share_rare_words_are_near():
    made = fitted(dim=8)
    vectors = made.encode(TEXTS)
    cos = vectors @ vectors.T
    assert vectors.shape == (8, 8) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert cos[0, 1] > cos[0, 2] and cos[4, 5] > 0.3 > cos[4, 0]


def test_with_enough_columns_cosines_are_those_of_plain_tfidf():
    from sklearn.feature_extraction.text import TfidfVectorizer

    plain = TfidfVectorizer(sublinear_tf=True).fit_transform(TEXTS)
    vectors = fitted(dim=len(TEXTS)).encode(TEXTS)
    np.testing.assert_allclose(vectors @ vectors.T, (plain @ plain.T).toarray(), atol=1e-5)


def test_the_axes_are_orthonormal_and_signed_by_their_largest_loading():
    components = fitted().info and fitted()._fit["components"]
    np.testing.assert_allclose(components @ components.T, np.eye(4), atol=1e-5)
    assert (components[np.arange(4), np.abs(components).argmax(1)] > 0).all()


def test_the_iterative_and_the_direct_solution_agree():
    words = [f"w{k}" for k in range(30)]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words[:6] if t % 2 else words, 8)) for t in range(60)]
    few, all_axes = fitted(texts, dim=3), fitted(texts, dim=60)  # svds, then a full SVD
    np.testing.assert_allclose(few._fit["components"], all_axes._fit["components"][:3], atol=1e-4)


def test_two_fits_on_equal_texts_are_equal_bytes():
    one, two = fitted(), fitted()
    assert one.info.identity == two.info.identity
    assert (one.encode(TEXTS) == two.encode(TEXTS)).all()


def test_texts_of_few_directions_have_one_fit():
    """Fewer directions than columns: the iteration starts anew, and not from chance."""
    texts = [f"u{n:02} is calm, long and full of harbours." for n in range(40)]
    fits = {fitted(texts, dim=20).info.weights_sha256 for _ in range(6)}
    assert len(fits) == 1


def test_the_fit_is_kept_and_meets_new_texts(tmp_path):
    first = fitted(state_folder=tmp_path)
    vector = first.encode(TEXTS[:1])
    later = TfidfEncoder(4, state_folder=tmp_path)
    later.prepare([*TEXTS, "something new", "and more of it"])
    assert later.info.identity == first.info.identity
    assert (later.encode(TEXTS[:1]) == vector).all()
    bumped = TfidfEncoder(4, version=2, state_folder=tmp_path)
    bumped.prepare([*TEXTS, "something new", "and more of it"])
    assert bumped.info.identity != first.info.identity


def test_unknown_words_and_too_few_texts_give_zeros_not_nan():
    made = fitted(["one text"], dim=4)
    vectors = made.encode(["one text", "zzz qqq", ""])
    assert np.isfinite(vectors).all() and vectors[0, 0] == pytest.approx(1)
    assert not vectors[1:].any() and not vectors[0, 1:].any()
    assert fitted([]).encode(["x"]).tolist() == [[0, 0, 0, 0]]
    assert made.encode([]).shape == (0, 4)


def test_it_says_that_it_is_no_language_model_and_wants_a_fit():
    assert fitted().info.label == "tfidf (no language model)"
    assert fitted()._fit["idf"].shape == (FEATURES,)
    with pytest.raises(ValueError, match=r"call prepare\(texts\) first"):
        TfidfEncoder(4).encode(["x"])
