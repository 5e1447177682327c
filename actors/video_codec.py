"""Frames to MP4 and back, through the ffmpeg that moviepy uses.

H.264 hides damage well: a decoder may turn zeroed bytes into a slightly wrong picture without a word. So every
MP4 of ours ends with a seal, a `uuid` box (which players skip) that holds the SHA-256 of all bytes before it.
"""

import hashlib
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from actors.watchdog import Watchdog

# Frames are uint8 THWC, RGB: T frames, H height, W width, C = 3.

_FIXED_TIMEOUT_S = 60.0
_SLOWEST_BYTES_PER_S = 2 * 2**20  # of raw frames; far below what the slowest core manages
_ERROR_TAIL_CHARS = 800
_CHUNK_BYTES = 2**20
_Y4M_HEADER = re.compile(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+)(?: [^\n]*?C(420\w*))?[^\n]*\n")
_Y4M_FRAME = b"FRAME\n"
_MAX_HEADER_BYTES = 256
_SEAL = struct.Struct(">I4s16s32s")
_SEAL_ID = bytes.fromhex("9c1d6ed1a5bb4d0f8f0e2a5c3b1d7e64")
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")  # different each time, so that equal failures would not look equal


class VideoError(Exception):
    """ffmpeg could not encode or decode; the message holds the end of what it said."""


class VideoInfo(NamedTuple):
    """What a video file really decodes to."""

    num_frames: int
    height: int
    width: int
    fps: float
    duration_s: float
    size_bytes: int


def encode_mp4(
    frames_THWC: np.ndarray, path: Path, fps: int, crf: int, threads: int = 1, comment: str = ""
) -> None:
    """Writes frames as H.264, yuv420p, with the index in front so that it plays while it loads.

    Equal frames and arguments give equal bytes: x264's output depends on its number of threads, so that is an
    argument and not the machine's.

    Args:
        comment: kept in the file's metadata.

    Raises:
        ValueError: frames that are not uint8 THWC RGB, or of odd height or width (yuv420p halves both).
        VideoError: ffmpeg failed or took too long.
    """
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3:
        shape = f"{frames_THWC.dtype} {frames_THWC.shape}"
        raise ValueError(f"frames = {shape}: must be uint8 of shape (frames, height, width, 3)")
    count, height, width, _ = frames_THWC.shape
    if not count or height % 2 or width % 2 or not height or not width:
        raise ValueError(
            f"{count} frames of {width} x {height}: an MP4 needs at least one frame and an even width and height"
        )
    arguments = [
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"),
        *("-an", "-c:v", "libx264", "-preset", "medium", "-crf", str(crf), "-pix_fmt", "yuv420p"),
        *("-colorspace", "smpte170m", "-color_range", "tv"),
        *("-threads", str(threads), "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"),
        *(("-metadata", f"comment={comment}") if comment else ()),
        *("-movflags", "+faststart", "-f", "mp4", str(path)),
    ]
    with _ffmpeg(arguments, timeout_s=_timeout_s(frames_THWC.nbytes)) as process:
        assert process.stdin is not None
        process.stdin.write(np.ascontiguousarray(frames_THWC).data)
        process.stdin.close()
    _seal(path)


def verify_mp4(path: Path, num_frames: int, height: int, width: int) -> VideoInfo:
    """Checks the seal, decodes the whole file and compares what comes out with what is expected.

    Raises:
        VideoError: it is not one of our videos, is damaged, or has other frames.
    """
    _check_seal(path)
    arguments = ["-err_detect", "explode", "-xerror", "-c:v", "h264", "-i", str(path)]
    arguments += ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "yuv4mpegpipe", "pipe:1"]
    raw_bytes = num_frames * height * width * 3
    with _ffmpeg(arguments, timeout_s=_timeout_s(raw_bytes)) as process:
        assert process.stdout is not None
        found_width, found_height, fps = _y4m_header(process.stdout, path)
        frame_bytes = found_width * found_height * 3 // 2
        found_frames = _count_frames(process.stdout, frame_bytes)
    expected, found = (num_frames, height, width), (found_frames, found_height, found_width)
    if found != expected:
        raise VideoError(
            f"{path.name} decodes to {found_frames} frames of {found_width} x {found_height}; "
            f"expected {num_frames} of {width} x {height}"
        )
    return VideoInfo(*found, float(fps), float(num_frames / fps), path.stat().st_size)


def decode_mp4(path: Path, num_frames: int, height: int, width: int) -> np.ndarray:
    """The frames of a verified MP4 as uint8 THWC RGB.

    Raises:
        VideoError: it does not decode to these many frames of this size.
    """
    arguments = ["-c:v", "h264", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    arguments += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    frames_THWC = np.empty((num_frames, height, width, 3), np.uint8)
    with _ffmpeg(arguments, timeout_s=_timeout_s(frames_THWC.nbytes)) as process:
        assert process.stdout is not None
        received = _fill(process.stdout, frames_THWC.reshape(-1).data)
        surplus = process.stdout.read(1)
    if received != frames_THWC.nbytes or surplus:
        raise VideoError(f"{path.name} does not hold exactly {num_frames} frames of {width} x {height}")
    return frames_THWC


@contextmanager
def _ffmpeg(arguments: list[str], timeout_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ffmpeg with pipes; what it did not do in time, or well, raises when the block ends."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [ffmpeg_binary(), "-hide_banner", "-nostats", "-loglevel", "error", "-y", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        watchdog = Watchdog(process, timeout_s)
        try:
            with watchdog:
                try:
                    yield process
                except (BrokenPipeError, VideoError) as error:
                    # It stopped reading or writing: its own words say why.
                    process.kill() if isinstance(error, VideoError) else process.wait()
                    raise VideoError(f"{error}: {_tail(log)}".rstrip(": ")) from error
                process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
        if watchdog.fired:
            raise VideoError(f"ffmpeg took longer than the {timeout_s:.0f} s allowed")
        if process.returncode != 0:
            raise VideoError(f"ffmpeg ended with status {process.returncode}: {_tail(log)}")


@lru_cache(1)
def ffmpeg_binary() -> str:
    # Late: importing moviepy costs a second, which only processes that encode should pay.
    from moviepy.config import FFMPEG_BINARY

    return str(FFMPEG_BINARY)


def _timeout_s(raw_bytes: int) -> float:
    return _FIXED_TIMEOUT_S + raw_bytes / _SLOWEST_BYTES_PER_S


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    said = _ADDRESS.sub("", log.read().decode(errors="replace")).strip()
    return "; ".join(said[-_ERROR_TAIL_CHARS:].splitlines())


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    try:
        pipe.close()
    except BrokenPipeError:  # what was still buffered for a process that is gone
        return


def _seal(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).digest()
    with path.open("ab") as file:
        file.write(_SEAL.pack(_SEAL.size, b"uuid", _SEAL_ID, digest))


def _check_seal(path: Path) -> None:
    body_bytes = path.stat().st_size - _SEAL.size
    if body_bytes > 0:
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(body_bytes)).digest()
            if file.read() == _SEAL.pack(_SEAL.size, b"uuid", _SEAL_ID, digest):
                return
    raise VideoError(
        f"{path.name} is not one of our videos, or is truncated or damaged (its seal does not match)"
    )


def _y4m_header(stream: IO[bytes], path: Path) -> tuple[int, int, Fraction]:
    header = stream.readline(_MAX_HEADER_BYTES)
    match = _Y4M_HEADER.fullmatch(header)
    if match is None:
        raise VideoError(f"{path.name} is not a decodable H.264 video")
    width, height, rate, base = (int(match[group]) for group in range(1, 5))
    if not match[5]:
        raise VideoError(f"{path.name} is not yuv420p")
    return width, height, Fraction(rate, base)


def _count_frames(stream: IO[bytes], frame_bytes: int) -> int:
    count = 0
    buffer = memoryview(bytearray(len(_Y4M_FRAME) + frame_bytes))
    while received := _fill(stream, buffer):
        if received != len(buffer) or bytes(buffer[: len(_Y4M_FRAME)]) != _Y4M_FRAME:
            raise VideoError(f"the decoded stream breaks off after {count} frames")
        count += 1
    return count


def _fill(stream: IO[bytes], buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer):
        received = stream.readinto(buffer[filled : filled + _CHUNK_BYTES])  # type: ignore[attr-defined]
        if not received:
            break
        filled += received
    return filled
