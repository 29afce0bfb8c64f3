"""A picture as a model sees it: decoded, bounded, scaled down, and named by its pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import ImageSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureError(ValueError):
    """A picture cannot be used; the message says which bound or fault, for its row alone."""


@dataclass(frozen=True)
class Picture:
    """The part ``{"type": "image", "image": Picture}`` of a message.

    ``sha256`` is that of the RGB pixels which are sent, with their ``width`` and ``height``: equal
    pictures under other names, or stored as other file types, are equal. Pixels are read again from
    ``path`` when an engine wants them, so that a run need not hold all of them.
    """

    sha256: str
    width: int
    height: int
    origin: str = field(default="", compare=False)  # the cell, for people
    path: Path = field(default=Path(), compare=False, repr=False)
    bounds: ImageSettings = field(default_factory=ImageSettings, compare=False, repr=False)

    def pixels(self) -> Image:
        """Return the RGB picture; ``PictureError`` where the file is no longer what it was."""
        image = decoded(read_bounded(self.path, self.bounds), self.bounds)
        if pixels_sha256(image) != self.sha256:
            raise PictureError(f"the picture {self.origin!r} changed while the run went on")
        return image


def pixels_of(image: Picture | bytes) -> Image:
    """Return the RGB pixels of an image part: a ``Picture``, or the bytes of a file."""
    return image.pixels() if isinstance(image, Picture) else decoded(image, ImageSettings())


def png_of(image: Picture | bytes) -> bytes:
    """Return an image part as a PNG file."""
    out = io.BytesIO()
    pixels_of(image).save(out, "PNG")
    return out.getvalue()


def image_sha256(image: Picture | bytes) -> str:
    """Return the hash by which an image part enters a request's key."""
    return image.sha256 if isinstance(image, Picture) else hashlib.sha256(image).hexdigest()


def images_in(messages: Any) -> list[Any]:
    """Return the images of all parts, in order."""
    parts = (p for m in messages if not isinstance(m["content"], str) for p in m["content"])
    return [part["image"] for part in parts if part.get("type") == "image"]


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message as JSON data: a picture by its hash, size and origin."""
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    return {**message, "content": [_plain(part) for part in content]}


def _plain(part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") != "image":
        return dict(part)
    image = part["image"]
    told: dict[str, Any] = {"type": "image", "sha256": image_sha256(image)}
    if isinstance(image, Picture):
        told |= {"width": image.width, "height": image.height, "from": image.origin}
    return told


def texts_of(message: Mapping[str, Any]) -> str:
    """Return the texts of a message, its images left out."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(p["text"]) for p in content if isinstance(p.get("text"), str))


def read_bounded(path: Path, bounds: ImageSettings) -> bytes:
    """Return the bytes of a file; ``PictureError`` where it is too large or unreadable."""
    most = int(bounds.max_megabytes * 1_000_000)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise PictureError(f"the file cannot be read ({error.strerror or error})") from error
    if len(data) > most:
        bound = f"images.max_megabytes = {bounds.max_megabytes:g}"
        raise PictureError(f"the file is larger than {bound}")
    return data


def decoded(data: bytes, bounds: ImageSettings) -> Image:
    """Return the RGB picture of a file's bytes, at most ``max_side`` pixels long.

    Its orientation mark is applied, transparency is laid on white, and of an animation the first
    frame is taken. Width and height are looked at before any pixel is decoded.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=[t.upper() for t in bounds.types])
        width, height = image.size
        if width * height > bounds.max_pixels:
            raise PictureError(
                f"{width} x {height} pixels are more than images.max_pixels = {bounds.max_pixels}"
            )
        image.load()
        image = ImageOps.exif_transpose(image)
        image = _rgb(image)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"it is no picture of type {', '.join(bounds.types)}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"it has more than images.max_pixels = {bounds.max_pixels}") from error
    except Exception as error:  # decoders raise many kinds on damaged files
        raise PictureError(f"the picture is damaged ({type(error).__name__}: {error})") from error
    longer = max(image.size)
    if longer > bounds.max_side:
        size = [max(1, round(side * bounds.max_side / longer)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return image


def _rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I;16"):  # 16 bits a pixel: the upper eight
        image = image.point([value >> 8 for value in range(65536)], "L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def pixels_sha256(image: Image) -> str:
    """Return the hash of an RGB picture's size and pixels, whatever file type it came in."""
    digest = hashlib.sha256(f"RGB {image.width} {image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def decoder() -> str:
    """Return the version of what decodes: another one may give other pixels."""
    import PIL

    return f"pillow {PIL.__version__}"
