"""The table of public data sets in ``docs/public-data.md``, made from the descriptions.

python -m llmers_pipelines.data.public.overview docs/public-data.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..schema import DataError
from .describe import PublicSet, RawFile, public_sets

BEGIN, END = "<!-- sets: made by llmers_pipelines.data.public.overview -->", "<!-- end of sets -->"


def overview() -> str:
    """Return two markdown tables: what each set is and where it comes from; its known defects."""
    sets = list(public_sets().values())
    lines = ["| name | what | counts | from | checksum | terms |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{s.name}`{_aliases(s)} | {_cell(s.about)} | {_counts(s)} | {_from(s)} "
        f"| {_checksum(s)} | [{_cell(s.terms)}]({s.terms_url}) |"
        for s in sets
    ]
    lines += ["", "| name | known defects, and what is done |", "|---|---|"]
    lines += [f"| `{s.name}` | {_cell('; '.join(s.defects))} |" for s in sets]
    for s in sets:
        if s.categories:
            lines += ["", f"Categories of `{s.name}`: {', '.join(f'`{c}`' for c in s.categories)}."]
    return "\n".join(lines)


def rewrite(page: str) -> str:
    """Return ``page`` with the tables between the marks made anew."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise DataError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{head}{BEGIN}\n{overview()}\n{END}{tail}"


def _aliases(source: PublicSet) -> str:
    return "".join(f", `{a}`" for a in source.aliases[:1])


def _counts(source: PublicSet) -> str:
    if source.categories:
        return "by category"
    return ", ".join(f"{_number(c.text)} {k.replace('_', ' ')}" for k, c in source.counts.items()
                     ) or "none published"  # fmt: skip


def _number(text: str) -> str:
    return f"{int(text):,}" if text.isdigit() else text


def _from(source: PublicSet) -> str:
    names = ", ".join(f"`{f.name}`" for f in source.files)
    return f"{'by hand' if source.manual else 'download'} from [the page]({source.page}): {names}"


def _checksum(source: PublicSet) -> str:
    return ", ".join(dict.fromkeys(_known(f) for f in source.files))


def _known(file: RawFile) -> str:
    if file.checksum_url:
        return "md5, published beside the file"
    algorithm, _ = file.checksum()
    if not algorithm:
        return "none published"
    return f"{algorithm}, {'published' if file.published else 'recorded by others: warns only'}"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def main(page: Path) -> None:
    """Write the tables into ``page``."""
    page.write_text(rewrite(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
