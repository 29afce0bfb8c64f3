"""Cells of image columns: which become pictures, within which bounds, and what is never fetched."""

from __future__ import annotations

import hashlib
import http.server
import io
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from llmers_pipelines.images import ImageSettings, read_images
from llmers_pipelines.llm.image_fetch import Fetched, FetchError, fetch, public
from llmers_pipelines.llm.image_index import ImageIndex
from llmers_pipelines.llm.images import ImageReader, NoPicture
from llmers_pipelines.llm.pictures import Picture, PictureError

RED = (200, 10, 20)
WEB = ImageSettings(fetch=True, private_addresses=True, timeout_seconds=5)


def stored(size: tuple[int, int], kind: str = "PNG", color: Any = RED, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, color).save(out, kind)
    return out.getvalue()


def reader(folder: Path, settings: ImageSettings = ImageSettings(), **more: Any) -> ImageReader:
    return ImageReader(folder, folder.parent / "cache", settings, **more)


def picture(found: Picture | NoPicture) -> Picture:
    assert isinstance(found, Picture), found
    return found


def reason(found: Picture | NoPicture) -> str:
    assert isinstance(found, NoPicture), found
    return found.reason


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    (folder / "covers").mkdir(parents=True)
    return folder


def test_a_picture_is_named_by_its_pixels_and_not_by_its_place(shelf: Path) -> None:
    (shelf / "covers/a.png").write_bytes(stored((6, 4)))
    (shelf / "b.webp").write_bytes(b"")
    Image.new("RGB", (6, 4), RED).save(shelf / "b.webp", lossless=True)
    (shelf / "c.png").write_bytes(stored((6, 4), color=(200, 10, 21)))
    read = reader(shelf)
    first, same, other = (picture(read.look(n)) for n in ("covers/a.png", "b.webp", "c.png"))
    by_hand = hashlib.sha256(b"RGB 6 4\n" + bytes(RED) * 24).hexdigest()
    assert first.sha256 == same.sha256 == by_hand and first == same
    assert other.sha256 != by_hand and (other.width, other.height) == (6, 4)


def test_pictures_are_scaled_down_to_the_longer_side_and_never_up(shelf: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(shelf / "wide.png")
    (shelf / "small.png").write_bytes(stored((10, 10)))
    read = reader(shelf, ImageSettings(max_side=100))
    wide, small = picture(read.look("wide.png")), picture(read.look("small.png"))
    assert (wide.width, wide.height) == (100, 40) and wide.pixels().size == (100, 40)
    assert (small.width, small.height) == (10, 10)
    again = picture(reader(shelf, ImageSettings(max_side=100)).look("wide.png"))
    assert again.sha256 == wide.sha256
    assert picture(reader(shelf).look("wide.png")).sha256 != wide.sha256


def test_transparency_is_laid_on_white_and_turns_are_applied(shelf: Path) -> None:
    (shelf / "clear.png").write_bytes(stored((2, 2), color=(0, 0, 0, 0), mode="RGBA"))
    assert picture(reader(shelf).look("clear.png")).pixels().getpixel((0, 0)) == (255, 255, 255)
    turned = Image.new("RGB", (8, 4), RED)
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by a quarter
    turned.save(shelf / "turned.jpg", exif=exif)
    found = picture(reader(shelf).look("turned.jpg"))
    assert (found.width, found.height) == (4, 8)


def test_a_path_stays_in_the_folder(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(stored((3, 3)))
    (shelf / "in.png").write_bytes(stored((3, 3)))
    (shelf / "out.png").symlink_to(tmp_path / "secret.png")
    (shelf / "within.png").symlink_to(shelf / "in.png")
    (shelf / "up").symlink_to(tmp_path)
    read = reader(shelf)
    for name in ("../secret.png", "covers/../../secret.png", "out.png", "up/secret.png"):
        assert "leads out of the data set's folder" in reason(read.look(name))
    for name in (str(tmp_path / "secret.png"), "file:///etc/passwd", "ftp://x/a.png", "a\0.png"):
        assert "paths below the data set's folder" in reason(read.look(name))
    assert picture(read.look("within.png")) == picture(read.look("in.png"))
    assert "no such file" in reason(read.look("none.png"))
    assert "no file" in reason(read.look("covers"))
    for nothing in (None, "", "  ", float("nan")):
        assert reason(read.look(nothing)) == "the row names none"


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is as large as that."""

    def chunk(name: bytes, data: bytes) -> bytes:
        whole = name + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body)
            + chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.parametrize("cell", [
    "https://joe:pass-word@a.example/cat.png?x=1", "http://pass-word@a.example/cat.png",
    "https://joe:pass-word@b@a.example:80/cat.png", "https://joe:pass-word/x@a.example/cat.png",
    "ftp://joe:pass-word@a.example/cat.png",
])  # fmt: skip
def test_the_password_of_an_address_is_in_no_reason(shelf: Path, cell: str) -> None:
    why = reason(reader(shelf, offline=False).look(cell))
    assert "pass-word" not in why and "joe" not in why
    assert "://[hidden]@a.example" in why and "cat.png" in why


def test_an_address_without_a_user_is_shown_whole(shelf: Path) -> None:
    for cell in ("https://a.example:8080/@joe/cat.png", "https://a.example/cat.png?to=b@c"):
        assert reason(reader(shelf).look(cell)).startswith(f"{cell}: it was not fetched before")


def test_bounds_and_damage_are_reasons(shelf: Path) -> None:
    (shelf / "large.png").write_bytes(stored((30, 30)) + b"\0" * 3000)
    (shelf / "many.png").write_bytes(stored((40, 30)))
    (shelf / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (shelf / "cut.jpg").write_bytes(stored((60, 60), "JPEG")[:300])
    (shelf / "words.png").write_text("no picture at all")
    (shelf / "moving.gif").write_bytes(stored((4, 4), "GIF", 1, "P"))
    (shelf / "plain.jpg").write_bytes(stored((4, 4), "JPEG"))
    small = ImageSettings(max_megabytes=0.002, max_pixels=1000)
    large = reason(reader(shelf, small).look("large.png"))
    assert "larger than images.max_megabytes = 0.002" in large
    assert "40 x 30 pixels are more than images.max_pixels = 1000" in reason(
        reader(shelf, small).look("many.png")
    )
    read = reader(shelf)
    assert "max_pixels" in reason(read.look("bomb.png"))
    assert "damaged" in reason(read.look("cut.jpg"))
    assert "no picture of type jpeg, png, webp" in reason(read.look("words.png"))
    assert "no picture of type" in reason(read.look("moving.gif"))
    only = reader(shelf, ImageSettings(types=("png",)))
    assert "no picture of type png" in reason(only.look("plain.jpg"))
    assert picture(read.look("plain.jpg")).width == 4


def test_a_file_that_changes_is_another_picture_and_never_sent_under_the_old_name(
    shelf: Path,
) -> None:
    file = shelf / "a.png"
    file.write_bytes(stored((5, 5)))
    before = picture(reader(shelf).look("a.png"))
    version = reader(shelf).version(["a.png", None])
    file.write_bytes(stored((5, 5), color=(1, 2, 3)))
    with pytest.raises(PictureError, match="changed while the run went on"):
        before.pixels()
    assert picture(reader(shelf).look("a.png")).sha256 != before.sha256
    assert reader(shelf).version(["a.png"]) != version


def test_settings_are_checked() -> None:
    assert read_images("x", {"fetch": True, "max_megabytes": 2, "types": ["png"]}) == replace(
        ImageSettings(), fetch=True, max_megabytes=2.0, types=("png",)
    )
    for wrong, said in (
        ({"max_syde": 3}, "did you mean 'max_side'"),
        ({"max_side": 0}, "at least 1"),
        ({"max_side": 2.5}, "whole number"),
        ({"fetch": "yes"}, "true or false"),
        ({"types": ["gif"]}, "jpeg, png, webp"),
        ({"max_megabytes": float("nan")}, "at least"),
    ):
        with pytest.raises(ValueError, match=said):
            read_images("x", wrong)


# The web


class Site(http.server.BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {}
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        etag = self.headers.get("If-None-Match", "")
        self.asked.append((self.path, etag))
        status, headers, body = self.pages.get(self.path, (404, {}, b""))
        if etag and etag == headers.get("ETag"):
            status, body = 304, b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, dict[str, Any], list[tuple[str, str]]]]:
    Site.pages, Site.asked = {}, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Site.pages, Site.asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_was_fetched_is_read_later_without_the_network(site: Any, shelf: Path) -> None:
    base, pages, asked = site
    pages["/a.png"] = (200, {"Content-Type": "image/png", "ETag": '"1"'}, stored((4, 4)))
    pages["/same.png"] = (200, {}, stored((4, 4)))
    first = reader(shelf, WEB, offline=False)
    first.warm([f"{base}/a.png", f"{base}/same.png", None, "b.png"])
    found = picture(first.look(f"{base}/a.png"))
    assert found == picture(first.look(f"{base}/same.png")) and len(asked) == 2
    kept = [p for p in (shelf.parent / "cache" / "files").rglob("*") if p.is_file()]
    assert [p.name for p in kept] == [hashlib.sha256(stored((4, 4))).hexdigest()]
    version = first.version([f"{base}/a.png"])
    later = reader(shelf)  # offline, nothing may be fetched
    assert picture(later.look(f"{base}/a.png")) == found and len(asked) == 2
    assert "nothing is fetched now" in reason(later.look(f"{base}/new.png"))
    assert reader(shelf, WEB).version([f"{base}/a.png"]) == version


def test_many_may_make_the_index_at_once(tmp_path: Path) -> None:
    faults: list[BaseException] = []
    for turn in range(60):
        index, ready = ImageIndex(tmp_path / f"{turn}.sqlite"), threading.Barrier(4)

        def look(index: ImageIndex = index, ready: threading.Barrier = ready) -> None:
            ready.wait()
            try:
                assert index.address("x") is None
            except sqlite3.OperationalError as error:
                faults.append(error)

        workers = [threading.Thread(target=look) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert faults == []


def test_with_refresh_days_the_server_is_asked_whether_it_changed(site: Any, shelf: Path) -> None:
    base, pages, asked = site
    url = f"{base}/a.png"
    pages["/a.png"] = (200, {"ETag": '"1"'}, stored((4, 4)))
    often = replace(WEB, refresh_days=1e-9)
    before = picture(reader(shelf, often, offline=False).look(url))
    version = reader(shelf, often).version([url])
    assert picture(reader(shelf, often, offline=False).look(url)) == before
    assert asked[-1] == ("/a.png", '"1"') and reader(shelf, often).version([url]) == version
    pages["/a.png"] = (200, {"ETag": '"2"'}, stored((4, 4), color=(0, 0, 9)))
    assert picture(reader(shelf, often, offline=False).look(url)) != before
    assert reader(shelf, often).version([url]) != version
    pages["/a.png"] = (500, {}, b"")  # the web is away: what was there still stands
    assert picture(reader(shelf, often, offline=False).look(url)) != before


def test_faults_of_the_web_are_reasons(site: Any, shelf: Path) -> None:
    base, pages, _ = site
    pages["/page"] = (200, {"Content-Type": "text/html"}, b"<html>")
    pages["/lie.png"] = (200, {"Content-Type": "image/png"}, b"<html>")
    pages["/told.png"] = (200, {"Content-Length": "99000000"}, b"")
    pages["/endless.png"] = (200, {}, stored((4, 4)) + b"\0" * 200_000)
    pages["/short.png"] = (200, {"Content-Length": "5000"}, stored((4, 4)))
    pages["/round"] = (302, {"Location": "/round"}, b"")
    pages["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
    read = reader(shelf, replace(WEB, max_megabytes=0.1), offline=False)
    for path, said in (
        ("/page", "it is text/html"), ("/lie.png", "no picture of type"), ("/none", "answers 404"),
        ("/told.png", "max_megabytes"), ("/endless.png", "max_megabytes"),
        ("/short.png", "broke off"), ("/round", "5 redirects"), ("/file", "no http or https"),
    ):  # fmt: skip
        assert said in reason(read.look(base + path)), path
    for url in ("http://[bad/", "http://host:port/x.png", "https://[::1/x"):
        assert "no web address" in reason(read.look(url)), url
    assert "a user or a password" in reason(read.look(base.replace("//", "//me:pw@")))
    assert not (shelf.parent / "cache" / "files").exists()
    off = reader(shelf, replace(WEB, fetch=False), offline=False)
    assert "images.fetch = true" in reason(off.look(f"{base}/page"))


def test_a_slow_server_ends_with_the_time_allowed(shelf: Path) -> None:
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.png"
        began = time.monotonic()
        quick = replace(WEB, timeout_seconds=0.3)
        assert "time" in reason(reader(shelf, quick, offline=False).look(url)).lower()
        assert time.monotonic() - began < 5


def test_a_server_that_sends_its_head_byte_by_byte_ends_as_well(shelf: Path) -> None:
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer:
                try:
                    for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50:
                        peer.sendall(bytes([byte]))
                        time.sleep(0.05)
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.png"
        began = time.monotonic()
        quick = replace(WEB, timeout_seconds=0.4)
        said = reason(reader(shelf, quick, offline=False).look(url))
        assert "images.timeout_seconds" in said and time.monotonic() - began < 3
        thread.join()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::a01:203",
     "2002:7f00:1::", "fe80::1%eth0"],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_network_are_not_public(address: str) -> None:
    assert not public(address)


def test_public_addresses_are() -> None:
    assert public("93.184.216.34") and public("2606:2800:220:1:248:1893:25c8:1946")


def test_no_hop_leads_to_this_machine(site: Any) -> None:
    base, pages, asked = site
    guarded = replace(WEB, private_addresses=False)
    with pytest.raises(FetchError, match=r"127\.0\.0\.1, an address of this machine"):
        fetch(f"{base}/a.png", guarded)
    # A name with a public address beside a private one is refused as a whole.
    both = {"two.example": ["93.184.216.34", "10.0.0.1"]}
    with pytest.raises(FetchError, match=r"two\.example is 10\.0\.0\.1"):
        fetch("http://two.example/a.png", guarded, resolve=lambda host, port: both[host])
    assert asked == []
    # The second hop is looked at like the first one.
    pages["/go"] = (302, {"Location": "http://inner.example/secret"}, b"")
    seen: list[str] = []

    def names(host: str, port: int) -> list[str]:
        seen.append(host)
        return {"127.0.0.1": ["127.0.0.1"]}.get(host) or ["169.254.169.254"]

    import llmers_pipelines.llm.image_fetch as module

    real = module.public
    module.public = lambda a: a == "127.0.0.1" or real(a)  # the first hop passes
    try:
        with pytest.raises(FetchError, match=r"inner.example is 169\.254\.169\.254"):
            fetch(f"{base}/go", guarded, resolve=names)
    finally:
        module.public = real
    assert seen == ["127.0.0.1", "inner.example"] and [p for p, _ in asked] == ["/go"]


def test_the_connection_goes_to_the_address_that_was_looked_at(site: Any) -> None:
    base, pages, _ = site
    pages["/a.png"] = (200, {}, stored((4, 4)))
    port = base.rsplit(":", 1)[1]
    answers = iter([["127.0.0.1"]])  # a second look would fail
    found = fetch(f"http://rebind.example:{port}/a.png", WEB,
                  resolve=lambda host, port: next(answers))  # fmt: skip
    assert isinstance(found, Fetched) and found.data == stored((4, 4))
