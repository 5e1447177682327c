"""Hostile and honest pictures through the decoding subprocess."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors import decoder_process, media_decoder
from actors.media_decoder import MediaDecoder
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits, InfrastructureError

_LIMITS = FetchLimits(max_image_pixels=1_000_000)


@pytest.fixture
def decoder() -> Iterator[MediaDecoder]:
    decoder = MediaDecoder(_LIMITS)
    yield decoder
    decoder.close()


def _picture(seed: int = 0, size: tuple[int, int] = (30, 20)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _refusal(decoder: MediaDecoder, data: bytes) -> RowError:
    with pytest.raises(RowError) as refused:
        decoder.decode_image(data)
    return refused.value


def _png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and brings hardly a byte of it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + checksum

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    body = chunk(b"IHDR", size + b"\x08\x02\0\0\0") + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG", "WEBP", "GIF"])
def test_allowed_formats_decode_as_pil_does(decoder: MediaDecoder, kind: str) -> None:
    data = _saved(_picture(), kind)
    pixels = decoder.decode_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (20, 30, 3)
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_other_modes_become_rgb_as_in_the_published_code(decoder: MediaDecoder, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30))
    else:
        image = _picture().convert(mode)
    data = _saved(image, "TIFF" if mode == "CMYK" else "PNG")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decoder.decode_image(data), expected)


def test_alpha_is_dropped_and_exif_rotation_is_not_applied(decoder: MediaDecoder) -> None:
    transparent = _picture()
    transparent.putalpha(0)
    opaque = np.asarray(_picture())
    assert np.array_equal(decoder.decode_image(_saved(transparent, "PNG")), opaque)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert np.array_equal(decoder.decode_image(_saved(_picture(), "PNG", exif=exif)), opaque)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_of_several_frames(decoder: MediaDecoder, kind: str) -> None:
    frames = [_picture(seed) for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    first = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decoder.decode_image(data), first)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "this is SVG text"),
        (b"<?xml version='1.0'?>\n<svg/>", "this is SVG text"),
        (b"\n<!DOCTYPE html><html><svg/></html>", "this is an HTML page"),
        (b"<Error><Code>AccessDenied</Code></Error>", "this is XML text"),
        (b'{"error": "not found"}', "this is text"),
        (b"%PDF-1.7", "this is a PDF"),
        (b"PK\x03\x04....", "this is a ZIP"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "this is a video, HEIC or AVIF"),
        (b"\x1a\x45\xdf\xa3....", "this is a Matroska or WebM video"),
        (bytes(range(256)), "not a picture in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "this is text"),
        (b"P6 1 1 255 \0\0\0", "not a picture in a known format"),
    ],
)
def test_what_is_no_picture(decoder: MediaDecoder, data: bytes, sentence: str) -> None:
    error = _refusal(decoder, data)
    assert error.error_class is ErrorClass.ASSET_UNDECODABLE
    assert sentence in error.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.002, 0.3, 0.9])
def test_truncated(decoder: MediaDecoder, kind: str, part: float) -> None:
    data = _saved(_picture(size=(200, 150)), kind)
    error = _refusal(decoder, data[: max(int(len(data) * part), 20)])
    assert error.error_class is ErrorClass.ASSET_UNDECODABLE
    assert "truncated" in error.message or "damaged" in error.message
    assert kind in error.message


def test_picture_bomb_is_refused_before_it_is_decoded(decoder: MediaDecoder) -> None:
    error = _refusal(decoder, _png_header(95_000, 95_000))
    assert error.error_class is ErrorClass.ASSET_TOO_LARGE
    assert "95000 x 95000 = 9025000000 pixels; at most 1000000 are allowed" in error.message


def test_memory_limit() -> None:
    decoder = MediaDecoder(FetchLimits(decode_memory_bytes=2**28))
    try:
        error = _refusal(decoder, _saved(Image.new("RGB", (7900, 7900)), "PNG"))
        assert error.error_class is ErrorClass.ASSET_TOO_LARGE
        assert "memory" in error.message
        assert decoder.decode_image(_saved(_picture(), "PNG")).shape == (20, 30, 3)
    finally:
        decoder.close()


def test_time_limit() -> None:
    decoder = MediaDecoder(FetchLimits(decode_timeout_s=0.001))
    try:
        error = _refusal(decoder, _saved(Image.new("RGB", (4000, 4000)), "PNG"))
        assert error.error_class is ErrorClass.ASSET_TIMEOUT
        assert "0.001 s allowed" in error.message
        assert decoder.pid is None
    finally:
        decoder.close()


def test_a_hung_decoder_is_ended(decoder: MediaDecoder) -> None:
    decoder.decode_image(_saved(_picture(), "PNG"))
    hung = decoder.pid
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    decoder._limits = FetchLimits(decode_timeout_s=0.2)
    assert _refusal(decoder, _saved(_picture(), "PNG")).error_class is ErrorClass.ASSET_TIMEOUT
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)
    decoder._limits = _LIMITS
    assert decoder.decode_image(_saved(_picture(), "PNG")).shape == (20, 30, 3)


def test_a_decoder_killed_during_a_request_is_replaced(
    decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, original, killed = _saved(_picture(), "PNG"), media_decoder._read, []

    def kill_once(process: subprocess.Popen[bytes], size: int) -> bytearray:
        if not killed:
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
        return original(process, size)

    decoder.decode_image(data)
    os.kill(decoder.pid or 0, signal.SIGSTOP)  # it cannot answer before it is killed
    monkeypatch.setattr(media_decoder, "_read", kill_once)
    assert np.array_equal(decoder.decode_image(data), np.asarray(_picture()))
    assert killed
    assert decoder.pid not in killed


@pytest.mark.parametrize("times", [1, 3])
def test_a_decoder_killed_while_it_starts_is_replaced(
    decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    start, killed = subprocess.Popen, []

    def kill_first(*args: Any, **kw: Any) -> Any:
        process = start(*args, **kw)
        if len(killed) < times:
            killed.append(process.pid)
            process.kill()
        return process

    monkeypatch.setattr(media_decoder.subprocess, "Popen", kill_first)
    assert decoder.decode_image(_saved(_picture(), "PNG")).shape == (20, 30, 3)
    assert len(killed) == times
    assert decoder.pid not in killed


def test_a_decoder_that_does_not_start_is_no_picture_s_failure(
    decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(media_decoder, "_SCRIPT", tmp_path / "absent.py")
    with pytest.raises(InfrastructureError, match="the picture decoder does not start"):
        decoder.decode_image(_saved(_picture(), "PNG"))
    monkeypatch.undo()
    assert decoder.decode_image(_saved(_picture(), "PNG")).shape == (20, 30, 3)


def test_the_process_is_replaced_now_and_then(decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_decoder, "_MAX_REQUESTS", 2)
    pids = []
    for _ in range(4):
        decoder.decode_image(_saved(_picture(), "PNG"))
        pids.append(decoder.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_many_threads(decoder: MediaDecoder) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda seed: decoder.decode_image(_saved(_picture(seed), "PNG")), range(20))
    for seed, pixels in enumerate(found):
        assert np.array_equal(pixels, np.asarray(_picture(seed)))


def test_the_process_has_its_limits_and_no_secrets(
    decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    decoder.decode_image(_saved(_picture(), "PNG"))
    pid = decoder.pid
    assert pid is not None
    memory = _LIMITS.decode_memory_bytes
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (memory, memory)
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] <= 64
    assert resource.prlimit(pid, resource.RLIMIT_CPU)[0] <= _LIMITS.decode_timeout_s + 10
    assert b"very-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    loaded = Path(f"/proc/{pid}/maps").read_text()
    assert "torch" not in loaded
    assert "numpy" not in loaded


def test_it_ends_with_its_parent() -> None:
    script = (
        "from actors.media_decoder import MediaDecoder; from schemas.run import FetchLimits; import os, signal\n"
        "decoder = MediaDecoder(FetchLimits())\n"
        "try: decoder.decode_image(b'')\n"
        "except Exception: print(decoder.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    deadline = time.monotonic() + 10
    while _runs(int(parent.stdout)) and time.monotonic() < deadline:
        pass
    assert not _runs(int(parent.stdout))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_requests_that_break_off_end_the_process_quietly() -> None:
    answers = io.BytesIO()
    decoder_process.serve(
        io.BytesIO(decoder_process.REQUEST.pack(decoder_process.RGB, 100, 100, 1.0) + b"short"), answers
    )
    assert answers.getvalue() == b""
