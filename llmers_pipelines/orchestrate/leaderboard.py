"""``evaluations/leaderboard``: what has been evaluated on a data set, side by side.

It reads whatever evaluations there are and makes none; it is no node of the plan.

No postponed annotations here: Dagster reads the types of ``compute`` as objects.
"""

from typing import Any

import dagster as dg

from ..config import Settings
from ..plan import Evaluate, sha
from .build import Plan
from .compare import collect, leaderboard
from .factories import DATASETS, OWNERS, key_of

KEY = dg.AssetKey(["evaluations", "leaderboard"])


def leaderboard_asset(plan: Plan, settings: Settings) -> dg.AssetsDefinition:
    """Return the asset; its report is also written to ``reports/<data set>.md``."""
    evaluations = [n for n in plan.nodes if isinstance(n, Evaluate)]

    @dg.asset(
        key=KEY,
        deps=[key_of(n) for n in evaluations],
        partitions_def=DATASETS,
        group_name="evaluations",
        code_version="1",
        kinds={"markdown"},
        owners=OWNERS,
        tags={"llmers/verb": "report", "llmers/cost": "little"},
        description="All methods of a data set side by side, best first, with intervals.\n\n"
        "It shows the evaluations that there are and makes none. A lift is claimed only where "
        "the base is strong, the interval excludes zero and every control is beaten.",
    )
    def compute(context: dg.AssetExecutionContext) -> Any:
        dataset = context.partition_key
        rows = collect(settings, dataset, None, only=evaluations)
        if not rows:
            raise dg.Failure(
                f"nothing of data set {dataset!r} has been evaluated yet; materialize an asset of "
                "the group evaluations first",
                allow_retries=False,
            )
        report = leaderboard(settings, dataset, rows)
        path = settings.data / "reports" / f"{dataset}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report, encoding="utf-8")
        heads = [r for r in rows if r["slice"] == "all" and r["metric"] == r["primary"]]
        best = {
            f"best {task}": max((r for r in heads if r["task"] == task),
                                key=lambda r: r["enhanced"] or 0)["method"]
            for task in sorted({r["task"] for r in heads})
        }  # fmt: skip
        claimed = sorted(r["method"] for r in heads if r["verdict"] == "claimed")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sha(report)),
            metadata={
                "dagster/row_count": len(heads), **best,
                "lifts claimed": ", ".join(claimed) or "none",
                "report": dg.MetadataValue.md(report), "path": dg.MetadataValue.path(str(path)),
            },
        )  # fmt: skip

    return compute
