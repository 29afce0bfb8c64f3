"""Every exception class of the package ends a command as its message, never as a traceback."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import llmers_pipelines
from llmers_pipelines import cli

ROOT = Path(llmers_pipelines.__file__).parent


def declared() -> list[tuple[str, str]]:
    """Return (module, class) of each class that descends from an exception, by their text."""
    classes: list[tuple[str, str, list[str]]] = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        module = ".".join(p for p in parts if p != "__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(b).rpartition(".")[2] for b in node.bases]
                classes.append((module, node.name, bases))

    def raises(bases: list[str]) -> bool:
        return any(
            base.endswith(("Error", "Exception"))
            or any(
                raises(above) for _, name, above in classes if name == base and base not in above
            )
            for base in bases
        )

    return [(module, name) for module, name, bases in classes if raises(bases)]


def test_the_enumeration_finds_what_is_there() -> None:
    found = {name for _, name in declared()}
    assert {"FormatError", "StoreError", "PlanError", "EngineStopped", "Missing"} <= found


@pytest.mark.parametrize(("module", "name"), declared())
def test_an_own_error_is_a_message(module, name, monkeypatch, capsys) -> None:
    kind = getattr(importlib.import_module(module), name)
    error = kind.__new__(kind)
    error.args = ("a file is damaged; run this to mend it",)

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        cli.run_main()
    assert ended.value.code == 1
    assert "error: a file is damaged" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(monkeypatch) -> None:
    def fail(**_: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(LookupError):
        cli.run_main()
