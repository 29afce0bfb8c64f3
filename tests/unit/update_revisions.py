"""Record the source that each ``revision`` stands for, in ``revisions.json``.

    python tests/unit/update_revisions.py                              after raising revisions
    python tests/unit/update_revisions.py --unchanged models/sasrec_net.py    the same results
    python tests/unit/update_revisions.py --unchanged all

A component stands for its module, its sibling ``<name>_net.py`` and the shared modules that they
import; a verb for the modules that its step runs. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llmers_pipelines
from llmers_pipelines import plan
from llmers_pipelines.plan import Component, Node

TABLE = Path(__file__).with_name("revisions.json")
ROOT = Path(llmers_pipelines.__file__).parent
# Packages that hold components.
PACKAGES = ("data", "derive", "encode", "enhance", "models", "prompts", "teach", "tune")
# What decides a verb's result, beside its step and the components in it. How results are stored,
# published and shown is not part of it.
VERBS = {
    "Table": ("data",),
    "Generate": ("data", "prompts", "llm"),
    "Embed": ("data", "encode"),
    "Derive": ("data", "derive"),
    "Train": ("data", "models", "enhance", "train", "evaluate"),
    "Teach": ("data", "teach", "llm"),
    "Tune": ("data", "tune", "llm"),
    "Distill": ("data", "models", "enhance", "train", "evaluate"),
    "Evaluate": ("data", "evaluate"),
    "Champion": ("evaluate",),
}
_TRAINED = ("orchestrate/steps/train.py", "orchestrate/cells.py")
STEPS = {"Train": _TRAINED, "Distill": _TRAINED}


@dataclass(frozen=True)
class Revisions:
    """``numbers``: revision by name; ``uses``: name -> its files; ``sources``: file -> hash."""

    numbers: dict[str, int]
    uses: dict[str, tuple[str, ...]]
    sources: dict[str, str]

    def to_json(self) -> str:
        both = {"revisions": self.numbers, "sources": self.sources}
        return json.dumps(both, indent=0, sort_keys=True) + "\n"


def current() -> Revisions:
    """Return what components and verbs are now."""
    for name in PACKAGES:
        package = importlib.import_module(f"{llmers_pipelines.__name__}.{name}")
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.endswith("_net"):
                importlib.import_module(f"{package.__name__}.{module.name}")
    kinds = [k for k in _below(Component) if k.__module__.startswith(llmers_pipelines.__name__)]
    home = {k.__qualname__: _file(sys.modules[k.__module__].__file__ or "") for k in kinds}
    own = {name: {file, file.replace(".py", "_net.py")} for name, file in home.items()}
    owned = set().union(*own.values())
    loaders = {k.__qualname__: f"train/{getattr(k, 'loader', '')}_loader.py" for k in kinds}
    uses = {
        name: closure(_there(files | {loaders[name]}), PACKAGES, stop=owned - files)
        for name, files in own.items()
    }
    numbers = {k.__qualname__: k.revision for k in kinds}
    for verb, packages in VERBS.items():
        kind: type[Node] = getattr(plan, verb)
        steps = STEPS.get(verb, (f"orchestrate/steps/{kind.verb}.py",))
        numbers[verb], uses[verb] = kind.revision, closure(steps, packages, stop=owned)
    files = sorted({file for used in uses.values() for file in used})
    return Revisions(numbers, uses, {file: source_hash(ROOT / file) for file in files})


def _below(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _file(path: str) -> str:
    return Path(path).relative_to(ROOT).as_posix()


def _there(files: Iterable[str]) -> list[str]:
    return [file for file in files if (ROOT / file).is_file()]


def closure(files: Iterable[str], packages: tuple[str, ...], *, stop: set[str]) -> tuple[str, ...]:
    """Return ``files`` and what they import from ``packages``, but not beyond ``stop``."""
    found: set[str] = set()
    todo = list(files)
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        todo += [f for f in imported(file) if f.split("/")[0] in packages and f not in stop]
    return tuple(sorted(found))


@cache
def imported(file: str) -> tuple[str, ...]:
    """Return the package's own modules that ``file`` imports, at the top or inside of functions."""
    folder = Path(file).parent.parts
    found: list[str] = []
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        above = folder[: len(folder) + 1 - node.level]
        base = "/".join([*above, *(node.module or "").split(".")]).strip("/")
        names = [base, *(f"{base}/{alias.name}" for alias in node.names)]
        found += [f"{name}.py" for name in names if (ROOT / f"{name}.py").is_file()]
    return tuple(found)


def source_hash(module: Path) -> str:
    return hashlib.sha256(normal(module.read_text(encoding="utf-8")).encode()).hexdigest()[:16]


def normal(source: str) -> str:
    """Return the syntax tree as text, without docstrings, alike in every version of Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            del body[0]
    return _dump(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _dump(node: Any) -> str:
    if isinstance(node, ast.JoinedStr):  # versions of Python cut its constants differently
        told = [v.value if isinstance(v, ast.Constant) else _dump(v) for v in node.values]
        return f"JoinedStr({''.join(told)!r})"
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name != "ctx")
        told = ", ".join(f"{n}={_dump(v)}" for n, v in fields if v is not None and v != [])
        return f"{type(node).__name__}({told})"
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    return repr(node)


def stale(numbers: dict[str, int], sources: dict[str, str], now: Revisions) -> dict[str, list[str]]:
    """Return changed file -> names that use it under the same revision as before."""
    changed = [f for f, h in sources.items() if f in now.sources and now.sources[f] != h]
    same = {name: used for name, used in now.uses.items() if numbers.get(name) == now.numbers[name]}
    found = {file: [name for name, used in same.items() if file in used] for file in changed}
    return {file: names for file, names in found.items() if names}


def main(unchanged: list[str]) -> int:
    now = current()
    stored = json.loads(TABLE.read_text()) if TABLE.is_file() else {"revisions": {}, "sources": {}}
    refused = stale(stored["revisions"], stored["sources"], now)
    refused = {f: names for f, names in refused.items() if not {f, "all"} & set(unchanged)}
    for file, names in refused.items():
        print(f"{file} changed: raise `revision` of {', '.join(names)}, or --unchanged {file}")
        now.sources[file] = stored["sources"][file]
    TABLE.write_text(now.to_json())
    return 1 if refused else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(arguments[arguments.index("--unchanged") + 1 :] if arguments else []))
