"""Frames to MP4: what is in the file, that it is the same each time, and that nothing broken is adopted."""

import hashlib
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import imageio_ffmpeg
import numpy as np
import pytest

from actors import publisher as publisher_module
from actors import video_codec
from actors.publisher import Publisher
from actors.storage import Storage, StorageUnavailable, join
from actors.video_codec import VideoError, decode_mp4, encode_mp4, verify_mp4
from examples.s3_server import S3Server
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits
from schemas.settings import RenderSettings

KEY = "ab" * 16
SETTINGS = RenderSettings(num_frames=5, height=48, width=64)


def _frames(seed: int = 0, count: int = 5, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth coloured frames that differ from each other."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (count, 2, 2, 3)).astype(np.float64)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top = corners[:, None, :1, 0] * (1 - x) + corners[:, None, 1:, 0] * x
    bottom = corners[:, None, :1, 1] * (1 - x) + corners[:, None, 1:, 1] * x
    return (top * (1 - y) + bottom * y).astype(np.uint8)


@pytest.fixture(params=["local", "s3"])
def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> Publisher:
    if request.param == "local":
        return Publisher(Storage(), str(tmp_path / "out"))
    request.getfixturevalue("s3_env")
    return Publisher(Storage(), f"s3://outputs/{uuid4().hex}")


@pytest.fixture(autouse=True)
def no_temporary_files_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def _boxes(data: bytes) -> list[str]:
    """The names of an MP4's outermost boxes, in order."""
    names, position = [], 0
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        names.append(name.decode())
        position += size
    return names


def test_publish(publisher: Publisher) -> None:
    video = publisher.publish(KEY, _frames(), fps=10, crf=10)
    assert video.uri == publisher.video_uri(KEY)
    assert video.uri.endswith(f"/videos/ab/{KEY}.mp4")
    data = Storage().read_bytes(video.uri)
    assert (video.size_bytes, video.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert video.duration_s == pytest.approx(0.5)
    assert (video.num_frames, video.height, video.width) == (5, 48, 64)
    assert video.encode_s > 0
    assert video.upload_s > 0


def test_find_and_read_frames(publisher: Publisher) -> None:
    assert publisher.find(KEY, SETTINGS) is None
    published = publisher.publish(KEY, _frames(), fps=10, crf=10)
    found = publisher.find(KEY, SETTINGS)
    assert found is not None
    for name in ("uri", "sha256", "size_bytes", "duration_s", "num_frames", "height", "width"):
        assert getattr(found, name) == getattr(published, name), name
    frames = publisher.read_frames(found)
    assert frames.shape == (5, 48, 64, 3)
    assert np.abs(frames.astype(int) - _frames()).mean() < 4  # lossy, in the right order and colours


def test_the_file_is_h264_yuv420p_with_its_index_first(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    encode_mp4(_frames(count=7), path, fps=8, crf=20)
    names = _boxes(path.read_bytes())
    assert names[0] == "ftyp"
    assert names.index("moov") < names.index("mdat")
    assert names[-1] == "uuid"  # the seal
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert (meta["fps"], meta["size"], sum(1 for _ in reader)) == (8, (64, 48), 7)


def test_quality_follows_crf(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (5, 40):
        encode_mp4(noise, tmp_path / "v.mp4", fps=8, crf=crf)
        sizes.append((tmp_path / "v.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        encode_mp4(_frames(count=30), tmp_path / name, fps=10, crf=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    strided = _frames(count=30)[:, :, ::-1][:, :, ::-1]
    encode_mp4(strided, tmp_path / "c.mp4", fps=10, crf=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()
    encode_mp4(_frames(seed=1, count=30), tmp_path / "d.mp4", fps=10, crf=10)
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "d.mp4").read_bytes()


def test_a_single_frame(publisher: Publisher) -> None:
    assert publisher.publish(KEY, _frames(count=1), fps=10, crf=10).num_frames == 1


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        (_frames(height=47), "even width and height"),
        (_frames(width=63), "even width and height"),
        (_frames()[:0], "at least one frame"),
        (_frames().astype(np.float32), "must be uint8"),
        (_frames()[..., :1], "must be uint8"),
    ],
)
def test_frames_that_no_mp4_can_hold(tmp_path: Path, frames: np.ndarray, sentence: str) -> None:
    with pytest.raises(RowError, match=sentence) as refused:
        Publisher(Storage(), str(tmp_path)).publish(KEY, frames, fps=10, crf=10)
    assert refused.value.error_class is ErrorClass.ENCODE_FAILED
    assert not list(tmp_path.rglob("*.mp4"))


def _damage(data: bytes, kind: str) -> bytes:
    middle = len(data) // 2
    return {
        "empty": b"",
        "text": b"<Error>SlowDown</Error>",
        "first half": data[:middle],
        "last bytes missing": data[:-50],
        "zeros inside": data[: middle - 200] + bytes(400) + data[middle + 200 :],
        "one bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "something appended": data + b"x",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["empty", "text", "first half", "last bytes missing", "zeros inside", "one bit", "something appended"],
)
def test_a_damaged_video_is_not_adopted(tmp_path: Path, kind: str) -> None:
    publisher = Publisher(Storage(), str(tmp_path))
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    uri = publisher.publish(KEY, frames, fps=10, crf=10).uri
    assert publisher.find(KEY, SETTINGS) is not None
    Storage().write_bytes(uri, _damage(Path(uri).read_bytes(), kind))
    assert publisher.find(KEY, SETTINGS) is None


@pytest.mark.parametrize(
    "other", [{"num_frames": 4}, {"num_frames": 6}, {"height": 64, "width": 48}, {"height": 96}]
)
def test_a_video_of_other_frames_is_not_adopted(tmp_path: Path, other: dict[str, int]) -> None:
    publisher = Publisher(Storage(), str(tmp_path))
    publisher.publish(KEY, _frames(), fps=10, crf=10)
    assert publisher.find(KEY, SETTINGS.model_copy(update=other)) is None


def test_another_codec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi"]
    command += ["-i", "testsrc=size=64x48:rate=10:duration=0.5", "-c:v", "mpeg4", str(path)]
    subprocess.run(command, check=True)
    with pytest.raises(VideoError, match="not one of our videos"):
        verify_mp4(path, 5, 48, 64)
    video_codec._seal(path)
    with pytest.raises(VideoError, match="not a decodable"):
        verify_mp4(path, 5, 48, 64)


def test_verify_reports_what_it_decoded(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    encode_mp4(_frames(), path, fps=4, crf=10)
    assert verify_mp4(path, 5, 48, 64) == (5, 48, 64, 4.0, 1.25, path.stat().st_size)
    with pytest.raises(VideoError, match="decodes to 5 frames of 64 x 48; expected 3 of 64 x 48"):
        verify_mp4(path, 3, 48, 64)
    with pytest.raises(VideoError, match="does not hold exactly 4 frames"):
        decode_mp4(path, 4, 48, 64)


def _ffmpeg_that(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    fake = folder / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(video_codec, "ffmpeg_binary", lambda: str(fake))


def test_what_ffmpeg_said_is_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ffmpeg_that(monkeypatch, tmp_path, "echo 'no space left, [x @ 0x1234] sorry' >&2; exit 3")
    with pytest.raises(RowError, match=r"no space left, \[x\] sorry") as refused:
        Publisher(Storage(), str(tmp_path / "out")).publish(KEY, _frames(), fps=10, crf=10)
    assert refused.value.error_class is ErrorClass.ENCODE_FAILED


def test_an_ffmpeg_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ffmpeg_that(monkeypatch, tmp_path, f"echo $$ > {tmp_path}/pid; exec tail -f /dev/null")
    monkeypatch.setattr(video_codec, "_FIXED_TIMEOUT_S", 0.5)
    with pytest.raises(RowError, match="took longer than"):
        Publisher(Storage(), str(tmp_path / "out")).publish(KEY, _frames(), fps=10, crf=10)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_encoder_that_loses_frames_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(frames: np.ndarray, *arguments: Any) -> None:
        encode_mp4(frames[1:], *arguments)

    monkeypatch.setattr(publisher_module, "encode_mp4", lossy)
    with pytest.raises(RowError, match="expected 5 of"):
        Publisher(Storage(), str(tmp_path / "out")).publish(KEY, _frames(), fps=10, crf=10)
    assert not (tmp_path / "out").exists()


def test_an_output_store_that_is_down_is_no_row_s_failure(
    s3_env: S3Server, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    publisher = Publisher(Storage(FetchLimits(fetch_retries=1)), "s3://outputs/x")
    with pytest.raises(StorageUnavailable):
        publisher.publish(KEY, _frames(), fps=10, crf=10)
    with pytest.raises(StorageUnavailable):
        publisher.find(KEY, SETTINGS)


def test_a_video_that_is_gone_when_it_is_read(tmp_path: Path) -> None:
    publisher = Publisher(Storage(), str(tmp_path))
    video = publisher.publish(KEY, _frames(), fps=10, crf=10)
    Storage().write_bytes(video.uri, b"replaced")
    with pytest.raises(RowError, match="cannot be read"):
        publisher.read_frames(video)
    assert join(str(tmp_path), "videos") in video.uri
