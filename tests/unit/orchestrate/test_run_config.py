"""The form of a run, what goes with an asset in the graph, and what a running step tells."""

from __future__ import annotations

import dataclasses
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.execution.api import create_execution_plan

from llmers_pipelines.config import Method, Settings, load_settings
from llmers_pipelines.gpu import Gpu, read_gpu
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.describe import describe, pool_of, tags_of, uses_device
from llmers_pipelines.orchestrate.factories import asset_for
from llmers_pipelines.orchestrate.markdown import fitting, plain
from llmers_pipelines.orchestrate.plots import histogram, inline
from llmers_pipelines.orchestrate.progress import Reporter, asked, encoded, stepped, trained
from llmers_pipelines.orchestrate.run_config import applied, config_for, given, schema_of
from llmers_pipelines.plan import Champion, Embed, Generate, Train, snake, walk

CHOICE = Settings(
    methods=(Method("knnblend"), Method("sasrec"), Method("llm_esr"), Method("kar")),
    encoder="minilm",
)


@pytest.fixture(scope="module")
def plan() -> Any:
    return build_plan(CHOICE)


def first(plan: Any, kind: type, start: str = "") -> Any:
    return next(n for n in plan.nodes if isinstance(n, kind) and n.slug.startswith(start))


def test_assets_of_one_kind_share_one_form(plan: Any) -> None:
    trained = [n for n in plan.nodes if isinstance(n, Train)]
    others = {id(schema_of(n, CHOICE)) for n in plan.nodes if n not in trained}
    assert len(others) <= 7 < len(plan.nodes) - len(trained)  # with or without a model below
    models = {(n.backbone, n.parts) for n in trained}
    assert len({id(schema_of(n, CHOICE)) for n in trained}) == len(models)
    fields = schema_of(first(plan, Train), CHOICE)
    assert set(fields) == {"force", "device", "threads", "warm_start", "experiment"}
    assert fields["device"].default_value == "configured"
    asking = schema_of(first(plan, Generate), CHOICE)
    assert {"endpoint", "dtype", "concurrency", "budget_money"} <= set(asking)
    assert all(f.description for f in (*fields.values(), *asking.values()))


@pytest.mark.parametrize(
    ("config", "why"),
    [({"threads": 513}, "513 is out of range: 1 to 512, or 0"),
     ({"threads": -1}, "-1 is out of range"),
     ({"experiment": {"lr": 99.0}}, "99.0 is out of range: 1e-08 to 10"),
     ({"experiment": {"epochs": 0}}, "0 is out of range: 1 to 100000"),
     ({"experiment": {"epochs": 2.5}}, "Int_1_to_100000"),
     ({"experiment": {"lr": "quick"}}, "Float_1e-08_to_10"),
     ({"experiment": {"backbone": {"layers": 0}}}, "0 is out of range: 1 to 100000"),
     ({"experiment": {"backbone": {"depth": 2}}}, 'unexpected config entry "depth"'),
     ({"experiment": {"backbone": {"dropout": "much"}}}, "Float"),
     ({"experiment": {"parts": {"dual_view": {}}}}, 'unexpected config entry "dual_view"')],
)  # fmt: skip
def test_a_launch_out_of_range_makes_no_run(plan: Any, config: dict[str, Any], why: str) -> None:
    """The form names the range as the type; the code location refuses to plan the run."""
    node = first(plan, Train, "sasrec")
    definitions = dg.Definitions([asset_for(n, plan, CHOICE) for n in walk([node])])
    job = definitions.resolve_implicit_global_asset_job_def()
    op = "__".join(node.key)
    with pytest.raises(dg.DagsterInvalidConfigError, match=why):
        create_execution_plan(job, {"ops": {op: {"config": config}}})
    good = {"threads": 0, "experiment": {"lr": 1, "epochs": 3}}
    assert create_execution_plan(job, {"ops": {op: {"config": good}}}).step_keys_to_execute


def test_the_form_of_an_experiment_tells_what_the_asset_has(plan: Any) -> None:
    node = first(plan, Train, "llm_esr")
    experiment = schema_of(node, CHOICE)["experiment"].config_type.fields
    backbone = experiment["backbone"].config_type.fields
    assert {f.name for f in dataclasses.fields(node.backbone)} == set(backbone)
    assert backbone["dim"].description == f"The asset has {node.backbone.dim}."
    assert backbone["dim"].config_type.given_name == "Int_1_to_100000"
    assert "lr" in backbone["fit"].config_type.fields
    parts = experiment["parts"].config_type.fields
    assert set(parts) == {snake(type(p).__name__) for p in node.parts} != set()


def test_only_what_was_given_replaces_a_setting() -> None:
    config = {"device": "configured", "threads": 0, "endpoint": "", "budget_calls": 0,
              "experiment": {"backbone": {}, "parts": {}}, "dtype": "float32"}  # fmt: skip
    assert given(config) == {"dtype": "float32"}
    assert given(None) == {} and applied(CHOICE, {}) is CHOICE
    changed = applied(CHOICE, {"endpoint": "http://a", "threads": 2, "budget_calls": 5})
    assert (changed.endpoint, changed.threads, changed.budget_calls) == ("http://a", 2, 0)


def test_a_wish_for_a_whole_run_reaches_the_forms_that_have_it(plan: Any) -> None:
    wish = {"force": True, "device": "cpu", "budget_calls": 3}
    assert config_for(first(plan, Champion), wish) == {"force": True}
    assert config_for(first(plan, Train), wish) == {"force": True, "device": "cpu"}
    assert config_for(first(plan, Generate), wish) == wish


def test_the_pool_gpu_is_for_what_computes_on_a_device(plan: Any) -> None:
    pools = {n.name: pool_of(n, CHOICE) for n in plan.nodes}
    assert pools["recommenders/sasrec"] == pools["llm_embeddings/item_text"] == "gpu"
    assert pools["evaluations/sasrec"] == "gpu" and pools["recommenders/knnblend"] is None
    assert pools["user_profiles/user_preference"] == "llm" and pools["catalog/items"] is None
    local = Settings(engine="hf", model="m", methods=CHOICE.methods)
    assert pool_of(first(plan, Generate), local) == "gpu"
    assert pool_of(first(plan, Generate, "user_preference__template"), local) == "llm"
    words = Settings(encoder="tfidf", methods=(Method("knnblend"),))
    assert not any(uses_device(n, words) for n in build_plan(words).nodes)


def test_steps_on_a_device_carry_what_a_cluster_gives_them(plan: Any) -> None:
    gpu = read_gpu("x.toml", {"count": 2, "node_selector": {"pool": "a100"}})
    settings = Settings(methods=CHOICE.methods, gpu=gpu)
    tags = asset_for(first(plan, Train, "sasrec"), plan, settings).op.tags
    assert '"nvidia.com/gpu": "2"' in tags["dagster-k8s/config"]
    assert '"pool": "a100"' in tags["dagster-k8s/config"]
    assert '"Count": 2' in tags["llmers/docker"]
    on_cpu = Settings(methods=CHOICE.methods, device="cpu")
    assert "dagster-k8s/config" not in asset_for(first(plan, Train, "sasrec"), plan, on_cpu).op.tags
    assert "dagster-k8s/config" not in asset_for(plan.nodes[0], plan, settings).op.tags
    assert Gpu(count=0).tags() == {}


@pytest.mark.parametrize(
    ("body", "why"), [({"slot": 1}, "unknown setting 'slot'"), ({"count": -1}, "from 0 to 64"),
                      ({"slots": "two"}, "from 0 to 64")],
)  # fmt: skip
def test_a_wrong_gpu_table_is_named(body: dict[str, Any], why: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=why):
        read_gpu("x.toml", body)


def test_the_gpu_table_is_read_from_the_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMERS_CONFIG", "LLMERS_HOME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "llmers.toml"
    path.write_text("[gpu]\nslots = 2\n")
    assert load_settings(config=path, home=tmp_path).gpu.slots == 2


def test_every_asset_is_introduced_by_one_plain_sentence(plan: Any) -> None:
    for node in plan.nodes:
        lead = describe(node, plan).split("\n\n")[0]
        assert 4 <= len(lead.split()) <= 25, (node.name, lead)
        assert "\n" not in lead and lead[0].isupper()
    tags = {n.name: tags_of(n, plan, CHOICE) for n in plan.nodes}
    cost = {name: found["llmers/cost"] for name, found in tags.items()}
    assert cost["user_profiles/user_preference"] == "llm_calls"
    assert cost["user_profiles/user_preference__template"] == "little"
    assert cost["recommenders/sasrec"] == cost["evaluations/sasrec"] == "training"
    assert cost["llm_embeddings/item_text"] == "encoding" and cost["catalog/items"] == "little"
    assert isinstance(first(plan, Embed), Embed)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_told_at_growing_intervals() -> None:
    clock, lines, events = Clock(), [], []
    report = Reporter(lines.append, lambda text, figures: events.append((text, figures)), clock)
    at = []
    for second in range(600):
        clock.now = float(second)
        before = len(lines)
        report(lambda: (f"line {clock.now}", {"n": clock.now}))
        if len(lines) > before:
            at.append(second)
    gaps = np.diff(at)
    assert at[0] == 2 and max(gaps) <= 60 and list(gaps) == sorted(gaps)
    assert 10 <= len(lines) <= 20
    assert len(events) == sum(t >= 10 for t in at), "a short step leaves no events"
    assert events[0][1] == {"n": float(next(t for t in at if t >= 10))}


def test_progress_names_rate_cost_and_time_left() -> None:
    class Bar:
        done, total, tokens, money, rows_per_second, seconds_left = 30, 90, 4500, 0.012, 3.0, 20.0

    text, figures = asked("item_summaries/x", Bar(), "EUR")
    assert text == ("item_summaries/x: 30 of 90 answers, 3.0 rows/s, 4,500 tokens, 0.012 EUR, "
                    "about 20 s left")  # fmt: skip
    assert figures["tokens"] == 4500 and figures["money"] == 0.012
    text, _ = encoded("e", 10, 40, 5.0)
    assert text == "e: 10 of 40 texts encoded, 2.0 rows/s, about 15 s left"
    epoch = {"epoch": 5, "train_loss": 2.5, "valid": 0.25}
    text, figures = trained("sasrec", [epoch], (4, 0.3), 20, 10.0)
    assert text == ("sasrec: epoch 5 of at most 20, loss 2.5000, validation 0.2500, best 0.3000 at "
                    "epoch 4, about 30 s left if it does not stop earlier")  # fmt: skip
    assert figures == {"epoch": 5, "seconds_left_at_most": 30.0, "train_loss": 2.5, "valid": 0.25}
    before = [{**epoch, "epoch": n, "train_loss": 5.0 - n / 2} for n in range(1, 5)]
    _, figures = trained("sasrec", [*before, epoch], (4, 0.3), 20, 10.0)
    picture = str(figures["plot of epochs"])
    assert picture.startswith("![epochs](data:image/svg+xml,") and len(picture) < 1000
    assert "loss%204.5%20to%202.5" in picture and "5%20epochs" in picture


def test_sample_rows_fit_in_their_place() -> None:
    head = ["| id | text |", "|---|---|"]
    short = "\n".join([*head, "| a | b |"])
    assert fitting(short) == short
    rows = [f"| {n} | {'word ' * 60} |" for n in range(9)]
    shown = fitting("\n".join([*head, *rows])).split("\n")
    assert len("\n".join(shown)) < 1000 and len(shown) >= 5
    assert shown[:2] == head and shown[2].startswith("| 0 | word word") and shown[2].endswith(" |")
    wide = "\n".join(["| " + " | ".join(["column name"] * 90) + " |", "|" + "---|" * 90,
                      "| " + " | ".join(["x" * 30] * 90) + " |"])  # fmt: skip
    assert fitting(wide) == wide


def test_sample_rows_are_several_and_without_repetition() -> None:
    names = ["item_id", "text", "summary", "year", "reason", "request_key"]
    answer = "a long answer about one book " * 3
    lines = [f"| b{n} | {answer}and more | {answer} | {n}.0000 | None | {'f' * 64} |"
             for n in range(3)]  # fmt: skip
    told = fitting("\n".join([f"| {' | '.join(names)} |", "|---" * 6 + "|", *lines])).split("\n")
    assert told[0] == "| item_id | text | year |" and len(told) == 5
    assert told[4].startswith("| b2 | a long answer") and told[4].endswith(" | 2 |")
    unbroken = fitting(f"| id | title |\n|---|---|\n| {'x' * 300} | A Book |").split("\n")[2]
    assert unbroken == f"| {'x' * 29}... | A Book |"
    answers = [f"| b{n} |" + f" {'word ' * 24}|" * 9 for n in range(5)]
    head = "| id | " + " | ".join(f"c{n}" for n in range(9)) + " |"
    different = [a.replace("word word", f"c{n} one", 1) for n, a in enumerate(answers)]
    shown = fitting("\n".join([head, "|---" * 10 + "|", *different]))
    assert len(shown) < 1000 and len(shown.split("\n")) >= 3


def test_catalog_text_is_no_markup() -> None:
    """A picture in a title would be fetched, a link be clicked, by whoever opens the page."""
    title = "![p](http://a.example/p.png) <img src=x> [x](http://b.example)"
    more = "**b** `c` &lt; _u_ ~s~"
    head = "| item_id | title |\n|---|---|\n"
    told = fitting(f"{head}| b1 | {title} |\n| b2 | {more} |")
    assert "![p]" not in told and "!\\[p\\](http" in told
    for opened in ("[", "]", "<", "`", "*", "~"):
        at = [n for n, c in enumerate(told) if c == opened]
        assert at and all(told[n - 1] == "\\" for n in at), opened
    assert "\\&lt;" in told and "\\_u\\_" in told
    ragged = fitting("| id | price | eur |\n|---|---|---|\n| b1 | 5 |")
    assert ragged.split("\n")[2] == "| b1 | 5 |"
    assert plain("registry/champion__ctr") == "registry/champion__ctr"
    assert plain("item_id R&D a\\b") == "item_id R&D a\\\\b"


def test_a_histogram_draws_the_shares_and_fits_in_its_place() -> None:
    values = np.array([0.0] * 3 + [1.0])
    drawn = histogram([(values, "", "steelblue")], "a")
    assert drawn.count("V16h12") == 1 and drawn.count("V66h12") == 1  # 75 px for 3/4, 25 for 1/4
    assert drawn.count("V91h12") == 23 and "up to 75% a bin" in drawn
    rng = np.random.default_rng(0)
    both = [(rng.random(999), "label 0", "chocolate"), (rng.random(999), "label 1", "steelblue")]
    assert len(inline(histogram(both, "predicted probability on validation"), "scores")) < 1000
    assert "75%25%20a%20bin" in inline(drawn, "scores") and " " not in inline(drawn, "scores")
    assert histogram([(np.empty(0), "", "steelblue")], "nothing") == ""
    assert histogram([(np.ones(5), "", "steelblue")], "one value")


def test_steps_of_a_long_epoch_tell_the_time_left() -> None:
    # 1.5 of 10 epochs took 30 s, so 8.5 take 170 s
    text, figures = stepped("sasrec [main, seed 0]", 2, 50, 100, 10, 30.0)
    assert text == (
        "sasrec [main, seed 0]: epoch 2 of at most 10, step 50 of 100, about 3 min left if it does "
        "not stop earlier"
    )
    assert figures == {"epoch": 2, "step": 50, "steps": 100, "seconds_left_at_most": 170.0}
