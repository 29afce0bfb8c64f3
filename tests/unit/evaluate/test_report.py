from __future__ import annotations

import builtins

import numpy as np
import pytest

from llmers_pipelines.data.training import TEST
from llmers_pipelines.evaluate import report
from llmers_pipelines.evaluate.compare import compare
from llmers_pipelines.evaluate.predict import rank_table
from llmers_pipelines.evaluate.slices import standard_slices


@pytest.fixture
def comparison(random_log, fixed):
    data = random_log(120, 40)

    def cell(skill, seed):
        scores = np.random.default_rng(seed).standard_normal((121, 41))
        scores[np.arange(1, 121), data.item[data.split == TEST]] += skill
        return rank_table(fixed(scores), data, TEST)

    def make(skill=1.5, seeds=(0, 1, 2), **options):
        cells = {("itemknn", None): cell(0.5, 9)}
        for s in seeds:
            cells |= {("base", s): cell(0.5, s), ("enhanced", s): cell(skill, s + 5),
                      ("permuted", s): cell(0.4, s + 20)}  # fmt: skip
        return compare(
            cells, references=["itemknn"], slices=standard_slices(data), resamples=200,
            metrics=["ndcg@10", "hr@10"], **options,
        )  # fmt: skip

    return data, make


def header(data, **more):
    return report.Header.of(data, title="LLM2X", dataset="sample", **more)


def test_markdown_states_what_a_reader_must_know(comparison):
    data, make = comparison
    made = make()
    page = report.markdown(made, header(data, versions={"llm": "abc"}, notes=("Trials: 3",)))
    assert "120 users, 40 items, 840 interactions" in page
    assert "leave-one-out" in page and "fold-in" in page and "Seeds: 0, 1, 2" in page
    assert f"data {data.content_hash()}, llm abc" in page and "Trials: 3" in page
    row = made.headline
    assert f"| {row['base']:.4f} ± {row['base_sd']:.4f} |" in page
    assert f"[{row['low']:+.4f}, {row['high']:+.4f}]" in page
    assert "permuted (control)" in page and "itemknn (reference)" in page
    for s in made.slices:
        assert s["rule"] in page
    assert "Lift (ndcg@10): claimed" in page


def test_every_table_row_has_as_many_cells_as_its_header(comparison):
    data, make = comparison
    page = report.markdown(make(), header(data), beyond={"base": {"gini": 0.5, "arp": None}})
    tables = [b.splitlines() for b in page.split("\n\n") if b.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_nothing_undefined_is_written_as_a_number(comparison):
    data, make = comparison
    page = report.markdown(make(), header(data))
    assert "nan" not in page.lower().replace("n/a", "") and "None" not in page
    assert "n/a" in page  # the slice of cold users is empty
    assert report.number(float("nan")) == report.number(float("inf")) == "n/a"
    assert report.percent(None) == report.p_value(None) == report.between(None, 1) == "n/a"


def test_labels_are_shown(comparison):
    data, make = comparison
    page = report.markdown(make(marks=["contaminated", "labels_seen"]), header(data))
    assert "Labels: *contaminated*, *labels seen*" in page
    page = report.markdown(make(seeds=(0,)), header(data))
    assert "*exploratory*" in page and "Lift (ndcg@10): exploratory" in page


def test_p_values_and_percents():
    assert report.p_value(1e-9) == "<0.0001" and report.p_value(0.0386) == "0.0386"
    assert report.percent(0.0123) == "+1.2 %"
    assert report.spread(0.5, None) == "0.5000"


def test_leaderboard_is_ordered_and_corrected(comparison):
    _, make = comparison
    board = report.leaderboard({"weak": make(0.6), "strong": make(1.6, marks=["contaminated"])})
    assert [r[0] for r in board.rows] == ["strong", "weak"]
    assert board.rows[0][-1] == "not shown, contaminated"
    assert "Holm over the methods" in board.note
    with pytest.raises(ValueError, match="different primary"):
        report.leaderboard({"a": make(), "b": make(primary="hr@10")})


def test_terminal_text_with_and_without_rich(comparison, monkeypatch):
    data, make = comparison
    made = make()
    drawn = report.text(made, header(data), width=200)
    real = builtins.__import__

    def without_rich(name, *args, **kwargs):
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    plain = report.text(made, header(data))
    for shown in (drawn, plain):
        assert f"{made.headline['difference']:+.4f}" in shown and "tail_items" in shown
    assert "│" in drawn and "│" not in plain


def test_the_plot_is_a_png_without_global_state(comparison):
    import sys

    _, make = comparison
    before = "matplotlib.pyplot" in sys.modules
    assert report.interval_plot(make()).startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == before
