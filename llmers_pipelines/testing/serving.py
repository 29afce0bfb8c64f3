"""A process in which no language model can be imported, and which serves trained models.

One process for all tests of a session: what costs is its import of torch, not what it serves.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_SERVE = """
import json, sys, traceback
class Refuse:
    def find_spec(self, name, path=None, target=None):
        banned = ("transformers", "vllm", "tokenizers", "sentence_transformers")
        ours = ("llmers_pipelines.llm", "llmers_pipelines.encode")
        if name.split(".")[0] in banned or name.startswith(ours):
            raise ImportError(f"{name} may not be imported where models are served")
sys.meta_path.insert(0, Refuse())
answers, sys.stdout = sys.stdout, sys.stderr
from pathlib import Path
import numpy as np
from llmers_pipelines.train.trained import load_export
from llmers_pipelines.models.served import load_served
def answer(folder, case):
    served = load_served(*load_export(Path(folder)))
    users, histories = np.array(case["users"]), [np.array(h) for h in case["histories"]]
    if case["rows"]:
        return served.predict(users, np.array(case["items"]), histories, None)
    return served.scores(users, histories)[:, 1:]
for line in sys.stdin:
    try:
        out = {"out": np.asarray(answer(*json.loads(line)), float).tolist()}
    except Exception:  # whatever a model raises is the answer to its test
        out = {"error": traceback.format_exc()}
    print(json.dumps(out), file=answers, flush=True)
"""


def served_apart(folder: Path, case: dict[str, Any]) -> np.ndarray:
    """Return what the model exported to ``folder`` answers to ``case`` in that process.

    ``case`` has ``users``, ``histories`` and, where ``rows`` is true, ``items``: then these rows
    are predicted, else all items are scored. Raises ``AssertionError`` with the other side's
    traceback.
    """
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps([str(folder), case]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        _process.cache_clear()  # the next test gets another
        raise AssertionError(f"the serving process ended with {process.wait()}")
    answer = json.loads(line)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return np.asarray(answer["out"])


@cache
def _process() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.kill)
    return process
