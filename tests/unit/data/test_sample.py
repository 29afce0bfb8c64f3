"""The bundled sample: facts about its files, its process, and the structure planted in it."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llmers_pipelines.data.catalog import load_catalog
from llmers_pipelines.data.description import load_description
from llmers_pipelines.data.sample_process import Planted, Process, read_items, simulate, write
from llmers_pipelines.llm.keys import description_sha
from llmers_pipelines.prompts.item_knowledge import ItemKnowledge
from llmers_pipelines.prompts.item_summary import ItemSummary

SAMPLE = Path(__file__).parents[3] / "data" / "sample"
TASKS = {"item_knowledge": ItemKnowledge(), "item_summary": ItemSummary()}


@pytest.fixture(scope="module")
def items() -> list[dict[str, str]]:
    return read_items(SAMPLE)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted.load(SAMPLE)


@pytest.fixture(scope="module")
def log() -> list[tuple[str, str, int, int]]:
    with (SAMPLE / "interactions.csv").open(newline="") as file:
        return [
            (r["user_id"], r["item_id"], int(r["rating"]), int(r["timestamp"]))
            for r in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def histories(items, log) -> list[list[int]]:
    """Positions in ``items`` per user, oldest first."""
    place = {item["item_id"]: n for n, item in enumerate(items)}
    found = defaultdict(list)
    for user, item, _, _ in log:  # the file is sorted by time
        found[user].append(place[item])
    return list(found.values())


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    """The items as the catalog table holds them, by id."""
    table = load_catalog(load_description(SAMPLE / "sample.toml")).items
    return {row["item_id"]: row for row in table.to_pylist()}


def answers(task: str) -> tuple[dict, list[dict]]:
    lines = (SAMPLE / "recorded" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    header, *rest = map(json.loads, lines)
    return header["header"], rest


def content(line: dict) -> str:
    return line["response"]["body"]["choices"][0]["message"]["content"]


def most_shared(texts: Iterable[str]) -> float:
    """Return the largest share of five-word runs that a text has in common with another one."""
    runs = []
    for text in texts:
        words = text.lower().split()
        runs.append({tuple(words[n : n + 5]) for n in range(len(words) - 4)})
    owners = defaultdict(list)
    for n, own in enumerate(runs):
        for run in own:
            owners[run].append(n)
    common = Counter((a, b) for who in owners.values() for a in who for b in who if a != b)
    return max((n / len(runs[a]) for (a, _), n in common.items()), default=0.0)


def test_catalog_is_sound(items, planted):
    assert list(items[0]) == ["item_id", "title", "author", "year", "subjects", "description"]
    assert [item["item_id"] for item in items] == [f"b{n:04d}" for n in range(1, len(items) + 1)]
    assert len({(item["title"], item["author"]) for item in items}) == len(items) >= 500
    used = Counter()
    for item in items:
        subjects = item["subjects"].split("|")
        used.update(subjects)
        assert int(item["year"]) < 1929, item
        assert 2 <= len(set(subjects)) == len(subjects) <= 5, item
        assert 25 <= len(item["description"].split()) <= 50, item
    assert set(used) == set(planted.subjects)
    assert min(used.values()) >= 9
    assert most_shared(item["description"] for item in items) < 0.1


def test_process_names_only_what_exists(items, planted):
    titles = {item["title"] for item in items}
    assert not [title for part in planted.series for title in part if title not in titles]
    assert all(set(taste) <= set(planted.subjects) for taste in planted.tastes.values())
    tasted = {subject for taste in planted.tastes.values() for subject in taste}
    assert tasted == set(planted.subjects)


def test_same_seed_gives_the_bundled_bytes(items, planted, tmp_path):
    write(tmp_path, simulate(items, planted))
    for name in ("interactions.csv", "users.csv"):
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name


def test_another_seed_gives_another_log(items, planted):
    a, b, c = (simulate(items, planted, Process(seed=s, users=20)) for s in (1, 1, 2))
    assert a.interactions == b.interactions
    assert a.interactions != c.interactions


def test_unknown_subject_is_named(items, planted):
    wrong = [items[0] | {"subjects": "cookery|drama"}]
    with pytest.raises(ValueError, match=r"item b0001: subject 'cookery'.*process\.toml"):
        simulate(wrong, planted)


def test_log_keeps_its_limits(items, log):
    process = Process()
    joined = {}
    with (SAMPLE / "users.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            joined[row["user_id"]] = date.fromisoformat(row["joined"])
    assert len(joined) == 1200
    assert 20_000 <= len(log) <= 30_000
    assert {item for _, item, _, _ in log} <= {item["item_id"] for item in items}
    assert {rating for _, _, rating, _ in log} == {1, 2, 3, 4, 5}
    times = [t for *_, t in log]
    assert times == sorted(times)
    rows = defaultdict(list)
    for user, item, _, t in log:
        rows[user].append((t, item))
    assert set(rows) == set(joined)
    last_day = process.start + timedelta(days=process.days)
    for user, read in rows.items():
        assert process.fewest <= len(read) <= process.most
        assert len({item for _, item in read}) == len({t for t, _ in read}) == len(read)
        first, last = (date.fromtimestamp(read[n][0]) for n in (0, -1))
        assert process.start <= joined[user] <= first + timedelta(days=1)
        assert last <= last_day + timedelta(days=1)


def test_long_tail_and_cold_items(items, log):
    counts = Counter(item for _, item, _, _ in log)
    number = np.sort([counts[item["item_id"]] for item in items])[::-1]
    assert 0.45 < number[: len(number) // 5].sum() / number.sum() < 0.7
    assert (number <= 1).sum() >= Process.cold
    assert (number == 0).sum() == Process.cold // 2
    assert 60 <= (number < 10).sum() <= 200


def ranks(scores: np.ndarray, seen: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return ranks from 0 of ``target`` among unseen items, ties counted half."""
    scores = np.where(seen > 0, -np.inf, scores)
    own = np.take_along_axis(scores, target[:, None], 1)
    return (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def cosine(x: np.ndarray) -> np.ndarray:
    x = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9)
    near = x @ x.T
    np.fill_diagonal(near, 0.0)
    return near


def test_co_occurrence_and_subjects_carry_signal(items, planted, histories):
    n = len(items)
    seen = np.zeros((len(histories), n))
    for user, read in enumerate(histories):
        seen[user, read[:-1]] = 1.0
    target = np.array([read[-1] for read in histories])
    popularity = seen.sum(0)
    subjects = np.array(
        [[s in item["subjects"].split("|") for s in planted.subjects] for item in items], float
    )
    tail = popularity[target] <= np.median(popularity)
    together = seen.T @ seen
    np.fill_diagonal(together, 0.0)
    knn = together / (np.sqrt(np.outer(popularity, popularity)) + 10)
    shuffled = np.random.default_rng(0).permutation(n)
    found = {
        "popularity": ranks(np.tile(popularity, (len(seen), 1)), seen, target),
        "item_knn": ranks(seen @ knn, seen, target),
        "subjects": ranks(seen @ cosine(subjects), seen, target),
        "shuffled": ranks(seen @ cosine(subjects[shuffled]), seen, target),
    }
    hits = {name: (rank < 10).mean() for name, rank in found.items()}
    tails = {name: (rank[tail] < 10).mean() for name, rank in found.items()}
    assert hits["item_knn"] > 1.5 * hits["popularity"]
    assert hits["subjects"] > 3 * hits["shuffled"]
    assert tails["subjects"] > 3 * max(tails["popularity"], tails["shuffled"], 0.01)


def test_order_carries_signal(items, planted, histories):
    """Neighbouring books share an author more often than distant ones of the same reader, and a
    series is read onward more often than back (back happens: another book of the author)."""
    author = [item["author"] for item in items]
    near = [author[a] == author[b] for h in histories for a, b in pairwise(h)]
    far = [author[a] == author[b] for h in histories for a, b in zip(h, h[5:], strict=False)]
    assert np.mean(near) > 3 * np.mean(far)
    place = {item["title"]: n for n, item in enumerate(items)}
    follows = {(place[a], place[b]) for s in planted.series for a, b in pairwise(s)}
    steps = Counter((a, b) for h in histories for a, b in pairwise(h))
    onward = sum(steps[pair] for pair in follows)
    assert onward > 1.5 * sum(steps[b, a] for a, b in follows)


def test_ratings_follow_taste(items, planted):
    """Ratings rise with the number of subjects that a book shares with the reader's tastes."""
    made = simulate(items, planted, Process(seed=3, users=200))
    tastes = list(planted.tastes.values())
    subjects = {item["item_id"]: item["subjects"].split("|") for item in items}
    fit, rating = [], []
    for user, item, r, _ in made.interactions:
        mixture = made.mixtures[int(user[1:]) - 1]
        fit.append(sum(
            share * tastes[k].get(s, 0.0)
            for k, share in enumerate(mixture) if share for s in subjects[item]
        ))  # fmt: skip
        rating.append(r)
    assert np.corrcoef(fit, rating)[0, 1] > 0.25


def test_without_taste_there_is_no_structure(items, planted):
    """The knobs are what plants the signal: with all at zero, readers are alike."""
    off = dataclasses.replace(
        Process(users=120), taste=0.0, leaning=0.0, era=0.0, author=0.0, follow=0.0
    )
    index = {item["item_id"]: k for k, item in enumerate(items)}
    rows = {s: k for k, s in enumerate(planted.subjects)}
    x = np.zeros((len(items), len(rows)))
    for k, item in enumerate(items):
        x[k, [rows[s] for s in item["subjects"].split("|")]] = 1.0
    near = cosine(x)

    def closeness(process: Process) -> float:
        read = defaultdict(list)
        for user, item, _, _ in simulate(items, planted, process).interactions:
            read[user].append(index[item])
        own = np.mean([near[np.ix_(r, r)].sum() / (len(r) * (len(r) - 1)) for r in read.values()])
        mixed = [k for r in read.values() for k in r]
        return float(own / near[np.ix_(mixed, mixed)].mean())

    assert closeness(Process(users=120)) > 1.3
    assert closeness(off) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_recorded_answers_are_valid_and_specific(task, rows):
    header, lines = answers(task)
    prompt = TASKS[task]
    assert header["prompt_task"] == task
    assert header["prompt_revision"] == prompt.revision
    assert "not a template" in header["how"]
    ids = [line["custom_id"].removeprefix(f"{task}:") for line in lines]
    assert len(set(ids)) == len(ids) >= 160
    for item_id, line in zip(ids, lines, strict=True):
        row, told = rows[item_id], line["response"]["body"]["metadata"]["item"]
        assert told["title"] == row["title"]
        assert told["description_sha"] == description_sha(row), item_id
        parsed = prompt.parse(content(line))
        assert parsed.status == "ok", (item_id, parsed.reason)
        assert prompt.ground(parsed.value, row) == [], item_id
    assert most_shared(map(content, lines)) < 0.25


def test_recorded_knowledge_has_its_length():
    for line in answers("item_knowledge")[1]:
        assert 60 <= len(content(line).split()) <= 112, line["custom_id"]


def test_recorded_summaries_have_few_short_parts():
    for line in answers("item_summary")[1]:
        told = json.loads(content(line))
        assert list(told) == ["summary", "themes", "mood", "audience"]
        assert 3 <= len(told["themes"]) <= 6, line["custom_id"]
        assert len(told["mood"].split()) <= 3, line["custom_id"]


def test_recorded_items_are_popular_tail_and_cold(log):
    counts = Counter(item for _, item, _, _ in log)
    ids = {t: {line["custom_id"].split(":")[1] for line in answers(t)[1]} for t in TASKS}
    assert ids["item_knowledge"] == ids["item_summary"]
    number = [counts[item] for item in ids["item_summary"]]
    assert sum(n >= 60 for n in number) >= 30
    assert sum(2 <= n <= 20 for n in number) >= 30
    assert sum(n <= 1 for n in number) >= 15


def test_folder_stays_small():
    assert sum(f.stat().st_size for f in SAMPLE.rglob("*") if f.is_file()) < 3 * 1024**2
