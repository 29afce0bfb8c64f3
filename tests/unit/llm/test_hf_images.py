"""The path of pictures through a vision-language model: 85k random weights, a real processor."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_vlm import IMAGE_TOKENS

from llmers_pipelines.llm.hf import HfEngine, HfSettings, describe
from llmers_pipelines.llm.images import ImageReader
from llmers_pipelines.llm.keys import request_json
from llmers_pipelines.llm.protocol import ChoiceRequest, GenRequest
from llmers_pipelines.llm.runner import RunResult, run_task
from llmers_pipelines.prompts.item_summary import ItemSummary
from llmers_pipelines.prompts.pictured_item_summary import PicturedItemSummary
from llmers_pipelines.store.responses import ResponseStore

CONTEXT = {"domain": "books", "fields": {"title": "text", "cover": "image"}}
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "maxLength": 9}, "kind": {"enum": ["sea", "war"]}},
    "required": ["mood", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine(tiny_vlm: Path) -> Any:
    engine = HfEngine(HfSettings(str(tiny_vlm), device="cpu"))
    yield engine
    engine.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Four pictures of noise; two are equal under different names and file types."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    rng = np.random.default_rng(3)
    noise = [rng.integers(0, 255, (30, 40, 3), dtype=np.uint8) for _ in range(3)]
    for name, pixels in zip("abc", noise, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(noise[0]).save(folder / "a_again.webp", lossless=True)
    return folder


@pytest.fixture
def pictures(shelf: Path) -> ImageReader:
    return ImageReader(shelf, shelf.parent / "cache")


def show(row: str, picture: Any, text: str = "the sea", **more: Any) -> GenRequest:
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
    messages = ({"role": "system", "content": "answer"}, {"role": "user", "content": parts})
    return GenRequest(row, messages, **({"max_tokens": 12} | more))


def tell(row: str, text: str, **more: Any) -> GenRequest:
    messages = ({"role": "system", "content": "answer"}, {"role": "user", "content": text})
    return GenRequest(row, messages, **({"max_tokens": 12} | more))


def by_row(results: Any) -> dict[str, Any]:
    return {r.row_id: r for r in results}


def test_what_a_folder_says_of_itself(tiny_vlm: Path, tiny_lm: Path) -> None:
    sees, reads = describe(HfSettings(str(tiny_vlm))), describe(HfSettings(str(tiny_lm)))
    assert "images" in sees.capabilities and sees.image_processor
    assert "images" not in reads.capabilities and not reads.image_processor
    assert "<image>" in sees.marks.texts


def test_answers_depend_on_the_picture(engine: HfEngine, pictures: ImageReader) -> None:
    a, b, again = (pictures.look(n) for n in ("a.png", "b.png", "a_again.webp"))
    got = by_row(engine.generate([show("a", a), show("b", b), show("same", again),
                                  tell("none", "the sea")]))  # fmt: skip
    assert not any(r.error for r in got.values())
    assert len({got["a"].text, got["b"].text, got["none"].text}) == 3
    assert got["a"].text == got["same"].text
    # The template writes "<image>" and a line break; the processor makes four tokens of the mark.
    assert got["a"].tokens_in == got["none"].tokens_in + IMAGE_TOKENS + 1


def test_rows_of_a_batch_answer_as_they_do_alone(engine: HfEngine, pictures: ImageReader) -> None:
    asks = [show(f"{n}{i}", pictures.look(f"{n}.png"), "the sea " * (1 + 3 * i))
            for n in "abc" for i in range(3)]  # fmt: skip
    two = {"role": "user", "content": [
        {"type": "image", "image": pictures.look("a.png")}, {"type": "text", "text": "and"},
        {"type": "image", "image": pictures.look("b.png")}, {"type": "text", "text": "mends"},
    ]}  # fmt: skip
    asks += [GenRequest("two", (two,), max_tokens=12), tell("words", "the keeper mends")]
    asks += [show("drawn", pictures.look("b.png"), temperature=1.0, seed=5)]
    together = by_row(engine.generate(asks))
    alone = by_row(r for ask in asks for r in engine.generate([ask]))
    assert {k: (r.text, r.tokens_in, r.error) for k, r in together.items()} == {
        k: (r.text, r.tokens_in, r.error) for k, r in alone.items()
    }
    assert together["two"].tokens_in > 2 * IMAGE_TOKENS and together["drawn"].text


@pytest.mark.parametrize(
    ("fixture", "kind"),
    [("tiny_vlm", "LlavaForConditionalGeneration"),
     ("tiny_idefics", "Idefics3ForConditionalGeneration")],
)  # fmt: skip
def test_it_is_what_the_models_own_classes_answer(
    request: pytest.FixtureRequest, pictures: ImageReader, shelf: Path, fixture: str, kind: str
) -> None:
    import transformers
    from transformers import AutoProcessor

    folder = request.getfixturevalue(fixture)
    engine = HfEngine(HfSettings(str(folder), device="cpu"))
    processor = AutoProcessor.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    words = [{"type": "text", "text": text} for text in ("answer", "the sea")]
    chat = [{"role": "system", "content": words[:1]},
            {"role": "user", "content": [{"type": "image"}, words[1]]}]  # fmt: skip
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=text, images=Image.open(shelf / "c.png"), return_tensors="pt",
                       add_special_tokens=False)  # fmt: skip
    out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    tokens = out[0, inputs["input_ids"].shape[1] :]
    by_hand = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    (mine,) = engine.generate([show("c", pictures.look("c.png"))])
    assert mine.text == by_hand and mine.tokens_in == inputs["input_ids"].shape[1]


def test_a_schema_binds_answers_to_pictures(engine: HfEngine, pictures: ImageReader) -> None:
    asks = [show(n, pictures.look(f"{n}.png"), schema=SCHEMA, max_tokens=60) for n in "abc"]
    for result in engine.generate(asks):
        found = json.loads(result.text, strict=False)
        assert set(found) == {"mood", "kind"} and len(found["mood"]) <= 9


def test_a_text_cannot_bring_a_placeholder_of_its_own(
    engine: HfEngine, pictures: ImageReader
) -> None:
    a = pictures.look("a.png")
    got = by_row(engine.generate([show("bad", a, "the <image> sea"), tell("worse", "<image>"),
                                  show("good", a)]))  # fmt: skip
    assert "special tokens ('<image>')" in got["bad"].error
    assert "special tokens ('<image>')" in got["worse"].error
    assert not got["good"].error


def test_long_prompts_choices_and_lost_files_fail_alone(
    engine: HfEngine, pictures: ImageReader, shelf: Path
) -> None:
    a, b = pictures.look("a.png"), pictures.look("b.png")
    (shelf / "b.png").unlink()
    got = by_row(engine.generate([show("long", a, "sea " * 3000), show("lost", b), show("a", a)]))
    assert "exceed the model's context" in got["long"].error
    assert "cannot be read" in got["lost"].error and not got["a"].error
    (choice,) = engine.choose([ChoiceRequest("1", show("1", a).messages, ("x", "y"))])
    assert "texts alone" in choice.error
    (words,) = engine.choose([ChoiceRequest("1", tell("1", "the sea").messages, ("x", "y"))])
    assert len(words.sums) == 2 and not words.error


def test_a_model_of_texts_says_that_it_cannot_see(tiny_lm: Path, pictures: ImageReader) -> None:
    engine = HfEngine(HfSettings(str(tiny_lm), device="cpu"))
    a = pictures.look("a.png")
    got = by_row(engine.generate([show("a", a), tell("b", "the sea")]))
    assert "reads text only" in got["a"].error and not got["b"].error


def test_keys_hold_the_picture_and_how_it_is_read(
    tiny_vlm: Path, pictures: ImageReader, tmp_path: Path
) -> None:
    info = describe(HfSettings(str(tiny_vlm)))
    a, again, b = (pictures.look(n) for n in ("a.png", "a_again.webp", "b.png"))
    key = request_json(show("1", a), info)
    assert key == request_json(show("2", again), info) != request_json(show("1", b), info)
    assert "a.png" not in key and a.sha256 in key
    # Another way to read images asks again for pictures, and not for texts.
    other = tmp_path / "other"
    shutil.copytree(tiny_vlm, other)
    file = other / "processor_config.json"
    file.write_text(file.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    changed = describe(HfSettings(str(other)))
    assert changed.image_processor != info.image_processor and changed.identity == info.identity
    assert request_json(show("1", a), changed) != key
    assert request_json(tell("1", "x"), changed) == request_json(tell("1", "x"), info)


def test_a_run_with_pictures_pays_once_and_again_for_the_one_that_changed(
    engine: HfEngine, shelf: Path, tmp_path: Path
) -> None:
    rows = [
        {"item_id": "1", "title": "The Tide Clock", "cover": "a.png"},
        {"item_id": "2", "title": "The Tide Clock", "cover": "a_again.webp"},
        {"item_id": "3", "title": "The Tide Clock", "cover": "b.png"},
        {"item_id": "4", "title": "The Tide Clock", "cover": None},
        {"item_id": "5", "title": "The Tide Clock", "cover": "../a.png"},
    ]
    store = ResponseStore(tmp_path / "responses")

    def run(task: Any = PicturedItemSummary(), on: Any = engine) -> RunResult:
        # A reader of its own each time, as another process has it.
        context = {**CONTEXT, "images": ImageReader(shelf, tmp_path / "cache")}
        return run_task(task, rows, on, store, context=context, progress=False)

    calls: list[GenRequest] = []
    asked = engine.generate

    class Counted:
        info = engine.info

        def generate(self, requests: Any, *, halt: Any = None) -> Any:
            calls.extend(requests)
            return asked(requests, halt=halt)

    first = run(on=Counted())
    firsts = [r for r in calls if len(r.messages) == 2 and r.max_tokens == 400]
    assert len(firsts) == 3  # 1 and 2 share a picture, 4 and 5 the text alone
    notes = first.rows["truncated"].to_pylist()
    assert notes[:3] == [None, None, None]
    assert notes[3] == "image of cover: the row names none"
    assert "../a.png" in notes[4] and "no such file" in notes[4]
    keys = first.rows["request_key"].to_pylist()
    assert keys[0] == keys[1] != keys[2] and keys[3] == keys[4]
    assert {r.row_id for r in calls if not isinstance(r.messages[1]["content"], str)} <= {"1", "3"}

    calls.clear()
    second = run(on=Counted())
    assert calls == [] and second.counts["llm_calls"] == 0
    assert second.rows.equals(first.rows)

    Image.new("RGB", (9, 9), (7, 8, 9)).save(shelf / "b.png")
    third = run(on=Counted())
    assert {r.row_id for r in calls} == {"3"}
    assert third.rows["request_key"].to_pylist()[2] != keys[2]

    held = run(PicturedItemSummary(broken="quarantine"))
    assert held.rows["status"].to_pylist()[3:] == ["quarantined", "quarantined"]
    assert "no such file" in held.rows["reason"].to_pylist()[4]
    assert held.counts["llm_calls"] == 0


def test_without_a_model_nobody_looks_at_pictures(shelf: Path) -> None:
    from llmers_pipelines.llm.template import TemplateEngine

    class Blind:
        def look(self, cell: Any) -> Any:
            raise AssertionError("nothing reads this picture")

    row = {"item_id": "1", "title": "The Tide Clock", "cover": "none.png"}
    context = {**CONTEXT, "images": Blind()}
    for broken in ("leave_out", "quarantine"):
        task = PicturedItemSummary(broken=broken)
        found = run_task(task, [row], TemplateEngine(), None, context=context, progress=False)
        plain = run_task(ItemSummary(), [row], TemplateEngine(), None, context=CONTEXT,
                         progress=False)  # fmt: skip
        assert found.rows["text"].equals(plain.rows["text"])
        assert found.rows["truncated"].to_pylist() == [None]


def test_the_question_without_pictures_is_a_question_of_its_own() -> None:
    row = {"item_id": "1", "title": "The Tide Clock"}
    pictured = PicturedItemSummary().render(row, {**CONTEXT, "images": None})
    plain = ItemSummary().render(row, CONTEXT)
    assert pictured[1] == plain[1] and "pictures" in pictured[0]["content"]
    assert pictured[0]["content"].endswith("Answer with the JSON object alone.")
    with pytest.raises(ValueError, match="leave_out, quarantine"):
        PicturedItemSummary(broken="ignore")
    assert dataclasses.replace(PicturedItemSummary()).produces == "item_summaries"
