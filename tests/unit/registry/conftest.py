from __future__ import annotations

from pathlib import Path

import pytest
from registry_samples import make_log, sasrec, write

from llmers_pipelines.data.training import TrainingData


@pytest.fixture(scope="module")
def log() -> TrainingData:
    return make_log()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundles") / "sasrec", sasrec())
