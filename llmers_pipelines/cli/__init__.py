"""The command line. Each command imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

import importlib
import sys

import click

# command -> module that defines it (loaded on use)
_COMMANDS = {
    "up": "up", "recipes": "catalogue", "datasets": "datasets", "plan": "planning",
    "status": "planning", "run": "running", "compare": "running", "recommend": "serving",
    "trace": "lineage", "diff": "lineage", "lineage": "lineage",
    "sql": "lineage", "store": "storage", "pin": "storage", "new": "scaffold",
    "doctor": "doctor", "results": "results", "prompts": "prompts", "batch": "batches",
    "tune": "tuning",
}  # fmt: skip


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(f"{__name__}.{_COMMANDS[name]}"), name)

    def resolve_command(self, ctx: click.Context, args: list[str]):  # type: ignore[override]
        import difflib

        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No command {args[0]!r}.{hint} `llmers --help` lists all.")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Examples:\n\n\b\n  llmers run llm2x --dataset sample\n"
    "  llmers compare --dataset sample\n"
    "  llmers recommend --dataset sample --user u0001\n\n"
    'Completion: eval "$(_LLMERS_COMPLETE=bash_source llmers)"',
)
@click.version_option(package_name="llmers-pipelines")
def main() -> None:
    """LLM-enhanced recommenders as versioned assets: materialize, compare, serve, trace."""


def run_main() -> None:
    """Entry point: an error of this package is its message, without a traceback, and exit 1."""
    try:
        main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except Exception as error:  # of this project: told in a line; others are raised
        if not _ours(error):
            raise
        _fail(error)


def _ours(error: Exception) -> bool:
    """Say whether the class, or one that it extends, is this package's: its text names the mend."""
    package = __name__.partition(".")[0]
    return any(kind.__module__.partition(".")[0] == package for kind in type(error).__mro__)


def _fail(error: Exception) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
    sys.exit(1)
