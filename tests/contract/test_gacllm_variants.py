"""GaCLLM without rounds: raw texts of items and of users, of whom columns are named."""

from __future__ import annotations

from llmers_pipelines.testing.contract import RecipeContract


class TestRawTextsOfUsers(RecipeContract):
    recipe, backbone = "gacllm", "lightgcn"
    settings = {"rounds": 0, "alignment": 0.0, "user_fields": ("age",)}  # noqa: RUF012
