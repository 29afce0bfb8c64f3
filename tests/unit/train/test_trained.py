from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from llmers_pipelines.data.training import TEST
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.histories import history_before
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.models.served import fold, load_served
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit
from llmers_pipelines.train.trained import load_export, load_trained, save_trained

TRAIN = Train(
    SASRec(dim=8, inner=16, max_len=6, fit=Fit(batch=16, epochs=2)), Table("splits", task="s")
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "deep"
    trained = fit(TRAIN, planted_rings(n_users=30, n_items=20).data, {}, seed=0)
    save_trained(trained, folder)
    return trained, folder


def test_the_folder_holds_weights_a_description_and_the_record(saved):
    trained, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == [
        "model.json", "state.safetensors", "training.json", "weights.safetensors"
    ]  # fmt: skip
    record = json.loads((folder / "training.json").read_text())
    assert record["epochs"] == trained.epochs
    assert record["best_valid"] == trained.best_valid


def test_a_log_of_another_size_is_refused(saved):
    other = planted_rings(n_users=31, n_items=20).data
    with pytest.raises(ValueError, match="trained with n_users = 30, the log has 31"):
        load_trained(saved[1], TRAIN, other)


def test_long_histories_count_with_their_newest_items(saved):
    trained, _ = saved
    long = np.arange(1, 15)
    a = trained.scores([1], [long])
    assert np.array_equal(a, trained.scores([1], [long[-6:]]))
    assert not np.array_equal(a, trained.scores([1], [long[-5:]]))


def test_scoring_alone_or_in_a_block_agrees(saved):
    trained, _ = saved
    data = trained.data
    users = np.arange(1, data.n_users + 1)
    lists = history_before(data, TEST).lists(users)
    block = trained.scores(users, lists)
    alone = np.concatenate([trained.scores([u], [h]) for u, h in zip(users, lists, strict=True)])
    np.testing.assert_allclose(block, alone, atol=1e-5)


def test_damaged_or_foreign_bundles_are_refused(saved):
    config, arrays = load_export(saved[1])
    with pytest.raises(ValueError, match="format 99, this version reads 1"):
        load_served({**config, "format": 99}, arrays)
    short = {k: v for k, v in arrays.items() if k != "distances"}
    with pytest.raises(ValueError, match=r"missing arrays \['distances'\]"):
        load_served(config, short)


def test_loading_leaves_the_global_random_stream_alone(saved):
    config, arrays = load_export(saved[1])
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    load_served(config, arrays)
    assert torch.equal(torch.rand(2), expected)


def test_a_hook_that_mixes_items_and_states_must_fold(saved):
    class Both(torch.nn.Module):
        def item_output(self, model, nxt, ids):
            return nxt(ids)

        def user_state(self, model, nxt, batch):
            return nxt(batch)

    model = TRAIN.backbone.build(saved[0].data, 0)
    model.hooks.append(Both())
    with pytest.raises(TypeError, match=r"Both changes item vectors and states; give it fold"):
        fold(model)


def test_a_served_model_needs_no_language_model(saved, tmp_path):
    trained, folder = saved
    expected = trained.scores([1], [np.array([3, 4])])
    np.save(tmp_path / "expected.npy", expected)
    code = f"""
import sys
banned = ("transformers", "mlflow", "dagster", "faiss", "pandas", "llmers_pipelines.llm",
          "llmers_pipelines.encode", "llmers_pipelines.train", "llmers_pipelines.prompts")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(banned):
            raise ImportError("not at serving: " + name)

sys.meta_path.insert(0, Refuse())
import json, numpy as np
from pathlib import Path
from safetensors.numpy import load_file
from llmers_pipelines.models.served import load_served
folder = Path({str(folder)!r})
served = load_served(
    json.loads((folder / "model.json").read_text()), load_file(folder / "weights.safetensors")
)
scores = served.scores([1], [np.array([3, 4])])
np.testing.assert_allclose(scores, np.load({str(tmp_path / "expected.npy")!r}), atol=1e-5)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
