"""One factory for all verbs: a node becomes a Dagster asset with its checks.

No postponed annotations here: Dagster reads the types of ``compute`` as objects.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from ..config import Settings
from ..plan import Derive, Embed, Generate, Node, Table, Teach, Train
from ..store.manifests import CheckOutcome
from .build import Plan
from .checks import CheckKind, checks_of
from .context import StepContext, StepError
from .metadata import metadata_of
from .publish import materialize

DATASETS = dg.DynamicPartitionsDefinition(name="dataset")
OWNERS = ("team:llmers",)

_KINDS = {
    "table": {"duckdb", "parquet"}, "generate": {"llm", "parquet"}, "embed": {"huggingface"},
    "derive": {"numpy"}, "train": {"pytorch"}, "evaluate": {"parquet"}, "register": {"mlflow"},
    "champion": {"mlflow"}, "pin": {"parquet"}, "teach": {"parquet"}, "distill": {"pytorch"},
}  # fmt: skip
_POOLS = {"generate": "llm", "embed": "accelerator", "train": "accelerator",
          "teach": "accelerator", "distill": "accelerator"}  # fmt: skip
_SUMMARY = {
    "generate": "Answers of the language model, parsed, validated and grounded, one row per {}.",
    "embed": "One text vector per row, with an id index and a mask of rows that carry text.",
    "evaluate": "Metrics against the base and the controls, with intervals.",
    "register": "The served bundle as an MLflow model version.",
    "champion": "The gate: moves the alias `champion` when a candidate beats it on validation.",
    "pin": "A version that stands until it is moved on purpose.",
}


# What may change from run to run without changing what is made. One schema object for all assets:
# a class would be read anew for each of them.
STEP_CONFIG = dg.Field(
    dg.Shape(
        {
            "force": dg.Field(bool, default_value=False, description="Do the work again."),
            "device": dg.Field(str, default_value="", description="cpu, cuda or auto."),
            "budget_calls": dg.Field(int, default_value=0, description="LLM calls; 0 = no bound."),
            "budget_tokens": dg.Field(int, default_value=0, description="Tokens; 0 = no bound."),
            "budget_money": dg.Field(float, default_value=0.0, description="Money; 0 = no bound."),
        }
    ),
    is_required=False,
)


OLDER = "the stored version was made before this check; `llmers run {} --force` has it checked"


def key_of(node: Node) -> dg.AssetKey:
    return dg.AssetKey(list(node.key))


def describe(node: Node, plan: Plan) -> str:
    """Return the description of an asset, from the docstrings of what it is made of."""
    part: Any = None
    if isinstance(node, Generate):
        part, lead = node.task, _SUMMARY["generate"].format(node.task.entity)
    elif isinstance(node, Embed):
        part, lead = node.text, _SUMMARY["embed"]
    elif isinstance(node, (Derive, Teach)):
        part, lead = node.how, ""
    elif isinstance(node, Train):
        part, lead = node.backbone, ""
        owner = next((m for m in plan.methods if m.train == node), None)
        if owner is not None:
            part, lead = None, owner.recipe.doc
    elif isinstance(node, Table):
        lead = {
            "items": "The validated catalog.",
            "users": "Known users, with what the data set says of them.",
            "interactions": "Validated interactions of known users and items.",
            "splits": f"The log of the task `{node.task}` with id maps and splits.",
            "kg": "Facts beside the log: head_id, relation, tail_id.",
            "kg_link": "The entity of each item in the facts beside the log.",
        }.get(node.table, f"The table `{node.table}` that lies beside the log.")
    else:
        lead = _SUMMARY[node.verb]
    doc = inspect.getdoc(type(part)) or "" if part is not None else ""
    users = ", ".join(plan.owners.get(node, ()))
    used = f"\n\nUsed by: {users}." if users else ""
    return f"{lead} {doc}".strip() + used


def tags_of(node: Node, plan: Plan) -> dict[str, str]:
    """Return `method/<name>` and `family/<name>` tags of every method that uses the node."""
    tags: dict[str, str] = {"llmers/verb": node.verb}
    families = {m.slug: m.recipe.family for m in plan.methods}
    for slug in plan.owners.get(node, ()):
        tags[f"method/{slug[:63]}"] = ""
        if slug in families:
            tags[f"family/{families[slug]}"] = ""
    return tags


def _pool(node: Node) -> str | None:
    return "llm" if _asks(node) else _POOLS.get(node.verb)


def _asks(node: Node) -> bool:
    """Say whether a teacher is a language model that is asked in this step."""
    return isinstance(node, Teach) and node.how.asks_model


def asset_for(
    node: Node,
    plan: Plan,
    settings: Settings,
    on_step: Callable[[str, str, float], None] | None = None,
) -> dg.AssetsDefinition:
    """Return the asset of ``node``; overrides outside of the digest come as run config.

    ``on_step(name, status, seconds)`` is told of each finished step (runs in this process).
    """

    @dg.asset(
        key=key_of(node),
        deps=[key_of(n) for n in node.inputs],
        partitions_def=DATASETS,
        group_name=node.prefix,
        code_version=node.code_version,
        kinds=_KINDS[node.verb] | ({"llm"} if _asks(node) else set()),
        owners=OWNERS,
        description=describe(node, plan),
        tags=tags_of(node, plan),
        pool=_pool(node),
        retry_policy=(
            dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)
            if node.verb == "generate"
            else None
        ),
        output_required=False,
        config_schema=STEP_CONFIG,
    )
    def compute(context: dg.AssetExecutionContext) -> Iterator[Any]:
        config = context.op_execution_context.op_config or {}  # None where a run gives none
        limits = {k: v for k, v in config.items() if v and k != "force"}
        ctx = StepContext(
            settings,
            context.partition_key,
            run_id=context.run_id,
            log=context.log.info,
            limits=limits,
        )
        try:
            done = materialize(node, ctx, force=config.get("force", False))
        except (StepError, ValueError) as error:
            # What they say needs a person: another attempt would wait, or spend a budget again.
            told = getattr(error, "report", {})
            raise dg.Failure(str(error), metadata=told, allow_retries=False) from error
        if on_step is not None:
            on_step(node.name, done.status, done.seconds)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(done.manifest.data_version),
            metadata=metadata_of(node, done, settings),
        )

    return compute


def checks_for(node: Node, settings: Settings) -> dg.AssetChecksDefinition | None:
    """Return the checks of ``node``; the step computes them, these report what it found."""
    kinds = checks_of(node, settings.safety)
    if not kinds:
        return None
    key = key_of(node)
    with warnings.catch_warnings():
        # Partitioned checks are a preview of this Dagster version (pinned below 1.14): without
        # them one data set's outcome would hide another's.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                k.name,
                asset=key,
                blocking=k.blocking,
                description=k.description,
                partitions_def=DATASETS,
            )
            for k in kinds
        ]

    @dg.multi_asset_check(name=f"checks__{'__'.join(node.key)}", specs=specs)
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        ctx = StepContext(settings, context.partition_key)
        manifest = ctx.manifests.current(ctx.dataset, node.name)
        found = {c.name: c for c in manifest.checks} if manifest else {}
        for kind in kinds:
            yield _result(kind, found.get(kind.name), key)

    return check


def _result(kind: CheckKind, found: CheckOutcome | None, key: dg.AssetKey) -> dg.AssetCheckResult:
    """Report an outcome. One that is missing warns: its version is older than the check.

    (A step that leaves a blocking check out publishes nothing, so no new version lacks one.)
    """
    passed = found is not None and found.passed
    older = {"why": OLDER.format("/".join(key.path))}
    details = dict(found.details) if found is not None else older
    blocks = kind.blocking and found is not None
    severity = dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        asset_key=key, check_name=kind.name, passed=passed, severity=severity,
        metadata={k: _plain(v) for k, v in details.items()},
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
