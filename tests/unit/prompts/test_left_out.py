"""What a prompt cuts off is said, in the prompt and beside it; the newest entries stay."""

from __future__ import annotations

from typing import Any

import pytest

from llmers_pipelines.llm.runner import run_task
from llmers_pipelines.llm.template import TemplateEngine
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.prompts.item_summary import ItemSummary
from llmers_pipelines.prompts.task import PromptTask
from llmers_pipelines.prompts.user_preference import UserPreference

LONG = " ".join(["tide"] * 400)  # 1,999 characters


@pytest.mark.parametrize("task", [ItemKnowledge(), ItemSummary()])
def test_long_values_of_an_item(task: PromptTask) -> None:
    row = {"item_id": "1", "title": "Salt " * 50, "description": LONG, "author": "Mira Voss"}
    assert task.left_out(row) == [
        "title: the first 200 of 249 characters",
        "description: the first 1500 of 1999 characters",
    ]
    told = task.render(row)[1]["content"]
    assert all(len(line) < 1520 for line in told.splitlines()) and told.count("…") == 2
    assert task.left_out({"item_id": "1", "title": "Salt", "description": "tide"}) == []
    assert task.left_out({"item_id": "1", "description": LONG[:1400]}) == []


def history(n: int) -> dict[str, Any]:
    return {"user_id": "u", "history": [{"title": f"Item {i}"} for i in range(n)]}


def test_the_newest_entries_of_a_history_are_kept_and_counted() -> None:
    task = UserPreference(max_items=3)
    assert task.left_out(history(3)) == []
    assert task.left_out(history(9)) == ["history: the newest 3 of 9 entries"]
    told = task.render(history(9))[1]["content"]
    assert "the newest 3 of 9" in told and '"Item 8"' in told and '"Item 5"' not in told
    untitled = {"user_id": "u", "history": [{"title": ""}, *history(3)["history"]]}
    assert task.left_out(untitled) == []


def test_what_prompts_left_out_is_a_column_and_a_count() -> None:
    books = [{"item_id": "1", "title": "Salt", "description": LONG}, {"item_id": "2", "title": "x"}]
    result = run_task(ItemKnowledge(), books, TemplateEngine(), None, progress=False)
    said = ["description: the first 1500 of 1999 characters", None]
    assert result.rows["truncated"].to_pylist() == said
    assert result.counts["truncated"] == 1
