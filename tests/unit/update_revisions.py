"""Record the source that each component's ``revision`` stands for, in ``revisions.json``.

    python tests/unit/update_revisions.py                       after raising revisions
    python tests/unit/update_revisions.py --unchanged SASRec    other source, the same results
    python tests/unit/update_revisions.py --unchanged all

The source is that of the component's module and of its sibling ``<name>_net.py``, without comments,
docstrings and layout.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llmers_pipelines
from llmers_pipelines.plan import Component

TABLE = Path(__file__).with_name("revisions.json")
PACKAGES = ("data", "derive", "encode", "enhance", "models", "prompts", "teach")
Revisions = dict[str, list[Any]]  # component -> [revision, hash of its source]


def current() -> Revisions:
    """Return what the components are now."""
    for name in PACKAGES:
        package = importlib.import_module(f"{llmers_pipelines.__name__}.{name}")
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.endswith("_net"):
                importlib.import_module(f"{package.__name__}.{module.name}")
    return {
        kind.__qualname__: [kind.revision, source_hash(sys.modules[kind.__module__].__file__ or "")]
        for kind in sorted(_below(Component), key=lambda k: k.__qualname__)
        if kind.__module__.startswith(f"{llmers_pipelines.__name__}.")
    }


def _below(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def source_hash(file: str) -> str:
    """Return the hash of a module and of its network, where there is one."""
    module = Path(file)
    both = [module, module.with_name(f"{module.stem}_net.py")]
    text = "\n".join(normal(path.read_text(encoding="utf-8")) for path in both if path.is_file())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def stale(stored: Revisions, now: Revisions) -> list[str]:
    """Return the components whose source changed under the same revision."""
    both = [(name, stored[name], new) for name, new in now.items() if name in stored]
    return [name for name, old, new in both if old[0] == new[0] and old[1] != new[1]]


def main(unchanged: list[str]) -> int:
    now = current()
    stored = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    refused = [n for n in stale(stored, now) if not {n, "all"} & set(unchanged)]
    for name in refused:
        print(f"{name}: the source changed; raise its `revision`, or --unchanged {name}")
        now[name] = stored[name]
    rows = [f"{json.dumps(name)}: {json.dumps(now[name])}" for name in sorted(now)]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    return 1 if refused else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(arguments[arguments.index("--unchanged") + 1 :] if arguments else []))
