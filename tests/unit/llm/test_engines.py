"""The factory, the template and the fake, progress and budget: the small parts."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmers_pipelines.data.recorded import Entry, RecordedFile, Recording
from llmers_pipelines.data.schema import DataError
from llmers_pipelines.llm import progress as progress_module
from llmers_pipelines.llm.budget import Budget, Spent
from llmers_pipelines.llm.factory import engine_info, make_engine, resolve_kind
from llmers_pipelines.llm.fake import FakeEngine, smallest
from llmers_pipelines.llm.progress import Progress
from llmers_pipelines.llm.protocol import ChoiceRequest, Engine, EngineError, GenRequest
from llmers_pipelines.llm.template import TemplateEngine

TEXTS = Recording({"1": Entry("x")}, "a" * 64, "texts")


@dataclass(frozen=True)
class Settings:
    """The part of ``config.Settings`` that the factory reads."""

    engine: str = "auto"
    data: Path = Path(".")
    model: str = ""
    model_revision: str = ""
    adapter: str = ""
    dtype: str = "auto"
    device: str = "cpu"
    batch_tokens: int = 0


def test_auto_is_recorded_where_answers_are_and_template_elsewhere(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    assert make_engine(settings).info.kind == "template"
    assert make_engine(settings, recorded=TEXTS).info.kind == "recorded"
    assert resolve_kind(settings) == "template"
    assert make_engine(Settings("template"), recorded=TEXTS).info.kind == "template"


def test_row_versions_of_different_scopes_are_kept_apart(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    for scope, row in (("ml/ctr", {"a": 1}), ("ml/sequential", {"a": 2}), ("ml/ctr", {"a": 1})):
        engine = make_engine(settings, recorded=TEXTS, scope=scope)
        (result,) = engine.generate([GenRequest("1", (), row=row)])
        assert result.text == "x", scope
    engine = make_engine(settings, recorded=TEXTS, scope="ml/ctr")
    (changed,) = engine.generate([GenRequest("1", (), row={"a": 2})])
    assert changed.error
    assert (tmp_path / "imports" / "ml_ctr" / ("a" * 16)).is_dir()


def test_faults_of_the_choice_name_the_mend(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="declares no recorded answers"):
        make_engine(Settings("recorded"))
    with pytest.raises(EngineError, match=r"'vlm'; expected auto, template"):
        make_engine(Settings("vlm"))
    with pytest.raises(DataError, match="does not exist"):
        make_engine(Settings(data=tmp_path), recorded=RecordedFile(tmp_path / "none.csv"))


def test_hf_by_settings(tiny_lm: Path) -> None:
    settings = Settings("hf", model=str(tiny_lm))
    info = engine_info(settings)
    engine = make_engine(settings)
    assert engine.info == info and info.kind == "hf" and "model" not in vars(engine)


def test_engines_follow_the_protocol(tmp_path: Path) -> None:
    made = make_engine(Settings(data=tmp_path), recorded=TEXTS)
    for engine in (TemplateEngine(), FakeEngine(), made):
        assert isinstance(engine, Engine)
        engine.close()


def test_template_answers_and_refuses() -> None:
    asks = [GenRequest("1", (), without_model=lambda: "said"), GenRequest("2", ())]
    said, unsaid = TemplateEngine().generate(asks)
    assert said.text == "said" and "no template" in unsaid.error
    with pytest.raises(EngineError, match="template engine cannot embed"):
        TemplateEngine().embed(["a"])
    with pytest.raises(EngineError, match="template engine cannot rank"):
        TemplateEngine().choose([])


def test_fake_scripts() -> None:
    engine = FakeEngine({"a": "one", "b": ["first", "second"], "c": lambda r: r.row_id.upper()})
    asks = [GenRequest(i, ({"role": "user", "content": "two words"},)) for i in "abcbb"]
    assert [r.text for r in engine.generate(asks)] == ["one", "first", "C", "second", "second"]
    assert engine.attempts == {"a": 1, "b": 3, "c": 1}
    (choice,) = engine.choose([ChoiceRequest("1", (), ("x", "y"))])
    assert choice.best == 0
    vectors = engine.embed(["ab", "ba", ""])
    assert vectors.shape == (3, 26) and np.array_equal(vectors[0], vectors[1])


def test_fake_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    list(FakeEngine(latency=0.5).generate([GenRequest("1", ()), GenRequest("2", ())]))
    assert slept == [0.5, 0.5]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": "a"}, "a"),
        ({"enum": ["b", "c"]}, "b"),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "integer", "minimum": 2}, 2),
        ({"type": "boolean"}, False),
        ({"anyOf": [{"type": "null"}, {"const": 1}]}, None),
        ({"type": "array", "items": {"const": 1}, "minItems": 2}, [1, 1]),
        ({"type": "object", "properties": {"a": {"const": 1}}}, {"a": 1}),
    ],
)
def test_smallest(schema: dict[str, Any], value: Any) -> None:
    assert smallest(schema) == value


def test_budget_counts_calls_and_tokens() -> None:
    spent = Spent(Budget(calls=2, tokens=100))
    assert spent.calls_left == 2 and spent.stopped == ""
    spent.add(99)
    assert spent.calls_left == 1 and spent.stopped == ""
    spent.add(1)
    assert spent.stopped == "budget reached: 2 of 2 calls"
    assert Spent(Budget()).calls_left is None
    spent = Spent(Budget(tokens=5))
    spent.add(7)
    assert spent.stopped == "budget reached: 7 of 5 tokens"


def test_no_terminal_gets_sparse_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress("answers", stream=stream) as bar:
        bar.more(100)
        for _ in range(100):
            now[0] += 1.0
            bar.advance(10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4  # every 30 seconds, and the end
    assert lines[0] == "answers: 30 of 100 rows, 1.0 rows/s, 300 tokens, about 70 s left"
    assert lines[-1].startswith("answers: 100 of 100 rows")


def test_short_or_silenced_runs_say_nothing() -> None:
    for report in (None, False):
        stream = io.StringIO()
        with Progress("answers", report, stream=stream) as bar:
            bar.more(2)
            bar.advance(1)
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("answers", stream=stream) as bar:
        bar.more(2)
        bar.advance(1200)
        bar.advance(34)
    shown = stream.getvalue()
    assert "answers" in shown and "2/2" in shown and "1,234 tokens" in shown and "rows/s" in shown


def test_nothing_heavy_is_imported_before_an_engine_is_wanted() -> None:
    code = (
        "import sys\n"
        "import llmers_pipelines.llm.factory, llmers_pipelines.llm.runner\n"
        "import llmers_pipelines.llm.structured, llmers_pipelines.llm.hf\n"
        "from llmers_pipelines.prompts import all_tasks; all_tasks()\n"
        "heavy = {'torch', 'transformers', 'xgrammar', 'mlflow', 'dagster', 'rich'}\n"
        "bad = heavy & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
