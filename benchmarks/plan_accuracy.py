"""Does `llmers plan` tell what a run then takes? Planned against measured on real catalog text.

    LLMERS_DATA_ROOT=... python benchmarks/plan_accuracy.py [CASE ...] [--keep FOLDER]

CASES (default: all), each in a home of its own, each command a process of its own: inputs, then
`llmers plan ASSET --pilot` (200 rows), then `llmers run ASSET`.

    hf-items       films of imdb_aspects (titles, casts, plots) asked of a random model of 30k
                   weights (transformers, CPU), most of whose answers are refused and asked again
    openai-items   films of MovieLens-1M asked of an HTTP server on loopback, which answers with
                   texts that a language model wrote of them; no tokenizer of it is at hand
    openai-users   users of MovieLens-100K likewise; profiles of other users, so that some quote
                   films that the history does not hold, and are refused

The server waits as a model does (by tokens read and written), cuts 2 % of its answers, throttles
1 % of requests and answers 1 % with status 500. Prints a table and exits 1 where a figure is off by
more than 20 %. Seconds are wall time: alone on the machine, or they measure its other work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import pyarrow.parquet as pq  # noqa: E402
from loopback import Loopback, Say  # noqa: E402
from tiny_lm import make_tiny_lm  # noqa: E402

BOUND = 20.0  # percent
FIGURES = ("calls", "tokens_in", "tokens_out", "money", "seconds", "gpu_hours")
MODEL = "recorded/writer"
ITEMS, USERS = "item_summaries/item_knowledge", "user_profiles/user_preference__ctr_time"
PRICES = 'input = 0.25\noutput = 2.0\ngpu_hour = 2.5\ncurrency = "USD"\n'
PIECE = re.compile(r"\w{1,5}|[^\w\s]")  # a token of the server


@dataclass(frozen=True)
class Case:
    dataset: str
    asset: str
    texts: Callable[[Path], Mapping[str, str]] | None = None  # by title or by number; None: hf


def film_texts(root: Path) -> dict[str, str]:
    """Return what a language model wrote of each film, by title."""
    titles = _columns(root / "ml1m" / "items.parquet", "item_id", "title")
    texts = _columns(root / "ml1m" / "llm_item_descriptions.parquet", "item_id", "text")
    return {title: texts[item] for item, title in titles.items() if item in texts}


def profile_texts(root: Path) -> dict[str, str]:
    table = pq.read_table(root / "ml100k" / "llm_user_profiles.parquet").to_pylist()
    return {str(n): row["text"] for n, row in enumerate(table) if row["version"] == "v2_summary"}


def _columns(path: Path, key: str, value: str) -> dict[Any, str]:
    table = pq.read_table(path, columns=[key, value]).to_pydict()
    return dict(zip(table[key], table[value], strict=True))


CASES = {
    "hf-items": Case("imdb_aspects", ITEMS),
    "openai-items": Case("ml1m", ITEMS, film_texts),
    "openai-users": Case("ml100k", USERS, profile_texts),
}


def writer(texts: Mapping[str, str]) -> Callable[[dict[str, Any], Mapping[str, str]], Say]:
    """Return the rule by which the server answers: what it writes, its faults, its pace."""
    listed = list(texts.values())
    tried: dict[int, int] = {}

    def rule(body: dict[str, Any], headers: Mapping[str, str]) -> Say:
        told = "\n".join(str(m["content"]) for m in body["messages"])
        number = int(hashlib.sha256(told.encode()).hexdigest()[:12], 16)
        tried[number] = tried.get(number, 0) + 1
        if tried[number] == 1 and number % 100 < 2:
            status, after = ((429, {"Retry-After": "1"}), (500, {}))[number % 100]
            return Say(status=status, headers=after, error={"message": "busy"})
        title = re.search(r"^title: (.*)$", told, re.MULTILINE)
        text = texts.get(title[1]) if title else None
        if text is None:  # also the second answer to a question whose first was refused
            text = listed[(number // 100) % len(listed)]
        read, pieces = len(PIECE.findall(told)), len(PIECE.findall(text))
        room = body.get("max_tokens") or body.get("max_completion_tokens") or 10**9
        cut = pieces > room or (number // 7) % 50 == 0
        written = min(room, pieces)
        pace = 0.8 + 0.4 * (number // 11 % 1000) / 1000
        return Say(
            text=text, finish="length" if cut else "stop",
            usage={"prompt_tokens": read, "completion_tokens": written},
            hang=0.05 + pace * (2e-5 * read + 2e-3 * written),
        )  # fmt: skip

    return rule


@contextmanager
def engine(case: Case, home: Path, root: Path) -> Iterator[str]:
    """Yield the settings of the engine that answers ``case``."""
    if case.texts is None:
        model = make_tiny_lm(home / "model", stops=2.0)
        yield (f'[llm]\nengine = "hf"\nmodel = "{model}"\nmax_tokens = 32\ntemperature = 1.0\n'
               f'[prices."{model}"]\n{PRICES}')  # fmt: skip
        return
    with Loopback(rule=writer(case.texts(root))) as server:
        yield (f'[llm]\nengine = "openai"\nmodel = "{MODEL}"\nendpoint = "{server.url}"\n'
               f'concurrency = 16\nmax_tokens = 800\n[prices."{MODEL}"]\n{PRICES}')  # fmt: skip


def llmers(home: Path, *words: str) -> dict[str, Any]:
    """Run a command in a process of its own and return its JSON."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMERS_", "DAGSTER_"))}
    told = kept | {
        "LLMERS_HOME": str(home), "LLMERS_CONFIG": str(home / "llmers.toml"),
        "LLMERS_DATA_ROOT": os.environ["LLMERS_DATA_ROOT"], "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "sk-loopback",
    }  # fmt: skip
    code = "from llmers_pipelines.cli import run_main; run_main()"
    done = subprocess.run([sys.executable, "-c", code, *words, "--json"], env=told, cwd=home,
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"llmers {' '.join(words)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def row_of(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    return next(row for row in document["assets"] if row["key"] == key)


def measure(name: str, home: Path, root: Path) -> list[tuple[str, float | None, float | None, str]]:
    """Return (figure, planned, measured, source) of one case."""
    case = CASES[name]
    with engine(case, home, root) as chosen:
        cut = 'settings = { protocol = "ctr_time" }\n' if case.asset == USERS else ""
        told = f'[llmers]\ndataset = "{case.dataset}"\n[[methods]]\nrecipe = "kar"\n{cut}{chosen}'
        (home / "llmers.toml").write_text(told)
        on = ("-d", case.dataset)
        inputs = [r["key"] for r in llmers(home, "plan", case.asset, *on)["assets"]
                  if r["verb"] != "generate"]  # fmt: skip
        llmers(home, "run", *inputs, *on)
        document = llmers(home, "plan", case.asset, *on, "--pilot", "--yes")
        plan, load = row_of(document, case.asset), os.getloadavg()[1]
        report = llmers(home, "run", case.asset, *on)
    ran, found = row_of(report, case.asset), row_of(report["estimate"], case.asset)
    # What the store served: answers of the pilot, and of their repairs.
    (pilot,) = document["pilots"]
    rows = [
        ("rows", plan["rows"], ran["rows"], "rendered"),
        ("cached", plan["cached"], ran["cache_hits"] - (pilot["llm_calls"] - plan["cached"]),
         "rendered"),
    ]  # fmt: skip
    for figure in FIGURES:
        pair = found[figure]
        rows.append((figure, pair["estimate"], pair["actual"], found["sources"][figure]))
    told = f"processes at work (5 min): {load:.0f} at the plan, {os.getloadavg()[1]:.0f} at the end"
    rows[-2] = (*rows[-2][:3], f"{rows[-2][3]}; {told}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--keep", type=Path, help="leave the homes in this folder")
    given = parser.parse_args()
    if not os.environ.get("LLMERS_DATA_ROOT"):
        raise SystemExit("set LLMERS_DATA_ROOT to the folder that holds imdb_aspects, ml100k, ml1m")
    root, off = Path(os.environ["LLMERS_DATA_ROOT"]), []
    print("| case | figure | planned | measured | difference | source |\n|---|---|---|---|---|---|",
          flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.cases or CASES:
            home = (given.keep or Path(temporary)) / name
            home.mkdir(parents=True)
            for figure, planned, actual, source in measure(name, home, root):
                error = _error(planned, actual)
                shown = "-" if error is None else f"{error:+.1f} %"
                print(f"| {name} | {figure} | {_shown(planned)} | {_shown(actual)} | {shown} "
                      f"| {source} |", flush=True)  # fmt: skip
                if error is None or abs(error) > BOUND:
                    off.append(f"{name}: {figure}")
    print(f"\noff by more than {BOUND:g} %: {', '.join(off) or 'none'}")
    return bool(off)


def _error(planned: float | None, actual: float | None) -> float | None:
    if planned is None or actual is None:
        return None
    if not actual:
        return 0.0 if not planned else math.inf
    return 100 * (planned - actual) / actual


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


if __name__ == "__main__":
    sys.exit(main())
