"""Decodes videos from strangers with ffmpeg, in a process that has limits and no credentials."""

import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np

from actors.video_codec import VideoError, ffmpeg_binary
from actors.watchdog import Watchdog
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits

# Frames are uint8 THWC, RGB: T frames, H height, W width, C = 3.

# Only containers that hold their own pictures: a playlist or a script would make ffmpeg read other addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,gif,apng"
_INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "PATH", "TZ")  # no credentials
# Only at the beginning of a line: titles and comments, which a stranger wrote, stand further right.
_DURATION = re.compile(r"^\[info\]   Duration: (\d{1,9}):(\d\d):(\d\d(?:\.\d{1,9})?)", re.MULTILINE)
_RATE = re.compile(r"^\[info\]   Stream #.*?: Video: .*? (\d{1,9}(?:\.\d{1,9})?) (?:fps|tbr)", re.MULTILINE)
_ERROR_LINE = re.compile(r"^(?:\[[^\]]*\] )*\[(?:error|fatal|panic)\] (.*)$", re.MULTILINE)
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")  # different each time, so that equal failures would not look equal
_ERROR_CHARS = 300


@dataclass(frozen=True)
class Clip:
    """Frames of a video file from its start on."""

    frames_THWC: np.ndarray  # read-only
    is_whole: bool  # else there are more than were decoded
    duration_s: float  # of the file as it says itself; 0 if it does not
    fps: float

    @property
    def long_frames(self) -> int:
        """About how many frames the whole file has."""
        return max(len(self.frames_THWC), int(self.duration_s * self.fps))


class ClipReader:
    """Decodes MP4, MOV, WebM, Matroska, AVI, MPEG-TS and GIF to RGB frames.

    Args:
        limits: `max_video_frames`, `max_video_pixels`, `video_timeout_s` and `decode_memory_bytes` hold for each.
        short_side: larger frames are scaled down to this while they are decoded, pixels.
    """

    def __init__(self, limits: FetchLimits, short_side: int):
        self._limits = limits
        self._short_side = short_side

    def read(self, data: bytes, *, start_s: float = 0.0, max_frames: int | None = None) -> Clip:
        """At most `max_frames` (default and bound: `limits.max_video_frames`) frames from `start_s` on.

        Raises:
            RowError: ASSET_UNDECODABLE, ASSET_TOO_LARGE or ASSET_TIMEOUT.
        """
        wanted = min(max_frames or self._limits.max_video_frames, self._limits.max_video_frames)
        if not data:
            raise RowError(ErrorClass.ASSET_UNDECODABLE, "the file is empty (0 bytes)")
        with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as log:
            file.write(data)
            file.flush()
            try:
                frames = list(self._frames(file, log, start_s, wanted + 1))
            except VideoError as error:
                message = f"the video cannot be decoded ({_first_error(log) or error})"
                raise RowError(ErrorClass.ASSET_UNDECODABLE, message) from None
            if not frames:
                raise RowError(ErrorClass.ASSET_UNDECODABLE, "the video holds no frames")
            duration_s, fps = _described(log)
        frames_THWC = np.stack(frames[:wanted])
        frames_THWC.flags.writeable = False
        return Clip(frames_THWC, len(frames) <= wanted, duration_s, fps)

    def _frames(self, file: IO[bytes], log: IO[bytes], start_s: float, count: int) -> Iterator[np.ndarray]:
        size_bytes = 0
        with self._ffmpeg(file, log, start_s, count) as process:
            assert process.stdout is not None
            while (frame_HWC := _next_frame(process.stdout)) is not None:
                size_bytes += frame_HWC.nbytes
                if size_bytes > self._limits.decode_memory_bytes:
                    allowed = f"at most {self._limits.decode_memory_bytes} bytes of frames are allowed"
                    raise RowError(ErrorClass.ASSET_TOO_LARGE, f"the video is too large to decode; {allowed}")
                yield frame_HWC

    @contextmanager
    def _ffmpeg(
        self, file: IO[bytes], log: IO[bytes], start_s: float, count: int
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Runs ffmpeg; what it did not do in time, or well, raises when the block ends."""
        timeout_s = self._limits.video_timeout_s
        process = subprocess.Popen(
            [ffmpeg_binary(), *self._arguments(file.fileno(), start_s, count)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[file.fileno()],
            env={name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the job
        )
        assert process.stdout is not None
        try:
            _limit(process.pid, self._limits)
            with Watchdog(process, timeout_s) as watchdog:
                yield process
                process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if watchdog.fired:
            message = f"the video took longer than the {timeout_s:g} s allowed to decode"
            raise RowError(ErrorClass.ASSET_TIMEOUT, message)
        if process.returncode != 0:
            raise VideoError(f"ffmpeg ended with status {process.returncode}")

    def _arguments(self, fd: int, start_s: float, count: int) -> list[str]:
        side = self._short_side
        factor = f"min(1,{side}/min(iw,ih))"
        return [
            *("-hide_banner", "-nostats", "-nostdin", "-loglevel", "level+info", "-xerror"),
            *("-format_whitelist", _FORMATS, "-protocol_whitelist", "file", "-threads", "1"),
            *("-max_pixels", str(self._limits.max_video_pixels), "-err_detect", "explode"),
            *(("-ss", f"{start_s:.6f}") if start_s else ()),
            # Not a pipe: the index of an MP4 may stand at its end.
            *("-i", f"/dev/fd/{fd}", "-map", "0:v:0", "-frames:v", str(count), "-fps_mode", "passthrough"),
            *("-vf", f"scale=w='round(iw*{factor})':h='round(ih*{factor})'"),
            *("-sws_flags", "bicubic+accurate_rnd+full_chroma_int", "-filter_threads", "1", "-threads", "1"),
            *("-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "pipe:1"),
        ]


def _limit(pid: int, limits: FetchLimits) -> None:
    """Bounds a process that has just begun, before a video can have grown large in it."""
    if sys.platform != "linux":
        return
    memory, cpu_s = limits.decode_memory_bytes, math.ceil(limits.video_timeout_s) + 1
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
        resource.prlimit(pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (2**20, 2**20))  # its log
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    except ProcessLookupError:  # it has ended already
        return


def _next_frame(stream: IO[bytes]) -> np.ndarray | None:
    """The next picture of a PPM stream as uint8 HWC; None at its end."""
    magic, size, depth = (stream.readline(32) for _ in range(3))
    if not magic:
        return None
    if magic != b"P6\n" or depth != b"255\n":
        raise VideoError("the decoded stream is broken")
    try:
        width, height = map(int, size.split())
    except ValueError:
        raise VideoError("the decoded stream is broken") from None
    pixels = stream.read(width * height * 3)
    if len(pixels) != width * height * 3:
        raise VideoError("the decoded stream breaks off")
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return _ADDRESS.sub("", log.read().decode(errors="replace"))


def _first_error(log: IO[bytes]) -> str:
    found = _ERROR_LINE.search(_text(log))
    return re.sub(r"/dev/fd/\d+", "the file", found[1].strip())[:_ERROR_CHARS] if found else ""


def _described(log: IO[bytes]) -> tuple[float, float]:
    """Duration in seconds and frames per second, as the file's header has them; 0 where it does not say."""
    text = _text(log)
    duration, rate = _DURATION.search(text), _RATE.search(text)
    seconds = 0.0
    if duration:
        hours, minutes, rest = duration.groups()
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    return seconds, float(rate[1]) if rate else 0.0
