"""One experiment on several sights of its data set: shares of rows and users, titles hidden."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shop import EXPERIMENT, Shop, same_environment

from llmers_pipelines.config import ConfigError
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.context import StepContext
from llmers_pipelines.orchestrate.results import load_experiments, run_experiment, write_results
from llmers_pipelines.orchestrate.steps.generate import engine_for
from llmers_pipelines.plan import Generate, PlanError

LIST = EXPERIMENT.replace(
    "controls = []", 'controls = []\nviews = ["share50", "users50", "opaque", ""]'
)


def test_a_lift_per_sight(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "home")
    for name, column in (("items", "address"), ("interactions", "review")):  # nobody declares them
        shop.write(name, [{**r, column: f"Book {n}"} for n, r in enumerate(shop.read(name))])
    listed, out = tmp_path / "list.toml", tmp_path / "results.md"
    listed.write_text(LIST)
    experiments = load_experiments(listed)
    assert [e.name for e in experiments] == [
        "shop, summaries, seen as share50", "shop, summaries, seen as users50",
        "shop, summaries, seen as opaque", "shop, summaries",
    ]  # fmt: skip
    rows: dict[str, int] = {}
    with same_environment():
        base = shop.settings()
        for experiment in experiments:
            failed = run_experiment(experiment, base, lambda *a: None)
            assert failed == [], [f"{r['key']}: {r.get('error', r['status'])}" for r in failed]
            settings = experiment.settings(base)
            ctx, plan = StepContext(settings, "shop"), build_plan(settings)
            log = next(n for n in plan.nodes if n.verb == "table" and n.table == "splits")
            rows[experiment.view] = ctx.manifest(log).counts["train"]
            said = next(n for n in plan.nodes if isinstance(n, Generate) and not n.llm)
            engine = engine_for(said, ctx)[0].info.kind
            items = next(n for n in plan.nodes if n.verb == "table" and n.table == "items")
            titles = ctx.load(items)["title"].to_pylist()
            tables = [ctx.load(n).to_pylist() for n in plan.nodes
                      if n.verb == "table" and n.view == "opaque"]  # fmt: skip
            if experiment.view == "opaque":
                told = {n.name for n in plan.nodes if n.verb == "table" and n.view == "opaque"}
                assert told == {"catalog/items__opaque", "catalog/interactions__opaque",
                                "catalog/users__opaque"}  # fmt: skip
                assert engine == "template" and not any("Book" in t for t in titles)
                assert len(tables) > 1 and "Book" not in str(tables)
                told = pq.read_table(ctx.manifests.path(ctx.manifest(said)) / "rows.parquet")
                assert not any("Book" in t for t in told["text"].to_pylist())
            else:
                assert engine == "recorded" and all("Book" in t for t in titles)
        write_results(experiments, base, "llmers results", out)
        again = [run_experiment(e, base, lambda *a: None) for e in experiments]
    assert again == [[], [], [], []]
    assert rows == {"share50": 40 * 4, "users50": 20 * 7, "opaque": 40 * 7, "": 40 * 7}
    table = out.read_text().split("## The same methods on other sights")[1].splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in table if "| llm2x" in line]
    assert [c[1] for c in cells] == ["share50", "users50", "opaque", "as it is"]
    assert all(c[3] == "ndcg@10" and float(c[4]) > 0 and float(c[5]) > 0 for c in cells)
    assert len({c[4] for c in cells}) == 3, "titles change nothing of the base, fewer rows do"


def test_what_is_no_view_is_named(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "home")
    with pytest.raises(PlanError, match="expected 'opaque'"):
        build_plan(shop.settings(view="share0"))
    listed = tmp_path / "list.toml"
    listed.write_text(LIST.replace("views", "sights"))
    with pytest.raises(ConfigError, match="shop, summaries"):
        load_experiments(listed)
