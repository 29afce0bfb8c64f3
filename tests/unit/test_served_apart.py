from __future__ import annotations

import pytest

from llmers_pipelines.api import BPRMF
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing import serving
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.testing.serving import served_apart
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.trained import save_trained

CASE = {"rows": False, "users": [1], "histories": [[2, 3]]}


@pytest.fixture
def exported(tmp_path):
    data = planted_rings().data
    save_trained(
        fit(Train(BPRMF(dim=4), Table("splits", task=data.task)), data, {}, seed=0), tmp_path
    )
    return tmp_path, data.n_items


def test_a_model_that_asks_for_a_language_model_is_told_and_others_go_on(
    exported, tmp_path, monkeypatch
):
    folder, n_items = exported
    process = serving._process
    assert served_apart(folder, CASE).shape == (1, n_items)
    before = process().pid
    with pytest.raises(AssertionError, match="load_export"):
        served_apart(tmp_path / "nothing", CASE)
    monkeypatch.setattr(serving, "_SERVE", serving._SERVE.replace(
        "def answer(folder, case):", "def answer(folder, case):\n    import transformers",
    ))  # fmt: skip
    assert served_apart(folder, CASE).shape == (1, n_items) and process().pid == before
    process.cache_clear()
    try:
        with pytest.raises(AssertionError, match="transformers may not be imported"):
            served_apart(folder, CASE)
    finally:
        process().kill()
        process.cache_clear()


def test_an_end_of_the_process_is_said_and_the_next_gets_a_new_one(exported):
    folder, n_items = exported
    serving._process().kill()
    with pytest.raises(AssertionError, match="ended with"):
        served_apart(folder, CASE)
    assert served_apart(folder, CASE).shape == (1, n_items)
