"""Whatever bytes stand where a picture or a video should, they decode within the limits or become a row's error."""

import io
import random
import struct
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from actors.clip_reader import ClipReader
from actors.media_decoder import MediaDecoder
from actors.video_codec import ffmpeg_binary
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits
from tests.support.training_data import write_clip

_LIMITS = FetchLimits(max_image_pixels=250_000, decode_timeout_s=5, decode_memory_bytes=2**28)
_MEDIA_LIMITS = FetchLimits(max_video_pixels=250_000, max_video_frames=20, video_timeout_s=5)
_EXPECTED = {ErrorClass.ASSET_UNDECODABLE, ErrorClass.ASSET_TOO_LARGE, ErrorClass.ASSET_TIMEOUT}


def _frames(count: int) -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [Image.fromarray(frame) for frame in noise]


def _pictures() -> dict[str, bytes]:
    """One small file of each kind, with the chunks that parsers are known to trip over."""
    exif = Image.Exif()
    exif[0x010E] = "a description"
    kinds = {
        "png": ("PNG", {"exif": exif, "dpi": (72, 72)}),
        "apng": ("PNG", {"save_all": True, "append_images": _frames(3)}),
        "jpeg": ("JPEG", {"exif": exif, "icc_profile": b"x" * 300, "progressive": True}),
        "webp": ("WEBP", {"save_all": True, "append_images": _frames(2), "exif": exif}),
        "gif": ("GIF", {"save_all": True, "append_images": _frames(3), "comment": b"x" * 100}),
        "tiff": ("TIFF", {"compression": "tiff_lzw", "save_all": True, "append_images": _frames(2)}),
        "bmp": ("BMP", {}),
    }
    files = {}
    for name, (kind, options) in kinds.items():
        buffer = io.BytesIO()
        _frames(1)[0].save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    return files


PICTURES = _pictures()
VIDEOS = {"mp4": "libx264", "avi": "mpeg4", "ts": "mpeg2video", "webm": "libvpx", "gif": "gif"}  # and codecs


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    decoder = MediaDecoder(_LIMITS)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("videos")
    source = write_clip(folder / "source.mp4", 20, frames=4, size=(48, 32), step=16)
    for name, codec in VIDEOS.items():
        command = [ffmpeg_binary(), "-loglevel", "error", "-i", source, "-r", "25", "-c:v", codec]
        subprocess.run([*command, str(folder / f"clip.{name}")], check=True)
    return {name: (folder / f"clip.{name}").read_bytes() for name in VIDEOS}


# What turns a file into a hostile one: bytes changed, numbers made huge, parts cut out, doubled, or put elsewhere.
operations = st.lists(
    st.tuples(
        st.sampled_from(["byte", "number", "cut", "double", "insert"]),
        st.floats(0, 1),
        st.integers(0, 2**32 - 1),
    ),
    max_size=6,
)


def _damaged(data: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    body = bytearray(data)
    for kind, where, value in changes:
        at = int(where * len(body))
        length = value % 64
        if kind == "byte":
            body[at : at + 1] = bytes([value % 256])
        elif kind == "number":
            order = ">" if value % 2 else "<"
            body[at : at + 4] = struct.pack(
                f"{order}I", random.Random(value).choice([value, 0, 2**31, 2**32 - 1])
            )
        elif kind == "cut":
            del body[at : at + length]
        elif kind == "double":
            body[at:at] = body[at : at + length]
        else:
            body[at:at] = struct.pack("<I", value) * (length // 4)
    return bytes(body)


def _check_refusal(error: RowError) -> None:
    assert error.error_class in _EXPECTED
    assert 10 < len(error.message) < 2_100
    assert "Traceback" not in error.message


@given(st.sampled_from(sorted(PICTURES)), operations, st.sampled_from(sorted(PICTURES)), st.floats(0, 1))
@example("png", [], "png", 1.0)
@example("gif", [("cut", 0.0, 6)], "png", 0.5)
def test_damaged_and_mixed_pictures(
    decoder: MediaDecoder, name: str, changes: list[tuple[str, float, int]], other: str, part: float
) -> None:
    """The beginning of one file with the end of another, both damaged."""
    begun, ended = PICTURES[name], PICTURES[other]
    data = _damaged(begun[: int(part * len(begun))] + ended[int(part * len(ended)) :], changes)
    try:
        pixels = decoder.decode_image(data)
    except RowError as error:
        _check_refusal(error)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        assert 0 < pixels.shape[0] * pixels.shape[1] <= _LIMITS.max_image_pixels


@given(
    st.sampled_from([data[:16] for data in PICTURES.values()] + [b"", b"<svg", b"RIFF\0\0\0\0WEBP"]),
    st.binary(),
)
@example(b"", b"")
def test_headers_with_noise(decoder: MediaDecoder, head: bytes, noise: bytes) -> None:
    try:
        decoder.decode_image(head + noise)
    except RowError as error:
        _check_refusal(error)


@settings(max_examples=max(4, settings().max_examples // 10))  # an ffmpeg for each
@given(st.sampled_from(sorted(VIDEOS)), operations, st.floats(0.3, 1))
@example("mp4", [], 1.0)
@example("mp4", [("number", 0.02, 1)], 1.0)
def test_damaged_videos(
    videos: dict[str, bytes], name: str, changes: list[tuple[str, float, int]], part: float
) -> None:
    data = _damaged(videos[name][: int(part * len(videos[name]))], changes)
    try:
        clip = ClipReader(_MEDIA_LIMITS, 64).read(data)
    except RowError as error:
        _check_refusal(error)
    else:
        frames, height, width, channels = clip.frames_THWC.shape
        assert 0 < frames <= _MEDIA_LIMITS.max_video_frames
        assert channels == 3
        assert 0 < height * width <= _MEDIA_LIMITS.max_video_pixels
        assert clip.long_frames >= frames
