"""A training that its clock stopped is gone on from; one that ended by validation is not."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "retrieval.py"


def test_only_a_training_that_ended_by_itself_is_finished(tmp_path: Path, capsys) -> None:
    pytest.importorskip("faiss")
    spec = importlib.util.spec_from_file_location("retrieval", SCRIPT)
    assert spec is not None and spec.loader is not None
    retrieval = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(retrieval)
    args = argparse.Namespace(keep=tmp_path, seconds=0.0)
    data = retrieval.log(2000, 800)
    finished = tmp_path / "2000" / "finished"
    retrieval.vectors(args, 2000, data)
    assert (tmp_path / "2000" / "item.npy").is_file() and not finished.exists()
    args.seconds = 600.0
    retrieval.vectors(args, 2000, data)
    assert finished.is_file()
    told = capsys.readouterr().out
    assert told.count("epoch 1:") == 1 and "epoch 2:" in told
    retrieval.vectors(args, 2000, data)
    assert "epoch" not in capsys.readouterr().out
