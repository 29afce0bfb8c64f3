"""Sources that DVC tracks: their recorded versions, and ``dvc add`` in its own environment.

DVC lives in an environment of its own (``make setup-dvc``): a pin of one of its dependencies breaks
Dagster's string selections. It is therefore called as a program and never imported.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import PROJECT
from .schema import DataError

SUFFIX = ".dvc"


def pointer(path: Path) -> Path:
    """Return the place of the ``.dvc`` file of ``path``."""
    return path.with_name(path.name + SUFFIX)


def recorded_md5(path: Path) -> str:
    """Return the md5 that ``path``'s ``.dvc`` file records, or "" where there is none.

    Raises ``DataError`` for a ``.dvc`` file that is not one.
    """
    file = pointer(path)
    if not file.is_file():
        return ""
    import yaml

    try:
        outs: Any = yaml.safe_load(file.read_text(encoding="utf-8"))["outs"]
        found = next(str(o["md5"]) for o in outs if o["path"] == path.name)
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, StopIteration) as error:
        raise DataError(
            f"{file}: no md5 of {path.name} in it; write it again with `dvc add {path.name}`"
        ) from error
    return found.removesuffix(".dir")


def md5_of(path: Path) -> str:
    """Return the md5 of a file's bytes, as DVC records it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def program(configured: str = "") -> str:
    """Return the path of ``dvc``: the configured one, the project's own environment, or PATH."""
    own = PROJECT / ".venv-dvc" / "bin" / "dvc"
    found = configured or (str(own) if own.is_file() else "") or shutil.which("dvc") or ""
    if not found or not (Path(found).is_file() or shutil.which(found)):
        raise DataError(
            f"no dvc{f' at {found}' if found else ''}: run `make setup-dvc`, or name the program "
            "with LLMERS_DVC"
        )
    return found


def track(paths: Sequence[Path], dvc: str = "") -> list[Path]:
    """Run ``dvc add`` on files and return their ``.dvc`` files; ``DataError`` says what failed."""
    command = [program(dvc), "add", "--quiet"]
    for folder in dict.fromkeys(p.parent for p in paths):
        names = [p.name for p in paths if p.parent == folder]
        done = subprocess.run(
            [*command, *names], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DataError(
                f"`dvc add` failed in {folder}: {(done.stderr or done.stdout).strip()}\n"
                "the files must lie inside of a DVC project; make one with `dvc init` (with "
                "--no-scm where there is no git), or move the files below one"
            )
    return [pointer(p) for p in paths]
