"""Markers, data root and the record of proofs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_OUTCOMES: dict[tuple[str, str], list[bool]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--need-data", action="store_true", help="missing public data fails a test")
    parser.addoption("--need-dvc", action="store_true", help="a missing dvc fails a test")
    parser.addoption("--need-browser", action="store_true", help="a missing browser fails a test")
    parser.addoption("--record-proofs", default="", help="write the record of proofs to this file")


# What the default suite leaves out, and the command that runs it.
_APART = {
    "data": "needs the public data sets: make test-data",
    "slow": "takes minutes: make test-slow",
    "gpu": "needs a CUDA device: pytest -m gpu",
    "browser": "needs a browser: make test-browser",
    "dvc": "needs DVC in its own environment: make test-dvc",
    "vllm": "needs vLLM in its own environment: make test-vllm",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what belongs to another command, with the reason; ``-m`` chooses otherwise."""
    if config.getoption("markexpr"):
        return
    for item in items:
        for name, why in _APART.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def data_root(request: pytest.FixtureRequest) -> Path:
    """The folder of public data sets; a test that needs it fails or is skipped with the reason."""
    root = os.environ.get("LLMERS_DATA_ROOT", "")
    if root and Path(root).is_dir():
        return Path(root)
    why = (
        f"LLMERS_DATA_ROOT is {root!r}: set it to the folder that holds ml100k, amazon_office, ..."
    )
    if request.config.getoption("--need-data"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def dvc(request: pytest.FixtureRequest) -> str:
    """The program ``dvc``; a test that needs it fails or is skipped with the reason."""
    from llmers_pipelines.data.dvc import program
    from llmers_pipelines.data.schema import DataError

    try:
        return program(os.environ.get("LLMERS_DVC", ""))
    except DataError as why:
        if request.config.getoption("--need-dvc"):
            pytest.fail(str(why))
        pytest.skip(str(why))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    report = outcome.get_result()
    if report.skipped:  # says nothing for or against a proof
        return
    if report.when == "call" or (report.when == "setup" and not report.passed):
        for mark in item.iter_markers("proof"):
            _OUTCOMES.setdefault(tuple(mark.args), []).append(report.passed)


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--record-proofs")
    if not target or not _OUTCOMES:
        return
    from llmers_pipelines.orchestrate.records import recipe_digest

    record: dict[str, dict[str, dict[str, object]]] = {}
    for (recipe, kind), passed in _OUTCOMES.items():
        record.setdefault(recipe, {})[kind] = {
            "passed": all(passed), "tests": len(passed), "digest": recipe_digest(recipe),
        }  # fmt: skip
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
