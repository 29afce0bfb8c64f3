"""What the views of a data set say: lifts under each of them, and planted noise that was found."""

from __future__ import annotations

from ..config import Settings
from .build import Plan
from .compare import collect
from .context import StepContext

# name, view, plan, settings, and whether its language model is a tiny one
Viewed = tuple[str, str, Plan, Settings, bool]


def views_table(viewed: list[Viewed]) -> list[str]:
    """Return the lift of each method under each view of its data set; none without views."""
    from ..evaluate.report import between, number, percent

    lines = []
    for name, view, plan, settings, tiny in viewed:
        if tiny:  # of which no lift is told
            continue
        chosen = [m.evaluate for m in plan.methods]
        rows = collect(settings, settings.dataset, None, chosen, as_run=True)
        lines += [
            f"| {name} | {view or 'as it is'} | {r['method']} | {r['primary']} | "
            f"{number(r['base'])} | {number(r['enhanced'])} | "
            f"{number(r['difference'], signed=True)} | {between(r['low'], r['high'])} | "
            f"{percent(r['relative'])} |"
            for r in rows
            if not r["is_baseline"] and r["slice"] == "all" and r["metric"] == r["primary"]
        ]  # fmt: skip
    if not lines:
        return []
    return [
        "## The same methods on other sights of the data", "",
        "`shareNN`: that percentage of each user's training rows, smaller shares inside of larger "
        "ones; `usersNN`: all training rows of that percentage of the users, nested as well. The "
        "held-out rows are the same, so under `usersNN` those of the other users have no training "
        "history. `opaque`: titles are tokens without meaning, free "
        "texts and undeclared columns are empty, categories stay, and recorded answers, which were "
        "written by titles, are not used; what a lift loses there came from knowledge of the "
        "titles, or from a memory of the data. `noiseNN`: that percentage of the training rows "
        "holds a random item.", "",
        "| experiment | view | method | metric | base | enhanced | difference | 95 % interval "
        "| relative |", "|---|---|---|---|---|---|---|---|---|", *lines, "",
    ]  # fmt: skip


def planted_table(viewed: list[Viewed]) -> list[str]:
    """Return how much of the planted noise each method found; none where none was planted."""
    lines = []
    for name, view, plan, settings, tiny in viewed:
        ctx = StepContext(settings, settings.dataset)
        for node in plan.nodes:
            manifest = ctx.manifests.current(ctx.dataset, node.name)
            if not view.startswith("noise") or manifest is None or "by_chance" not in (
                c := manifest.counts
            ):  # fmt: skip
                continue
            lines.append(
                f"| {name} | {'a tiny model' if tiny else 'as configured'} | `{node.name}` | "
                f"{c['scored']:,} | {c['injected_scored']:,} | {c['selected']:,} | "
                f"{c['recall']:.3f} | {c['precision']:.3f} | {c['by_chance']:.3f} |"
            )
    if not lines:
        return []
    return [
        "## Planted noise that was found", "",
        "Random items were put in the place of training rows; a method names the positions that "
        "it takes for noise. Chance is the share of planted ones among all scored positions.", "",
        "| experiment | model | asset | positions scored | planted among them | named | recall "
        "| precision | precision by chance |", "|---|---|---|---|---|---|---|---|---|", *lines, "",
    ]  # fmt: skip
