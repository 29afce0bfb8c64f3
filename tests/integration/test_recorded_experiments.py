"""An experiment that rests on recorded answers says how many it used, and fails where none was."""

from __future__ import annotations

from pathlib import Path

from shop import EXPERIMENT, Shop, same_environment

from llmers_pipelines.orchestrate.results import load_experiments, run_experiment, write_results

LIST = EXPERIMENT.replace("controls = []", "controls = []\nrecorded = true")


def test_the_template_in_the_place_of_recorded_answers_is_a_fault(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "home")
    about = shop.folder / "shop.toml"
    declared = about.read_text()
    assert 'data_cutoff = "none"' in declared
    about.write_text(declared.replace('data_cutoff = "none"', 'data_cutoff = "unknown"'))
    listed, out = tmp_path / "list.toml", tmp_path / "results.md"
    listed.write_text(LIST)
    with same_environment():
        [experiment] = load_experiments(listed)
        [fault] = run_experiment(experiment, shop.settings(), lambda *a: None)
        assert fault["key"] == "shop, summaries" and "no recorded answer was used" in fault["error"]
        write_results([experiment], shop.settings(), "llmers results", out)
        assert "- **Void**: no recorded answer was used" in out.read_text()
        listed.write_text(
            LIST.replace("recorded = true", "recorded = true\naccept_contaminated = true")
        )
        [experiment] = load_experiments(listed)
        assert run_experiment(experiment, shop.settings(), lambda *a: None) == []
        write_results([experiment], shop.settings(), "llmers results", out)
    text = out.read_text()
    assert "- recorded answers used: " in text and "Void" not in text
    assert "contaminated" in next(line for line in text.splitlines() if line.startswith("| llm2x"))
