"""A run against an endpoint that is killed asks once more only for what was in flight."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from loopback import Loopback

from llmers_pipelines.store.responses import ResponseStore

ROWS, WORKERS = 60, 4
RUN = f"""
import sys
from llmers_pipelines.llm.openai import OpenAIEngine, OpenAISettings
from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.store.responses import ResponseStore
rows = [{{"item_id": str(n), "title": f"Volume {{n:02d}}"}} for n in range({ROWS})]
engine = OpenAIEngine(OpenAISettings("m", endpoint=sys.argv[2], concurrency={WORKERS}))
result = run_task(ItemKnowledge(), rows, engine, ResponseStore(sys.argv[1]), progress=False)
print(int(result.counts["llm_calls"]), int(result.counts["cache_hits"]))
print(set(result.rows["status"].to_pylist()))
"""


def answer(body: dict[str, Any]) -> str:
    said = str(body["messages"])
    title = next(t for t in (f"Volume {n:02d}" for n in range(ROWS)) if t in said)
    return f"{title} follows two sisters who keep an old lighthouse."


def test_a_killed_run_asks_again_only_for_what_was_in_flight(tmp_path: Path) -> None:
    with Loopback(answer=answer, latency=0.05) as server:
        command = [sys.executable, "-c", RUN, str(tmp_path), server.url]
        first = subprocess.Popen(command)
        while len(server.asked) < 30 and first.poll() is None:
            time.sleep(0.01)
        first.kill()
        assert first.wait() == -signal.SIGKILL
        asked = len(server.asked)
        assert 30 <= asked < ROWS and not list(tmp_path.glob("*.parquet")), "nothing was flushed"
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 0, second.stderr
        again = len(server.asked) - asked
    assert ROWS - asked <= again <= ROWS - asked + WORKERS
    assert second.stdout.splitlines() == [f"{again} {ROWS - again}", "{'ok'}"]
    store = ResponseStore(tmp_path)
    assert store.verify() == [] and store.stats()["rows"] == ROWS
