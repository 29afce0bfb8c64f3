"""Names of tasks, and what models of each of them read. Serving imports this, so it is plain."""

from __future__ import annotations

TASKS = (
    "ctr", "collaborative", "sequential", "session", "news", "rating", "multi_scenario",
    "retrieval", "set", "cross_domain",
)  # fmt: skip

CLICK_TASKS = ("ctr", "multi_scenario", "news")  # rows have a label; models predict a click
FIELD_TASKS = (*CLICK_TASKS, "rating")  # models read declared columns of items and users
TEXT_TASKS = ("news", "retrieval")  # models read the words of items
