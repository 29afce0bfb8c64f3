from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmers_pipelines.data.training import TrainingData

sys.path.insert(0, str(Path(__file__).parent))  # registry_samples, whatever pytest's import mode

from registry_samples import make_log, sasrec, write


@pytest.fixture(scope="module")
def log() -> TrainingData:
    return make_log()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundles") / "sasrec", sasrec())
