"""One factory for all verbs: a node becomes a Dagster asset with its checks.

No postponed annotations here: Dagster reads types as objects.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter, Signature
from typing import Any

import dagster as dg

from ..config import Settings
from ..plan import Node, Train, walk
from ..store.formats import StoreError
from ..store.manifests import CheckOutcome, Manifest, ManifestStore
from .applicable import lacks_task
from .attempts import Wishes
from .build import Plan
from .checks import CheckKind, checks_of
from .context import StepContext, StepError
from .describe import describe, kinds_of, pool_of, tags_of, uses_device
from .events import is_one_of_many, observe, tell_experiment, tell_table, threads, told_end
from .metadata import metadata_of
from .publish import Published, materialize
from .run_config import EXPERIMENT, applied, check_run, given, schema_of

DATASETS = dg.DynamicPartitionsDefinition(name="dataset")
OWNERS = ("team:llmers",)

OLDER = "the stored version was made before this check; `llmers run {} --force` has it checked"


# Dagster asks for a step's signature twenty times an asset and finds it out anew, where none is
# stated.
_SIGNATURE = Signature(
    [Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=dg.AssetExecutionContext)]
)


def key_of(node: Node) -> dg.AssetKey:
    return dg.AssetKey(list(node.key))


def asset_for(
    node: Node,
    plan: Plan,
    settings: Settings,
    on_step: Callable[[str, str, float], None] | None = None,
) -> dg.AssetsDefinition:
    """Return the asset of ``node``; overrides outside of the digest come as run config.

    ``on_step(name, status, seconds)`` is told of each finished step (runs in this process).
    """
    key, kinds = key_of(node), checks_of(node, settings.safety)
    on_device = uses_device(node, settings)
    spec = dg.AssetSpec(
        key,
        deps=[key_of(n) for n in node.inputs],
        partitions_def=DATASETS,
        group_name=node.prefix,
        code_version=node.code_version,
        kinds=kinds_of(node),
        owners=OWNERS,
        description=describe(node, plan),
        tags=tags_of(node, plan, settings),
        skippable=True,
    )

    def compute(context: dg.AssetExecutionContext) -> Iterator[Any]:
        chosen = {c.name for c in context.selected_asset_check_keys}
        wanted = [k for k in kinds if k.name in chosen]
        if key not in context.selected_asset_keys:
            yield from _checks_alone(context, wanted, node, settings)
            return
        config = given(context.op_execution_context.op_config)
        limits = {k: v for k, v in config.items() if k not in ("force", EXPERIMENT)}
        ctx = StepContext(
            applied(settings, limits),
            context.partition_key,
            run_id=context.run_id,
            log=context.log.info,
            limits=limits,
            event=lambda text, figures: observe(context, node, text, figures),
        )
        try:
            if (why := lacks_task(node, ctx.description)) and is_one_of_many(context):
                context.log.warning(f"{why}: what reads {node.name} is skipped")
                return
            check_run(context.run.run_config.get("ops", {}), plan, settings)
            with threads(limits.get("threads", 0)):
                if EXPERIMENT in config:
                    tell = tell_experiment if isinstance(node, Train) else tell_table
                    tell(context, node, config[EXPERIMENT], ctx)
                    return  # no version, and what is downstream is skipped
                done = _made(node, plan, ctx, context, force=config.get("force", False))
        except (StepError, StoreError, ValueError) as error:
            # What they say needs a person: another attempt would wait, or spend a budget again.
            context.log.error(str(error))  # in one line, before the frames that nobody asked for
            told = getattr(error, "report", {})
            if told.get("state") == "budget reached":  # the list of runs says how this one ended
                context.instance.add_run_tags(context.run_id, {
                    "llmers/ended": "budget reached",
                    "llmers/missing": f"{told.get('missing', 0)} rows of {node.name}",
                })  # fmt: skip
            raise dg.Failure(str(error), metadata=told, allow_retries=False) from error
        context.log.info(told_end(node, done))
        if on_step is not None:
            on_step(node.name, done.status, done.seconds)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(done.manifest.data_version),
            metadata=metadata_of(node, done, settings),
            check_results=_results(wanted, done.manifest, key),
        )

    compute.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
    return dg.multi_asset(
        name="__".join(node.key),
        specs=[spec],
        check_specs=_check_specs(kinds, key),
        can_subset=True,  # checks alone, or what an experiment leaves unmade
        op_tags=settings.gpu.tags() if on_device and settings.device != "cpu" else None,
        pool=pool_of(node, settings),
        retry_policy=(
            dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)
            if node.verb == "generate"
            else None
        ),
        config_schema=schema_of(node, settings),
    )(compute)


def _made(
    node: Node, plan: Plan, ctx: StepContext, context: dg.AssetExecutionContext, *, force: bool
) -> Published:
    """Materialize ``node``; where that fails or is held, remember what the run leaves unmade."""
    try:
        done = materialize(node, ctx, force=force)
    except Exception:  # whatever it was: what the run leaves unmade is noted, and it is raised
        _wish(node, plan, ctx, context)
        raise
    if done.manifest.held_by:
        _wish(node, plan, ctx, context)
    return done


def _wish(node: Node, plan: Plan, ctx: StepContext, context: dg.AssetExecutionContext) -> None:
    selected = context.job_def.asset_layer.selected_asset_keys
    left = [n.name for n in plan.nodes if key_of(n) in selected and node in walk([n])]
    Wishes(ctx.settings).note(ctx.dataset, node.name, left)


def _check_specs(kinds: Sequence[CheckKind], key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Partitioned checks are a preview of this Dagster version (pinned below 1.14): without
        # them one data set's outcome would hide another's.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                k.name,
                asset=key,
                blocking=k.blocking,
                description=k.description,
                partitions_def=DATASETS,
            )
            for k in kinds
        ]


def _results(
    kinds: Sequence[CheckKind], manifest: Manifest | None, key: dg.AssetKey
) -> list[dg.AssetCheckResult]:
    """Report what the step that made a version found."""
    found = {c.name: c for c in manifest.checks} if manifest else {}
    return [_result(kind, found.get(kind.name), key) for kind in kinds]


def _checks_alone(
    context: dg.AssetExecutionContext, kinds: Sequence[CheckKind], node: Node, settings: Settings
) -> Iterator[dg.AssetCheckResult]:
    """Report what the stored version has: of the run's data set, or of all, each by its name.

    Dagster's button "Execute all" beside an asset's checks asks for no data set.
    """
    store = ManifestStore(settings.data)
    asked = [context.partition_key] if context.has_partition_key else store.datasets()
    found = {d: store.current(d, node.name) for d in asked}
    stored = {d: m for d, m in found.items() if m is not None}
    if context.has_partition_key or not stored:
        yield from _results(kinds, next(iter(stored.values()), None), key_of(node))
        return
    of = {d: _results(kinds, manifest, key_of(node)) for d, manifest in stored.items()}
    for place, kind in enumerate(kinds):
        failed = [results[place] for results in of.values() if not results[place].passed]
        worst = max(failed, key=lambda r: r.severity == dg.AssetCheckSeverity.ERROR, default=None)
        yield dg.AssetCheckResult(
            asset_key=key_of(node), check_name=kind.name, passed=worst is None,
            severity=worst.severity if worst else dg.AssetCheckSeverity.WARN,
            metadata={d: "passed" if results[place].passed else "failed: " + ", ".join(
                f"{k} {v.value}" for k, v in results[place].metadata.items()
            ) for d, results in of.items()},
        )  # fmt: skip


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
