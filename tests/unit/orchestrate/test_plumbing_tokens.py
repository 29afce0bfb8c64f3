from __future__ import annotations

from pathlib import Path

from llmers_pipelines.config import Settings
from llmers_pipelines.orchestrate.plumbing import TOKENS
from llmers_pipelines.orchestrate.results import load_experiments

LIST = """
[[experiment]]
name = "shop, reasoned"
dataset = "shop"
plumbing = true
answers = "tiny"
tokens = 400
methods = [{ recipe = "llmrg" }]

[[experiment]]
name = "shop, brief"
dataset = "shop"
plumbing = true
answers = "tiny"
methods = [{ recipe = "llmrg" }]
"""


def test_an_experiment_says_how_long_answers_may_be(tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(LIST)
    long, brief = (e.settings(Settings(home=tmp_path)) for e in load_experiments(listed))
    assert (long.max_tokens, brief.max_tokens) == (400, TOKENS)
    assert long.engine == brief.engine == "hf"
