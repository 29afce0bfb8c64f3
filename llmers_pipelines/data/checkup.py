"""What `llmers datasets check` and `show` tell about one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .catalog import load_catalog, tracked_files
from .description import Description
from .quarantine import fault_lines
from .rankings import count_rankings
from .recorded import load_recorded
from .schema import TITLE, DataError
from .splits import build_training_data
from .summary import describe_catalog


def check_dataset(
    description: Description, data_root: Path | str | None = None, *, limit: int = 20
) -> dict[str, Any]:
    """Read and validate everything of a data set; return a report, never raise ``DataError``.

    Keys: name, ok, errors, warnings, counts, quarantined, faults (sentences), splits, recorded.
    """
    report: dict[str, Any] = {
        "name": description.name, "file": str(description.file), "ok": False, "errors": [],
        "warnings": [], "counts": {}, "quarantined": {}, "faults": [], "splits": {}, "recorded": {},
    }  # fmt: skip
    errors, warnings = report["errors"], report["warnings"]
    try:
        catalog = load_catalog(description, data_root)
    except DataError as fault:
        errors.append(str(fault))
        return report
    report["source_version"] = catalog.source_version
    report["dvc"] = tracked_files(description, data_root)
    warnings += [
        f"{name} is not the version that {name}.dvc records; `dvc add {name}` keeps the new one, "
        f"`dvc checkout {name}` brings the old one back"
        for name, state in report["dvc"].items() if state == "changed"
    ]
    report["counts"] = {
        "items": len(catalog.items), "users": len(catalog.users),
        "interactions": len(catalog.interactions),
    }  # fmt: skip
    report["quarantined"] = catalog.info["quarantined"]
    report["faults"] = fault_lines(catalog.quarantine, limit)
    read = catalog.info["records_read"]["interactions"]
    lost = 1 - len(catalog.interactions) / read
    if lost > 0.05:
        warnings.append(f"{lost:.1%} of the interactions went to quarantine")
    if catalog.info["hint"]:
        warnings.append(str(catalog.info["hint"]))
    warnings += catalog.info["warnings"]
    if catalog.items[TITLE].null_count == len(catalog.items):
        warnings.append('no item has a title; set title = "..." under [items]')
    if not description.splits:
        warnings.append("no [splits.<task>] is declared; no recommender can be trained")
    for name in description.splits:
        try:
            info = build_training_data(catalog, description, name).info
            report["splits"][name] = info["counts"]["rows"] | {"drops": info["drops"]}
            warnings += [f"split {name}: {w}" for w in info.get("warnings", [])]
        except DataError as fault:
            errors.append(str(fault))
    for key, spec in description.recorded.items():
        try:
            answers = load_recorded(description, spec.prompt_task, spec.variant, data_root)
            assert answers is not None  # it is declared
            told = len(answers.texts())
            report["recorded"][key] = {"answers": told, "empty": len(answers.entries) - told}
        except DataError as fault:
            errors.append(str(fault))
    for key, ranking in description.rankings.items():
        try:
            records = count_rankings(ranking, description.folder(data_root))
            report["recorded"][f"rankings.{key}"] = {"answers": records, "empty": 0}
        except DataError as fault:
            errors.append(str(fault))
    report["ok"] = not errors
    return report


def show_dataset(description: Description, data_root: Path | str | None = None) -> dict[str, Any]:
    """Return counts, density, time range, text coverage and head and tail of a data set."""
    catalog = load_catalog(description, data_root)
    head = {
        "name": description.name, "about": description.about, "terms": description.terms,
        "file": str(description.file), "tasks": list(description.tasks),
        "recorded": {k: r.data_cutoff for k, r in description.recorded.items()},
    }  # fmt: skip
    return head | describe_catalog(catalog, description)
