"""The CTR baselines on a public log are strong: what enhanced arms are compared with."""

from __future__ import annotations

import numpy as np
import pytest

from llmers_pipelines.data.catalog import load_catalog
from llmers_pipelines.data.registry import find_dataset
from llmers_pipelines.data.splits import build_training_data
from llmers_pipelines.data.training import TEST
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.din import DIN
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.train.clicks import auc, logloss
from llmers_pipelines.train.loop import fit


@pytest.mark.data
@pytest.mark.parametrize(("backbone", "least"), [(DIN(), 0.78), (DeepFM(), 0.788)], ids=str)
def test_baselines_on_ml100k(backbone, least, data_root):
    description = find_dataset("ml100k")
    data = build_training_data(load_catalog(description, data_root), description, "ctr")
    assert (data.n_users, int((data.split == TEST).sum())) == (943, 20_000)
    trained = fit(Train(backbone, Table("splits", task="ctr")), data, {}, seed=0)
    rows = np.flatnonzero(data.split == TEST)
    p = trained.predict(rows)
    found = {"auc": auc(data.label[rows], p), "logloss": logloss(data.label[rows], p)}
    assert found["auc"] > least
    assert found["logloss"] < 0.58
