"""Pictures made to hurt: bombs, giant chunks, endless frames, and files that crash, hang or eat memory.

Each is decoded in one small process whose limits hold; whatever it does, the next honest picture decodes.
"""

import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors import decoder_process, media_decoder
from actors.media_decoder import MediaDecoder
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits

_LIMITS = FetchLimits(max_image_pixels=1_000_000, decode_timeout_s=10, decode_memory_bytes=2**28)
_MIB = 2**20


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    decoder = MediaDecoder(_LIMITS)
    yield decoder
    decoder.close()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(*chunks: bytes, size: tuple[int, int] = (4, 4), pixels: bytes | None = None) -> bytes:
    """A grey PNG with these chunks before its pixels."""
    width, height = size
    rows = zlib.compress((b"\0" + bytes(width)) * height) if pixels is None else pixels
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _jpeg(*segments: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + b"".join(segments) + data[2:]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _frames(kind: str, count: int) -> bytes:
    images = [Image.new("RGB", (8, 8), (number % 256, number // 256, 0)) for number in range(count)]
    buffer = io.BytesIO()
    images[0].save(buffer, kind, save_all=True, append_images=images[1:])
    return buffer.getvalue()


def _tiff(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    """One directory at byte 8, with (tag, type, count, value) each and the offset of the next one."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + bytes(64)


_TIFF_GREY = ((256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 100),
              (277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, 16))  # fmt: skip

# A GIF whose screen is one pixel and whose only frame is 60,000 x 60,000.
_OVERFLOWING_GIF = (
    b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    + b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x44\x01\x00;"
)  # fmt: skip


def _zeros(mib: int) -> bytes:
    return zlib.compress(bytes(mib * _MIB), 9)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_png(size=(60_000, 60_000), pixels=_zeros(1)), id="png-dimensions"),
        pytest.param(_png(size=(2**31 - 1, 2**31 - 1), pixels=_zeros(1)), id="png-largest-dimensions"),
        pytest.param(_OVERFLOWING_GIF, id="gif-frame-outside-its-screen"),
        pytest.param(
            _tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31), *_TIFF_GREY[2:]), id="tiff-dimensions"
        ),
        pytest.param(
            b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
            id="bmp-dimensions",
        ),
    ],
)  # fmt: skip
def test_pictures_of_absurd_size_are_refused_by_their_header(decoder: MediaDecoder, data: bytes) -> None:
    assert len(data) < 50_000
    error = _refusal(decoder, data)
    assert error.error_class is ErrorClass.ASSET_TOO_LARGE
    assert "pixels; at most 1000000 are allowed" in error.message


# Made when their test runs: some take a second.
_BOMBS: dict[str, Callable[[], bytes]] = {
    "png-icc-bomb": lambda: _png(_chunk(b"iCCP", b"p\0\0" + _zeros(100))),
    "png-text-bomb": lambda: _png(_chunk(b"zTXt", b"t\0\0" + _zeros(100))),
    "png-many-text-bombs": lambda: _png(*[_chunk(b"zTXt", b"t\0\0" + _zeros(1))] * 200),
    "png-unicode-text-bomb": lambda: _png(_chunk(b"iTXt", b"t\0\1\0\0\0" + _zeros(100))),
    "png-giant-text": lambda: _png(_chunk(b"tEXt", b"t\0" + bytes(30 * _MIB))),
    "png-giant-exif": lambda: _png(_chunk(b"eXIf", b"MM\0*" + bytes(30 * _MIB))),
    "png-pixels-bomb": lambda: _png(pixels=_zeros(100)),
    "png-many-chunks": lambda: _png(*[_chunk(b"tIME", b"\0" * 7)] * 20_000),
    "apng-that-claims-frames": lambda: _png(_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    "apng-many-frames": lambda: _frames("PNG", 300),
    "gif-many-frames": lambda: _frames("GIF", 1_000),
    "webp-many-frames": lambda: _frames("WEBP", 100),
    "jpeg-giant-icc": lambda: _jpeg(*[_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000))] * 400),
    "jpeg-giant-exif": lambda: _jpeg(*[_segment(0xE1, b"Exif\0\0MM\0*" + b"\xff" * 60_000)] * 400),
    "jpeg-giant-comments": lambda: _jpeg(*[_segment(0xFE, b"x" * 60_000)] * 400),
    "tiff-that-loops": lambda: _tiff(*_TIFF_GREY, following=8),
    "tiff-giant-tag": lambda: _tiff(*_TIFF_GREY, (700, 1, 2**32 - 1, 8)),
    "tiff-giant-tiles": lambda: _tiff(
        *_TIFF_GREY[:3], (259, 3, 1, 8), (322, 4, 1, 2**20), (323, 4, 1, 2**20), (324, 4, 1, 100)
    ),
}


@pytest.mark.parametrize("name", _BOMBS)
def test_bombs_within_a_small_picture(decoder: MediaDecoder, name: str) -> None:
    """What surrounds the pixels is left alone, or the picture is refused; no memory, no time."""
    data = _BOMBS[name]()
    started = time.monotonic()
    try:
        pixels = decoder.decode_image(data)
    except RowError as error:
        assert error.error_class in {ErrorClass.ASSET_UNDECODABLE, ErrorClass.ASSET_TOO_LARGE}
        assert len(error.message) > 10
    else:
        assert pixels.size <= 8 * 8 * 3
    assert time.monotonic() - started < 30
    assert decoder.decode_image(_png()).shape == (4, 4, 3)


def test_a_gif_of_many_frames_is_its_first(decoder: MediaDecoder) -> None:
    assert np.array_equal(decoder.decode_image(_frames("GIF", 300)), np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(("name", "other"), [("a.png", "JPEG"), ("a.jpg", "GIF"), ("a.gif", "PNG")])
def test_the_content_tells_the_format_and_not_the_name(decoder: MediaDecoder, name: str, other: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, other)
    assert decoder.decode_image(buffer.getvalue()).shape == (4, 5, 3), name


# A decoder that misbehaves on demand, with the real one's limits and protocol.
_MISBEHAVING = """
import os, sys, time, ctypes
sys.path.insert(0, {folder!r})
import decoder_process as real
decode = real.decode
def misbehave(data, max_pixels, kind):
    if data == b"crash": ctypes.string_at(0)
    if data == b"abort": os.abort()
    if data == b"exit": os._exit(0)
    if data == b"spin":
        while True: pass
    if data == b"sleep": time.sleep(600)
    if data == b"eat":
        eaten = []
        while True: eaten.append(bytearray(2**24))
    if data == b"print": os.write(1, b"x" * 1000)
    if data == b"open":
        kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(1000)]
    if data == b"write": os.write(os.open({target!r}, os.O_WRONLY | os.O_CREAT), b"x")
    return decode(data, max_pixels, kind)
real.decode = misbehave
real.main()
"""


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MediaDecoder]:
    script = tmp_path / "misbehaving.py"
    folder = str(Path(decoder_process.__file__).parent)
    script.write_text(_MISBEHAVING.format(folder=folder, target=str(tmp_path / "written")))
    monkeypatch.setattr(media_decoder, "_SCRIPT", script)
    decoder = MediaDecoder(FetchLimits(decode_timeout_s=4, decode_memory_bytes=2**28))
    yield decoder
    decoder.close()


@pytest.mark.parametrize(
    ("data", "error_class", "sentence"),
    [
        (b"crash", ErrorClass.ASSET_UNDECODABLE, "crashes the picture decoder (exit status -11)"),
        (b"abort", ErrorClass.ASSET_UNDECODABLE, "crashes the picture decoder (exit status -6)"),
        (b"exit", ErrorClass.ASSET_UNDECODABLE, "crashes the picture decoder (exit status 0)"),
        (b"spin", ErrorClass.ASSET_TIMEOUT, "longer than the 4 s allowed to decode"),
        (b"sleep", ErrorClass.ASSET_TIMEOUT, "longer than the 4 s allowed to decode"),
        (b"eat", ErrorClass.ASSET_TOO_LARGE, "more memory to decode than is allowed"),
        (b"open", ErrorClass.ASSET_UNDECODABLE, "Too many open files"),
        (b"print", ErrorClass.ASSET_UNDECODABLE, "this is text"),
        (b"write", ErrorClass.ASSET_UNDECODABLE, "File too large"),
    ],
)
def test_what_a_decoder_does_is_the_picture_s_failure(
    misbehaving: MediaDecoder, data: bytes, error_class: ErrorClass, sentence: str, tmp_path: Path
) -> None:
    assert misbehaving.decode_image(_png()).shape == (4, 4, 3)
    before = misbehaving.pid
    error = _refusal(misbehaving, data)
    assert (error.error_class, sentence in error.message) == (error_class, True), error.message
    assert misbehaving.decode_image(_png()).shape == (4, 4, 3)
    if data in {b"crash", b"abort", b"exit", b"spin", b"sleep", b"eat"}:
        assert misbehaving.pid != before  # the process is a new one
        assert before is not None
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
    written = tmp_path / "written"
    assert not written.exists() or written.stat().st_size == 0


@pytest.mark.slow
def test_a_decoder_that_spins_ends_when_its_actor_was_killed(tmp_path: Path) -> None:
    """Nobody is left to end it: the kernel does, by its CPU limit."""
    folder = str(Path(decoder_process.__file__).parent)
    script = tmp_path / "misbehaving.py"
    script.write_text(_MISBEHAVING.format(folder=folder, target=""))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, threading, time; from pathlib import Path\n"
            "from actors import media_decoder; from schemas.run import FetchLimits\n"
            f"media_decoder._SCRIPT = Path({str(script)!r})\n"
            "decoder = media_decoder.MediaDecoder(FetchLimits(decode_timeout_s=1.5))\n"
            "threading.Thread(target=decoder.decode_image, args=(b'spin',), daemon=True).start()\n"
            "while decoder.pid is None: pass\n"
            "print(decoder.pid, flush=True); time.sleep(60)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def _refusal(decoder: MediaDecoder, data: bytes) -> RowError:
    with pytest.raises(RowError) as refused:
        decoder.decode_image(data)
    return refused.value
