"""``make demo``: the bundled sample through everything, a leaderboard, and what to open next."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from .config import Settings, load_settings

DATASET = "sample"
_NEXT = (
    ("up", "the asset graph in Dagster's UI, runs in MLflow's"),
    ("recommend -d sample -u u0001 --explain", "from the champion, with reasons"),
    ("trace item_summaries/item_summary b0003 -d sample", "where a text came from"),
    ("datasets add --help", "your own catalog"),
)
LATER = ("llm_esr", "llm_init")  # minutes on two cores, so that the demo stays below four


def main() -> int:
    """Run the demo; return the exit status. A failing step is named with its mend."""
    started = time.perf_counter()
    say = lambda text: print(text, flush=True)  # noqa: E731
    settings = _step("read llmers.toml", "mend the line that it names", _settings)
    plan = _step("build the plan", "mend llmers.toml or the recipe that it names",
                 lambda: _plan(settings))  # fmt: skip
    _step("check the sample", "restore data/sample from version control",
          lambda: _check_sample(settings))  # fmt: skip
    say(f"{len(plan.nodes)} assets of {len(plan.methods)} methods on the bundled sample "
        f"(state: {settings.home})")  # fmt: skip
    report = _step("materialize", "run `llmers doctor`, then `make demo` again: what is done stays",
                   lambda: _materialize(plan, settings, say))  # fmt: skip
    board = _step("compare", "run `llmers status --dataset sample`",
                  lambda: _leaderboard(settings))  # fmt: skip
    say("\n" + board)
    user = _step("recommend", "run `llmers status --dataset sample`", lambda: _recommend(settings))
    say("\n" + user)
    made = sum(r["status"] == "materialized" for r in report["assets"])
    reused = sum(r["status"] == "reused" for r in report["assets"])
    calls = sum(r["llm_calls"] for r in report["assets"])
    say(f"\n{made} assets materialized, {reused} re-used, {calls} LLM calls, "
        f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    if not made:
        say("Nothing changed since the last run, so everything was re-used.")
    say("\nNext:")
    for command, what in _NEXT:
        say(f"  .venv/bin/llmers {command:55} {what}")
    return 0


def _step(name: str, mend: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:  # a step and its mend are told, not a traceback
        print(f"\ndemo failed at step {name!r}: {error}\nmend: {mend}", file=sys.stderr)
        if "--debug" in sys.argv:
            raise
        sys.exit(1)


def _settings() -> Settings:
    settings = load_settings(dataset=DATASET)
    settings.apply_environment()
    return settings


def _plan(settings: Settings) -> Any:
    from .orchestrate.build import build_plan

    return build_plan(settings)


def _check_sample(settings: Settings) -> None:
    from .data.registry import find_dataset

    find_dataset(DATASET, settings.home)


def _materialize(plan: Any, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    from .data.registry import find_dataset
    from .orchestrate.applicable import applicable
    from .orchestrate.launch import launch

    wanted = [m.slug for m in plan.methods if m.recipe.slug not in LATER]
    nodes, left = applicable(plan, plan.select(wanted), find_dataset(DATASET, settings.home))
    for method in (m for m in plan.methods if m.recipe.slug in LATER):
        left[method.slug] = f"takes longer; run `llmers run {method.slug}`"
    for name, why in left.items():
        say(f"  left out: {name}: {why}")
    total = len(nodes)
    done = [0]

    def on_step(name: str, status: str, seconds: float) -> None:
        done[0] += 1
        if status == "materialized":
            say(f"  {done[0]:3}/{total}  {name:58} {seconds:6.1f} s")

    report = launch(plan, nodes, DATASET, settings, on_step=on_step)
    failed = [r for r in report["assets"] if r["status"] not in ("materialized", "reused")]
    if failed:
        first = next((r for r in failed if r.get("error")), failed[0])
        raise RuntimeError(f"{first['key']}: {first.get('error', first['status'])}")
    return report


def _leaderboard(settings: Settings) -> str:
    from .orchestrate.compare import collect, leaderboard

    return leaderboard(settings, DATASET, collect(settings, DATASET, None))


def _recommend(settings: Settings) -> str:
    from .orchestrate.serving import recommend

    answer = recommend(settings, DATASET, None, "u0001", 5)
    lines = [f"top 5 for user u0001 from {answer['model']} version {answer['version']}:"]
    lines += [f"  {i['score']:8.3f}  {i['title']}" for i in answer["items"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
