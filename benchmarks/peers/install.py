"""Make the environment of the peers (RecBole, RecTools, implicit and others), all pinned.

    python benchmarks/peers/install.py [--env FOLDER] [--python PYTHON]

FOLDER is ``LLMERS_PEERS`` or ``.venv-peers`` beside the project. ``constraints.txt`` pins every
package, dependencies included, so pip resolves nothing. Their metadata disagree in two places that
do not matter here: RecBole asks for ray and hyperopt (its tuning alone), RecTools for a rebuilt
implicit under another name. DeepCTR-Torch imports requests, which its runner does without. Python
3.11. Where pip can find CPU wheels of torch, those are enough.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE / "constraints.txt"
CHECK = (
    "import implicit, rectools.models, recbole.data, surprise, torch; "
    "from importlib import metadata; metadata.version('deepctr-torch'); print(torch.__version__)"
)


def default_env() -> Path:
    return Path(os.environ.get("LLMERS_PEERS") or HERE.parents[1] / ".venv-peers")


def python_of(env: Path | None = None) -> Path:
    """Return the interpreter of the peers; SystemExit with the mend where there is none."""
    found = (env or default_env()) / "bin" / "python"
    if not found.is_file():
        raise SystemExit(f"no peers in {found.parent.parent}: python benchmarks/peers/install.py")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", type=Path, default=default_env())
    parser.add_argument("--python", help="interpreter of the environment; default: this one")
    args = parser.parse_args()
    if args.python:
        subprocess.run([args.python, "-m", "venv", str(args.env)], check=True)
    else:
        venv.create(args.env, with_pip=True)
    python = args.env / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "-r", CONSTRAINTS], check=True
    )
    done = subprocess.run([python, "-c", CHECK], check=True, capture_output=True, text=True)
    print(f"{args.env}: {len(CONSTRAINTS.read_text().split())} packages, torch {done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
