"""Pictures that go to an endpoint: as data URLs, only where its model reads them, and bounded."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from endpoint_kit import MODEL, engine_at, run
from loopback import Loopback, Say
from PIL import Image

from llmers_pipelines.config import ConfigError, load_settings
from llmers_pipelines.llm.budget import Budget
from llmers_pipelines.llm.chat_form import Form, chat_body, most_tokens
from llmers_pipelines.llm.factory import engine_info
from llmers_pipelines.llm.images import ImageReader
from llmers_pipelines.llm.protocol import GenRequest


@pytest.fixture
def ask(tmp_path: Path) -> GenRequest:
    folder = tmp_path / "shelf"
    folder.mkdir()
    Image.effect_noise((900, 600), 90).convert("RGB").save(folder / "a.png")
    picture = ImageReader(folder, tmp_path / "cache").look("a.png")
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "the sea"}]
    return GenRequest("r0", ({"role": "user", "content": parts},), max_tokens=10)


def test_the_picture_is_sent_as_the_pixels_of_its_key(ask: GenRequest) -> None:
    with Loopback(Say("A calm sea")) as server:
        found = run(engine_at(server, images=True), [ask])
        (body,) = server.bodies
    assert found["r0"].text == "A calm sea"
    image, words = body["messages"][0]["content"]
    assert words == {"type": "text", "text": "the sea"} and image["type"] == "image_url"
    head, data = image["image_url"]["url"].split(",", 1)
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    picture = ask.messages[0]["content"][0]["image"]
    assert head == "data:image/png;base64" and sent.size == (512, 341) == picture.pixels().size
    assert sent.tobytes() == picture.pixels().tobytes()


def test_without_the_setting_the_row_fails_and_nothing_is_sent(ask: GenRequest) -> None:
    words = GenRequest("r1", ({"role": "user", "content": "the sea"},), max_tokens=10)
    with Loopback(Say("A calm sea")) as server:
        found = run(engine_at(server), [ask, words])
        assert len(server.asked) == 1
    assert "llm.images = true" in found["r0"].error and found["r0"].attempts == 0
    assert found["r1"].text == "A calm sea"


def test_a_picture_is_held_as_tokens_and_not_as_bytes(ask: GenRequest) -> None:
    body = chat_body(MODEL, ask, Form(images=True))
    assert len(str(body)) > 100_000
    plain: dict[str, Any] = {**body, "messages": [{"role": "user", "content": ["image", "x" * 60]}]}
    assert 700 < most_tokens(body, 700) < 700 + most_tokens(plain)
    assert most_tokens(plain, 700) == most_tokens(plain)
    with Loopback(Say("A calm sea")) as server:
        engine = engine_at(server, images=True, image_tokens=700, budget=Budget(tokens=1000))
        assert run(engine, [ask])["r0"].text == "A calm sea"
        engine = engine_at(server, images=True, image_tokens=1000, budget=Budget(tokens=1000))
        with pytest.raises(Exception, match="budget"):
            run(engine, [ask])


def test_a_form_that_is_learned_keeps_the_pictures(ask: GenRequest) -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say:
        if "max_tokens" in body:
            return Say(status=400, error={"message": "use max_completion_tokens, not max_tokens"})
        return Say("A calm sea")

    with Loopback(rule=rule) as server:
        engine = engine_at(server, images=True)
        assert run(engine, [ask])["r0"].text == "A calm sea"
    assert engine.form.limit == "max_completion_tokens" and engine.form.images


def test_settings_of_pictures_come_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "llmers.toml"
    file.write_text(
        '[llm]\nengine = "openai"\nmodel = "m"\nimages = true\nimage_tokens = 300\n'
        '[images]\nfetch = true\nmax_side = 256\ntypes = ["png"]\n'
    )
    settings = load_settings(config=str(file), home=tmp_path)
    assert settings.images.max_side == 256 and settings.images.types == ("png",)
    assert "images" in engine_info(settings).capabilities
    file.write_text("[images]\nmax_syde = 3\n")
    with pytest.raises(ConfigError, match=r"llmers.toml \[images\]: unknown setting 'max_syde'"):
        load_settings(config=str(file), home=tmp_path)
    file.write_text("[llm]\nimage_tokens = 0\n")
    with pytest.raises(ConfigError, match="at least 1"):
        load_settings(config=str(file), home=tmp_path)
