"""Pictures through real vLLM, beside the transformers engine: `make test-vllm`; else skipped."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llmers_pipelines.llm.hf import HfEngine, HfSettings
from llmers_pipelines.llm.images import ImageReader
from llmers_pipelines.llm.keys import request_json
from llmers_pipelines.llm.protocol import GenRequest
from llmers_pipelines.llm.vllm import VllmEngine, VllmSettings, describe, installed

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not installed(), reason="vLLM is not installed: `make test-vllm`"),
]
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "maxLength": 9}, "kind": {"enum": ["sea", "war"]}},
    "required": ["mood", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageReader:
    folder = tmp_path_factory.mktemp("shelf")
    rng = np.random.default_rng(3)
    for n in range(4):
        pixels = rng.integers(0, 255, (30, 40 + n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return ImageReader(folder, folder.parent / "cache")


@pytest.fixture(scope="module", params=["tiny_idefics", "wide_vlm"])
def engines(request: pytest.FixtureRequest) -> Iterator[tuple[HfEngine, VllmEngine]]:
    """Idefics3, whose image processor works on PIL alone; LLaVA where torchvision is installed."""
    if request.param == "wide_vlm" and find_spec("torchvision") is None:
        pytest.skip("vLLM's LLaVA imports torchvision, not installed; Idefics3 does not")
    model = str(request.getfixturevalue(request.param))
    hf = HfEngine(HfSettings(model, device="cpu"))
    vllm = VllmEngine(VllmSettings(model, max_batch=8, kv_cache_gib=0.25))
    yield hf, vllm
    hf.close()
    vllm.close()


def asks(pictures: ImageReader) -> list[GenRequest]:
    out = []
    for n in range(4):
        image: Any = {"type": "image", "image": pictures.look(f"{n}.png")}
        words = {"type": "text", "text": "the sea " * (1 + n)}
        chat = ({"role": "system", "content": "answer"},
                {"role": "user", "content": [image, words]})  # fmt: skip
        out.append(GenRequest(f"free{n}", chat, max_tokens=12))
        out.append(GenRequest(f"bound{n}", chat, max_tokens=60, schema=SCHEMA))
    both = [{"type": "image", "image": pictures.look("0.png")}, {"type": "text", "text": "and"},
            {"type": "image", "image": pictures.look("1.png")}]  # fmt: skip
    out.append(GenRequest("two", ({"role": "user", "content": both},), max_tokens=12))
    for n in range(2):  # the same words, another picture
        alike: Any = [{"type": "image", "image": pictures.look(f"{n}.png")}, *both[1:2]]
        out.append(GenRequest(f"alike{n}", ({"role": "user", "content": alike},), max_tokens=12))
    out.append(GenRequest("words", ({"role": "user", "content": "the sea"},), max_tokens=12))
    return out


def test_answers_about_pictures_are_those_of_the_transformers_engine(
    engines: tuple[HfEngine, VllmEngine], pictures: ImageReader
) -> None:
    hf, vllm = engines
    wanted = asks(pictures)
    theirs = {r.row_id: (r.text, r.finish_reason, r.tokens_in, r.tokens_out, r.error)
              for r in hf.generate(wanted)}  # fmt: skip
    mine = {r.row_id: (r.text, r.finish_reason, r.tokens_in, r.tokens_out, r.error)
            for r in vllm.generate(wanted)}  # fmt: skip
    assert mine == theirs
    assert len({mine[f"free{n}"][0] for n in range(4)}) == 4
    assert mine["alike0"][0] != mine["alike1"][0], "the picture is looked at"
    assert not any(error for *_, error in mine.values())


def test_a_picture_that_went_missing_fails_alone(
    engines: tuple[HfEngine, VllmEngine], pictures: ImageReader
) -> None:
    Image.new("RGB", (9, 9)).save(pictures.folder / "lost.png")
    image: Any = {"type": "image", "image": pictures.look("lost.png")}
    (pictures.folder / "lost.png").unlink()
    lost = GenRequest("lost", ({"role": "user", "content": [image]},), max_tokens=4)
    found = {r.row_id: r for r in engines[1].generate([lost, *asks(pictures)[:1]])}
    assert "cannot be read" in found["lost"].error and not found["free0"].error


def test_keys_are_shared(engines: tuple[HfEngine, VllmEngine], pictures: ImageReader) -> None:
    hf, vllm = engines
    same = describe(vllm.settings)
    assert "images" in same.capabilities and same.identity == hf.info.identity
    for ask in asks(pictures):
        assert request_json(ask, same) == request_json(ask, hf.info)
