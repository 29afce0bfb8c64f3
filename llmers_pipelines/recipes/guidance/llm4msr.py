"""LLM4MSR (CIKM'24): meta networks write layers of a multi-scenario model from an LLM's states.

The LLM adds: a text about each scenario (from counts and most met items) and about each user (from
the history, scenario by scenario), and the hidden state of each text.
Served online: the multi-scenario model and the written layers of each user and scenario as plain
tables; no LLM.
Deviations: the state is the configured encoder's of the answer; with the folder of the answering
model and ``?pooling=last`` it is that model's own, of the answer without its prompt (the answer is
generated once and kept). Meta layers are narrow, have a residual, and start as no layer at all.
"""

from __future__ import annotations

from llmers_pipelines.api import (
    STAR, AnswerText, Derive, Embed, Generate, MetaLayers, ScenarioFacts, ScenarioPreference,
    ScenarioReasoning, Train, items, recipe, splits, users,
)  # fmt: skip


@recipe(
    name="LLM4MSR", task="multi_scenario", family="guidance", paper="arXiv:2406.12529",
    requires=("label", "scenario"),
)  # fmt: skip
def llm4msr(
    backbone=STAR(), width=8, layers=1, level="both", scale=1.0, protocol="multi_scenario"
):
    log = splits(protocol)
    text = AnswerText(fallback="none")
    facts = Derive(ScenarioFacts(), log, items)
    scenario = Embed(text, over=Generate(ScenarioReasoning(), over=facts))
    asked = Generate(ScenarioPreference(), over=users, context=(log, items))
    meta = MetaLayers(
        user=Embed(text, over=asked) if level in ("both", "user") else None,
        scenario=scenario if level in ("both", "scenario") else None,
        width=width, layers=layers, scale=scale,
    )  # fmt: skip
    return Train(backbone, log, fuse=(meta,))
