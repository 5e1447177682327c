"""Honest and hostile videos through ffmpeg."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.clip_reader import ClipReader
from actors.video_codec import ffmpeg_binary
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits
from tests.support.training_data import write_clip, write_picture


def reader(short_side: int = 64, **limits: Any) -> ClipReader:
    return ClipReader(FetchLimits(**limits), short_side)


def refusal(data: bytes, made: ClipReader) -> RowError:
    with pytest.raises(RowError) as refused:
        made.read(data)
    return refused.value


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Ten frames of 48 x 32, brightness 20 + 16 t."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, 20, frames=10, size=(48, 32), step=16)
    return path.read_bytes()


def converted(data: bytes, tmp_path: Path, suffix: str, *arguments: str) -> bytes:
    source, target = tmp_path / "source.mp4", tmp_path / f"target.{suffix}"
    source.write_bytes(data)
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", str(source), *arguments, str(target)]
    subprocess.run(command, check=True)
    return target.read_bytes()


def test_all_frames_in_their_colours(clip: bytes) -> None:
    found = reader().read(clip)
    assert found.frames_THWC.shape == (10, 32, 48, 3)
    assert np.abs(found.frames_THWC[:, 16, 24, 1].astype(int) - (20 + 16 * np.arange(10))).max() <= 3
    assert found.is_whole
    assert (found.fps, found.long_frames) == (8, 10)


@pytest.mark.parametrize(
    ("suffix", "arguments"),
    [
        ("webm", ["-c:v", "libvpx-vp9", "-b:v", "1M"]),
        ("mkv", ["-c:v", "ffv1"]),
        ("mov", ["-c:v", "mjpeg", "-q:v", "2"]),
        ("avi", ["-c:v", "mpeg4", "-q:v", "2"]),
        ("ts", ["-c:v", "libx264"]),
        ("gif", []),
    ],
)
def test_other_formats(clip: bytes, tmp_path: Path, suffix: str, arguments: list[str]) -> None:
    found = reader().read(converted(clip, tmp_path, suffix, *arguments)).frames_THWC
    assert found.shape == (10, 32, 48, 3)
    tolerance = 20 if suffix == "gif" else 8  # a palette of 256 colours
    assert np.abs(found[:, 16, 24, 1].astype(int) - (20 + 16 * np.arange(10))).max() <= tolerance


def test_large_frames_are_scaled_down_and_small_ones_left(clip: bytes) -> None:
    assert reader(16).read(clip).frames_THWC.shape == (10, 16, 24, 3)


def test_a_part_of_a_longer_video(clip: bytes) -> None:
    found = reader(max_video_frames=4).read(clip)
    assert (len(found.frames_THWC), found.is_whole, found.long_frames) == (4, False, 10)
    later = reader().read(clip, start_s=(6 - 0.5) / 8, max_frames=2).frames_THWC
    assert np.abs(later[:, 0, 0, 0].astype(int) - [20 + 16 * 6, 20 + 16 * 7]).max() <= 3


def test_what_is_no_video(clip: bytes, tmp_path: Path) -> None:
    picture = Path(write_picture(tmp_path / "picture.png", 0)).read_bytes()
    for data in (b"", b"hello", picture, clip[: len(clip) // 2]):
        assert refusal(data, reader()).error_class is ErrorClass.ASSET_UNDECODABLE
    damaged = bytearray(clip)
    where = damaged.index(b"mdat") + 4
    damaged[where:] = bytes(len(damaged) - where)
    assert refusal(bytes(damaged), reader()).error_class is ErrorClass.ASSET_UNDECODABLE


def test_playlists_and_scripts_lead_nowhere(clip: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip)
    for text in (
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"<?xml version='1.0'?><MPD><BaseURL>file://{secret}</BaseURL></MPD>",
    ):
        assert refusal(text.encode(), reader()).error_class is ErrorClass.ASSET_UNDECODABLE


@pytest.mark.parametrize(
    "title",
    [
        "Duration: 99:99:99.99, Video: 1.2.3 fps",
        "x\n[info]   Duration: 12:00:00\n Video: .. fps",
        "9" * 9_000,
    ],
)
def test_a_title_cannot_pass_for_the_file_s_own_description(clip: bytes, tmp_path: Path, title: str) -> None:
    named = converted(clip, tmp_path, "mkv", "-c", "copy", "-metadata", f"title={title}")
    found = reader().read(named)
    assert (found.fps, found.duration_s) == (8, 1.25)
    assert found.frames_THWC.shape == (10, 32, 48, 3)


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_frames_that_change_their_size_keep_the_first_one_s(clip: bytes, tmp_path: Path, suffix: str) -> None:
    small = tmp_path / "small.avi"
    small.write_bytes(converted(clip, tmp_path, "avi", "-c:v", "mjpeg", "-q:v", "2"))
    large = converted(clip, tmp_path, "avi", "-c:v", "mjpeg", "-q:v", "2", "-vf", "scale=96:80")
    (tmp_path / "large.avi").write_bytes(large)
    parts = tmp_path / "parts.txt"
    parts.write_text(f"file '{small}'\nfile '{tmp_path / 'large.avi'}'\n")
    target = tmp_path / f"mixed.{suffix}"
    command = [
        ffmpeg_binary(),
        "-loglevel",
        "error",
        "-f",
        "concat",
        "-safe",
        "0",
        "-i",
        str(parts),
        "-c",
        "copy",
    ]
    subprocess.run([*command, str(target)], check=True)
    assert reader().read(target.read_bytes()).frames_THWC.shape[1:] == (32, 48, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!DOCTYPE html><html></html>",
        b"%PDF-1.7",
        bytes(100_000),
        b"\0\0\0\x20ftypisom" + b"\xff" * 64,
    ],
)
def test_what_only_bears_a_video_s_name(data: bytes) -> None:
    refused = refusal(data, reader())
    assert refused.error_class is ErrorClass.ASSET_UNDECODABLE
    assert "the video cannot be decoded (" in refused.message


def test_limits(clip: bytes) -> None:
    slow = refusal(clip, reader(video_timeout_s=0.001))
    assert slow.error_class is ErrorClass.ASSET_TIMEOUT
    assert "0.001 s allowed" in slow.message
    assert refusal(clip, reader(max_video_pixels=100)).error_class is ErrorClass.ASSET_UNDECODABLE


def test_credentials_are_not_handed_on(clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> subprocess.Popen:
        seen.append(kwargs["env"])
        return original(*args, **kwargs)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setattr(subprocess, "Popen", popen)
    reader().read(clip)
    assert seen
    assert "AWS_SECRET_ACCESS_KEY" not in seen[0]
