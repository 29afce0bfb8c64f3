"""The rules of docs/architecture.md that a machine can check: imports, sizes, revisions."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import update_revisions

import llmers_pipelines

PACKAGE = Path(llmers_pipelines.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

_GROUND = {
    "node", "walk", "plan", "config", "prices", "safety", "images", "gpu", "tuning", "toml_keys",
}  # fmt: skip
_TEXTS = _GROUND | {"data", "prompts", "store"}
_MODELS = _GROUND | {"data", "models"}
_ENHANCE = _MODELS | {"enhance"}
_TRAIN = _ENHANCE | {"train"}
_EVALUATE = _TRAIN | {"evaluate"}
_LIBRARY = _EVALUATE | _TEXTS | {"registry", "llm", "encode", "derive", "teach", "tune"}
_METHODS = {"recipe", "recipes", "api"}
MAY_IMPORT = {
    "naming": set(), "node": {"naming"}, "walk": {"node"}, "plan": {"naming", "node", "walk"},
    "prices": set(), "safety": set(), "images": set(), "tuning": set(), "toml_keys": set(),
    "gpu": set(), "config": {"prices", "safety", "images", "gpu", "tuning", "toml_keys"},
    "data": _GROUND, "store": _GROUND,
    "prompts": _GROUND | {"data"}, "llm": _TEXTS, "encode": _TEXTS, "derive": _TEXTS,
    "models": _MODELS, "enhance": _ENHANCE, "train": _TRAIN, "evaluate": _EVALUATE,
    "tune": _TEXTS | {"llm", "encode", "models"},
    "teach": _MODELS | {"prompts", "llm"}, "registry": _EVALUATE, "recipe": {"plan", "recipes"},
    "rankings": {"plan", "derive", "enhance", "models", "teach"},
    "api": {"plan", "data", "derive", "enhance", "models", "prompts", "rankings", "recipe", "teach",
            "tune"},
    "recipes": {"api"},
    "orchestrate": _LIBRARY | _METHODS, "cli": _LIBRARY | _METHODS | {"orchestrate", "web"},
    "web": {"config", "data", "store", "orchestrate"},
    "testing": _LIBRARY | _METHODS | {"orchestrate"}, "definitions": {"config", "orchestrate"},
    "demo": _LIBRARY | {"orchestrate"},
}  # fmt: skip
OWNERS = {
    "dagster": ("orchestrate/", "definitions.py"),
    "mlflow": ("registry/",),
    "faiss": ("derive/neighbours.py", "registry/index.py"),
    "transformers": ("encode/transformer_net.py", "llm/hf", "tune/"),
    "peft": ("encode/transformer_net.py", "llm/hf", "tune/"),
    "vllm": ("llm/", "encode/"),
    "ray": ("executors/ray",),
    "PIL": ("llm/pictures.py",), "optuna": ("orchestrate/tuning/study.py",),
    "starlette": ("web/",), "uvicorn": ("web/",),
}
# Where modules may import torch when they are loaded themselves.
TORCH = re.compile(r".*_net\.py|llm/hf_.*\.py|train/(loop|\w+_loader)\.py")


@cache
def imports(path: Path, *, loading: bool = False) -> frozenset[str]:
    """Return what ``path`` imports, in full; type-checking imports do not count.

    With ``loading`` only what it imports when it is loaded itself, not inside of functions.
    """
    return frozenset(_imports(path, loading=loading))


def _imports(path: Path, *, loading: bool) -> Iterator[str]:
    package = [llmers_pipelines.__name__, *path.relative_to(PACKAGE).parent.parts]
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        late = not loading and path == PACKAGE / "api.py"  # it imports them when asked for a name
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not late:
            continue
        if loading and isinstance(node, ast.FunctionDef):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def inside(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("name", sorted({part(m) for m in MODULES} - {"__init__"}))
def test_imports_run_one_way(name: str) -> None:
    assert name in MAY_IMPORT, f"{name} is new: give it a place in the order of imports"
    for module in (m for m in MODULES if part(m) == name):
        ours = {i.split(".")[1] for i in imports(module) if i.startswith("llmers_pipelines.")}
        wrong = sorted(ours - MAY_IMPORT[name] - {name})
        assert not wrong, f"{inside(module)} imports {', '.join(wrong)}"


@pytest.mark.parametrize("library", OWNERS)
def test_each_library_has_one_owner(library: str) -> None:
    users = [inside(m) for m in MODULES if any(i.split(".")[0] == library for i in imports(m))]
    assert [u for u in users if not u.startswith(OWNERS[library])] == []


def test_heavy_libraries_are_imported_late() -> None:
    heavy = {"torch", "transformers", "vllm", "faiss", "ray"}
    early = {m: {i.split(".")[0] for i in imports(m, loading=True)} for m in MODULES}
    users = [inside(m) for m, names in early.items() if names & heavy]
    assert [u for u in users if not TORCH.fullmatch(u)] == []


def test_the_environment_is_read_in_one_place() -> None:
    reads = re.compile(r"os\.environ|os\.getenv|from os import")
    found = {inside(m) for m in MODULES if reads.search(m.read_text(encoding="utf-8"))}
    # cli/up.py hands its own environment on to the servers that it starts.
    assert found == {"config.py", "cli/up.py"}


def test_files_stay_small() -> None:
    every = [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert {str(p.relative_to(ROOT)): n for p in every if (n := lines(p)) > 400} == {}
    assert [p.name for p in (PACKAGE / "recipes").rglob("*.py") if lines(p) > 70] == []


def test_each_test_file_has_a_name_of_its_own() -> None:
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(n for n in set(names) if names.count(n) > 1) == []


def test_names_say_what_is_inside_and_nothing_is_left_open() -> None:
    assert [inside(m) for m in MODULES if m.stem in ("utils", "helpers", "base", "misc")] == []
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [inside(m) for m in MODULES if marks.search(m.read_text(encoding="utf-8"))] == []


def test_what_changed_has_a_new_revision() -> None:
    stored = json.loads(update_revisions.TABLE.read_text())
    now = update_revisions.current()
    for file, names in update_revisions.stale(stored["revisions"], stored["sources"], now).items():
        pytest.fail(
            f"{file} changed: raise `revision` of {', '.join(names)}, then run `python "
            f"tests/unit/update_revisions.py`; or, where results stay, with --unchanged {file}"
        )
    behind = "revisions.json is behind: run `python tests/unit/update_revisions.py`"
    assert now.to_json() == update_revisions.TABLE.read_text(), behind


def test_shared_modules_count_for_whoever_uses_them() -> None:
    uses = update_revisions.current().uses
    assert "models/graph_net.py" in uses["LightGCN"]
    assert "models/graph_net.py" not in uses["SASRec"]
    assert {"models/losses_net.py", "train/sequence_loader.py"} <= set(uses["SASRec"])
    assert "prompts/fields.py" in uses["ItemSummary"]
    assert {"train/loop.py", "train/arms.py", "evaluate/predict.py"} <= set(uses["Train"])
    assert "llm/runner.py" in uses["Generate"]
    assert "data/splits.py" in uses["Table"]
    assert not [file for used in uses.values() for file in used if file.startswith("cli/")]


def test_comments_docstrings_and_layout_are_no_change_of_source() -> None:
    one = 'def f(x):\n    """Doc."""\n    return [x, 1]  # why\n'
    assert update_revisions.normal(one) == update_revisions.normal("def f(x): return [\n x, 1]")
    assert update_revisions.normal(one) != update_revisions.normal("def f(x): return [x, 2]")
    now = update_revisions.Revisions(
        {"A": 1, "B": 2, "C": 1}, {"A": ("x.py",), "B": ("x.py", "y.py"), "C": ("y.py",)},
        {"x.py": "new", "y.py": "same"},
    )  # fmt: skip
    before = {"x.py": "old", "y.py": "same"}
    assert update_revisions.stale({"A": 1, "B": 1}, before, now) == {"x.py": ["A"]}
    assert update_revisions.stale({"A": 0, "B": 1}, before, now) == {}


def test_a_handler_of_every_error_says_why():
    bare = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in MODULES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"^\s*except( Exception\b[^#]*)?:\s*$", line)
    ]
    assert not bare, f"{bare}: say in a comment why any error is caught"
