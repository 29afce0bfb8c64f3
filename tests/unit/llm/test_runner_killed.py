"""A run that is killed loses at most what was not yet flushed, and goes on from there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from llmers_pipelines.store.responses import ResponseStore

KILLED = """
import sys
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.store.responses import ResponseStore
rows = [{"item_id": str(n), "title": f"Volume {n}"} for n in range(40)]
replies = {r["item_id"]: r["title"] + " follows two sisters in a lighthouse." for r in rows}
engine = FakeEngine(replies, kill_after=int(sys.argv[2]))
result = run_task(ItemKnowledge(), rows, engine, ResponseStore(sys.argv[1]), flush_rows=10,
                  progress=False)
print(result.counts["llm_calls"], result.counts["cache_hits"], len(engine.asked))
print(set(result.rows["status"].to_pylist()))
"""


def test_a_killed_run_loses_at_most_one_flush(tmp_path: Path) -> None:
    def run(kill_after: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(kill_after)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run(27).returncode == -signal.SIGKILL
    assert ResponseStore(tmp_path).stats()["rows"] == 20  # 27 were paid, 7 not yet flushed
    again = run(0)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == ["20 20 20", "{'ok'}"]
    assert ResponseStore(tmp_path).verify() == []
