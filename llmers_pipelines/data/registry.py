"""Which data sets there are, and the entry points that tell about one or add one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import PROJECT
from .add import add_dataset, dataset_template
from .catalog import require_files
from .checkup import check_dataset, show_dataset
from .description import Description, load_description
from .public.describe import find_public
from .schema import DataError
from .strict_toml import near

__all__ = [
    "add_dataset", "check_dataset", "dataset_template", "description_files", "find_dataset",
    "list_datasets", "show_dataset",
]  # fmt: skip

_PACKAGED = Path(__file__).parent / "datasets"


def description_files(
    home: Path | str | None = None, extra: Sequence[Path | str] = ()
) -> dict[str, Path]:
    """Return name -> toml file of every data set.

    Looked up in the package, the project's and ``home``'s ``data/datasets/*.toml`` and
    ``data/<name>/<name>.toml``, and the folders ``extra``. Where ``home`` and the
    project describe the same name, ``home`` counts; any other two files of one name raise.
    """
    files = sorted(_PACKAGED.glob("*.toml"))
    roots = list(dict.fromkeys(Path(r).resolve() for r in (home, PROJECT) if r is not None))
    own = [_in_root(root) for root in roots]
    # A home may be another copy of the project: what it describes itself counts.
    told = {file.stem for file in own[0]}
    files += [*own[0], *(f for more in own[1:] for f in more if f.stem not in told)]
    for folder in extra:
        files += sorted(Path(folder).glob("*.toml"))
    found: dict[str, Path] = {}
    for file in dict.fromkeys(f.resolve() for f in files):
        other = found.setdefault(file.stem, file)
        if other != file:
            raise DataError(
                f"{other} and {file} both describe a data set {file.stem!r}; rename one of them"
            )
    return found


def _in_root(root: Path) -> list[Path]:
    named = [f for f in sorted((root / "data").glob("*/*.toml")) if f.stem == f.parent.name]
    return [*sorted((root / "data" / "datasets").glob("*.toml")), *named]


def find_dataset(
    name: str, home: Path | str | None = None, extra: Sequence[Path | str] = ()
) -> Description:
    """Return the description of ``name`` or raise ``DataError`` with the near matches."""
    files = description_files(home, extra)
    if name not in files:
        source = find_public(name)
        mend = "add one with `llmers datasets add`"
        if source is not None:
            mend = f"{source.title} can be fetched with `llmers datasets fetch {name}`"
        raise DataError(
            f"no data set {name!r}{near(name, list(files)) or ';'} there are: "
            f"{', '.join(files) or 'none'}; {mend}"
        )
    description = load_description(files[name])
    if description.name != name:
        raise DataError(f"{files[name]}: name is {description.name!r}; it must be {name!r}")
    return description


def list_datasets(
    home: Path | str | None = None,
    data_root: Path | str | None = None,
    extra: Sequence[Path | str] = (),
) -> list[dict[str, Any]]:
    """Return one dict per data set: name, about, tasks, recorded, file, and what is missing."""
    rows = []
    for name, file in description_files(home, extra).items():
        row: dict[str, Any] = {"name": name, "about": "", "tasks": [], "recorded": []}
        try:
            description = find_dataset(name, home, extra)
            row |= {
                "about": description.about,
                "tasks": list(description.tasks),
                "recorded": list(description.recorded),
                "terms": description.terms,
            }
            require_files(description, data_root)
            row["missing"] = ""
        except DataError as fault:
            row["missing"] = str(fault)
        rows.append(row | {"file": str(file)})
    return rows
