"""The form of a run, what goes with an asset in the graph, and what a running step tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmers_pipelines.config import Method, Settings, load_settings
from llmers_pipelines.gpu import Gpu, read_gpu
from llmers_pipelines.orchestrate.build import build_plan
from llmers_pipelines.orchestrate.describe import describe, pool_of, tags_of, uses_device
from llmers_pipelines.orchestrate.factories import asset_for
from llmers_pipelines.orchestrate.metadata import fitting
from llmers_pipelines.orchestrate.plots import histogram, inline
from llmers_pipelines.orchestrate.progress import Reporter, asked, encoded, stepped, trained
from llmers_pipelines.orchestrate.run_config import applied, config_for, given, schema_of
from llmers_pipelines.plan import Champion, Embed, Generate, Train

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
    forms = {id(schema_of(n)) for n in plan.nodes}
    assert len(forms) <= 6 < len(plan.nodes)
    fields = schema_of(first(plan, Train)).config_type.fields
    assert set(fields) == {"force", "device", "threads", "warm_start", "experiment"}
    assert fields["device"].default_value == "configured"
    asking = schema_of(first(plan, Generate)).config_type.fields
    assert {"endpoint", "dtype", "concurrency", "budget_money"} <= set(asking)
    assert all(f.description for f in (*fields.values(), *asking.values()))


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
    text, figures = trained("sasrec", epoch, (4, 0.3), 20, 10.0)
    assert text == ("sasrec: epoch 5 of at most 20, loss 2.5000, validation 0.2500, best 0.3000 at "
                    "epoch 4, about 30 s left if it does not stop earlier")  # fmt: skip
    assert figures == {"epoch": 5, "seconds_left_at_most": 30.0, "train_loss": 2.5, "valid": 0.25}


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
