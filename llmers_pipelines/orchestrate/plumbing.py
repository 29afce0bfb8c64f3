"""The table of methods whose language model is a tiny one: it shows that their path works.

Such a model knows nothing, so no row says whether a method helps.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..config import Settings
from ..plan import Embed, Generate, Table, Teach, Tune, walk
from ..tuning import TuneSettings
from .build import Loaded, Plan
from .compare import evaluation_of
from .context import StepContext

TINY = "tiny"  # names the tiny model where an experiment names an encoder
TINY_MASKED = "tiny_masked"  # likewise, a masked language model
TITLE = "Plumbing: what runs with a tiny language model"


ANSWERING = "tiny_answers"  # the same with room for long prompts
CONTEXT = {TINY: 1024, ANSWERING: 4096}  # tokens
TOKENS = 40  # most of an answer: what a model that knows nothing says beyond is no better


def with_tiny_model(settings: Settings, *, answers: bool = False, tokens: int = TOKENS) -> Settings:
    """Return ``settings`` that tune, and where they name it encode with, the tiny model.

    With ``answers`` it is asked as well, wherever the data set has no recorded answers; ``tokens``
    is the most of an answer.
    """
    folder, own = settings.data / "plumbing" / settings.dataset, ANSWERING if answers else TINY
    encoder, _, how = settings.encoder.partition("?")
    if encoder in (TINY, TINY_MASKED):
        name = own if encoder == TINY else encoder
        encoder = f"{folder / name}?{how or 'pooling=mean&normalize=0'}"
    else:
        encoder = settings.encoder
    tune = dataclasses.replace(TuneSettings(), model=str(folder / own))
    out = dataclasses.replace(settings, tune=tune, encoder=encoder)
    if not answers:
        return out
    return dataclasses.replace(
        out, engine="hf", model=tune.model, model_revision="", adapter="", recorded_first=True,
        max_tokens=tokens, temperature=1.0,
    )  # fmt: skip


def make_tiny(plan: Plan, settings: Settings) -> None:
    """Train the tiny models on the catalog of the data set, where they are not there yet."""
    from ..data.text import ItemText
    from ..tune.tiny_masked import make_tiny_masked_model
    from ..tune.tiny_model import make_tiny_model
    from .publish import materialize

    ctx = StepContext(settings, settings.dataset)
    items = next(n for n in plan.nodes if isinstance(n, Table) and n.table == "items")
    materialize(items, ctx)
    texts = ItemText().texts(table=ctx.load(items), fields=ctx.field_kinds).texts
    own = Path(settings.tune.model)
    make_tiny_model(own, texts, context=CONTEXT[own.name])
    if settings.encoder.startswith(f"{own.parent / TINY_MASKED}?"):
        make_tiny_masked_model(own.parent / TINY_MASKED, texts)


def plumbing_table(experiments: list[tuple[str, Plan, Settings]]) -> list[str]:
    """Return the section for (name, plan, settings) of each plumbing experiment; none without."""
    if not experiments:
        return []
    lines = [
        f"## {TITLE}", "",
        "A model of some hundred thousand weights (causal; for FLIP a masked one), trained for "
        "seconds on the titles of the catalog, goes through the engine, the tuning, the hidden "
        "states, the scores and the grammar that a real one would. It knows nothing: **no row "
        "claims a lift**, and test metrics stand here only to show that the recommender was "
        "trained to its end. Losses are those of the first and the last epoch; of one epoch, of "
        "the first and the last quarter of its steps.", "",
        "| experiment | method | assets | tuned on | loss, first to last | texts encoded "
        "| rows asked | LLM calls | re-used | quarantined | test metric | base | with the method |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, plan, settings in experiments:
        ctx = StepContext(settings, settings.dataset)
        for method in plan.methods:
            if method.base is not None:
                lines.append(f"| {name} | {method.recipe.name} | {_row(method, ctx)} |")
    return [*lines, ""]


def _row(method: Loaded, ctx: StepContext) -> str:
    manifest = evaluation_of(ctx.manifests, ctx.dataset, method.evaluate)
    nodes = walk([method.train])
    have = {n: ctx.manifests.of(ctx.dataset, n) for n in nodes}
    if manifest is None or None in have.values():
        return "not run yet" + " | " * 10
    tuned = [have[n].counts for n in nodes if isinstance(n, Tune)]
    scored = [have[n].counts for n in nodes if isinstance(n, Teach) and n.how.asks_model]
    asked = [*(have[n].counts for n in nodes if isinstance(n, Generate)), *scored]
    vectors = [have[n].counts for n in nodes if isinstance(n, Embed)]
    sums = [sum(int(c.get(k, 0)) for c in asked) for k in ("llm_calls", "cache_hits")]
    rows = sum(have[n].rows for n in nodes if isinstance(n, Generate))
    rows += sum(int(c[k]) for c in scored for k in ("llm_calls", "cache_hits", "deduped"))
    quarantined = sum(int(c.get("quarantined", 0)) for c in asked)
    metrics: dict[str, Any] = manifest.info["metrics"]
    primary = str(manifest.info["primary"])
    test = (metrics.get(f"base {primary}"), metrics.get(primary))
    return " | ".join([
        str(len(nodes)),
        ", ".join(f"{have[n].rows} examples" for n in nodes if isinstance(n, Tune)) or "-",
        ", ".join(f"{c['first_loss']:.3f} to {c['last_loss']:.3f}" for c in tuned) or "-",
        str(sum(int(c.get("distinct", 0)) for c in vectors)),
        str(rows), str(sums[0]), str(sums[1]), str(quarantined), primary,
        *("-" if value is None else f"{value:.4f}" for value in test),
    ])  # fmt: skip
