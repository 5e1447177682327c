"""Decodes pictures from strangers in a process of their own, so that none can take the actor down."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from actors import decoder_process as protocol
from actors.watchdog import Watchdog
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits, InfrastructureError

logger = logging.getLogger(__name__)

_SCRIPT = Path(protocol.__file__)
_MAX_REQUESTS = 500  # a fresh process now and then: what a decoder leaks does not add up
_MAX_MESSAGE_BYTES = 4096
_START_TIMEOUT_S = 120.0  # of a Python process, on a machine that is busy with anything
_CLOSE_TIMEOUT_S = 1.0
_STARTS = 4  # in a row, before it is not chance that a process ends while it starts
_ATTEMPTS = 2  # a process that dies may have been killed for reasons that are not the picture's
_INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "PATH", "TZ")  # no credentials
_ERROR_CLASSES = {
    protocol.UNDECODABLE: ErrorClass.ASSET_UNDECODABLE,
    protocol.TOO_MANY_PIXELS: ErrorClass.ASSET_TOO_LARGE,
    protocol.OUT_OF_MEMORY: ErrorClass.ASSET_TOO_LARGE,
}


def is_picture(data: bytes) -> bool:
    """Whether this begins as a picture that does not move (of several frames the first is decoded)."""
    head = data[:16].lower()
    if head.startswith(b"riff"):
        return head[8:12] == b"webp"  # an AVI begins so too
    still = (signature for name, signature in protocol.SIGNATURES.items() if name != "GIF")
    return head.startswith((b"bm", *still))


class _DiedError(Exception):
    """The process ended before its answer did."""


class MediaDecoder:
    """One helper process, started when first needed and again whenever it was lost. Safe under threads.

    Allowed: PNG, JPEG, WEBP, GIF and TIFF (first frame), BMP, told by content. Colours as PIL's
    `convert("RGB")`: alpha dropped, no EXIF rotation, as in the published code.

    Args:
        limits: `max_image_pixels`, `decode_timeout_s` and `decode_memory_bytes` hold for each picture.
    """

    def __init__(self, limits: FetchLimits):
        self._limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = 0

    @property
    def pid(self) -> int | None:
        """The helper's process id while there is one."""
        process = self._process
        return None if process is None else process.pid

    def decode_image(self, data: bytes) -> np.ndarray:
        """The picture as uint8 HWC RGB.

        Raises:
            RowError: ASSET_UNDECODABLE, ASSET_TOO_LARGE (pixels or memory) or ASSET_TIMEOUT, with a sentence
                that a user understands.
            InfrastructureError: the helper process does not start.
        """
        return self._decode(data, protocol.RGB)

    def decode_grey(self, data: bytes) -> np.ndarray:
        """The picture's brightness as float32 HW, in its own range: 16 bits stay 16 bits.

        Raises:
            RowError, InfrastructureError: as `decode_image`.
        """
        return self._decode(data, protocol.GREY)

    def _decode(self, data: bytes, kind: int) -> np.ndarray:
        with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return self._request(data, kind)
                except _DiedError as error:
                    logger.warning("the picture decoder died (%s)", error)
                    if attempt == _ATTEMPTS:
                        raise RowError(
                            ErrorClass.ASSET_UNDECODABLE, f"the file crashes the picture decoder ({error})"
                        ) from None
        raise AssertionError("every attempt returns or raises")

    def close(self) -> None:
        """Ends the helper process."""
        with self._lock:
            self._end()

    def _request(self, data: bytes, kind: int) -> np.ndarray:
        process = self._running()
        timeout_s = self._limits.decode_timeout_s
        watchdog = Watchdog(process, timeout_s)
        try:
            with watchdog:
                return self._exchange(process, data, kind)
        except (_DiedError, OSError) as error:
            self._end()
            if watchdog.fired:
                message = f"the picture took longer than the {timeout_s:g} s allowed to decode"
                raise RowError(ErrorClass.ASSET_TIMEOUT, message) from None
            raise _DiedError(f"exit status {process.returncode}") from error
        finally:
            if watchdog.fired:
                self._end()

    def _exchange(self, process: subprocess.Popen[bytes], data: bytes, kind: int) -> np.ndarray:
        assert process.stdin is not None
        self._requests += 1
        header = protocol.REQUEST.pack(
            kind, len(data), self._limits.max_image_pixels, self._limits.decode_timeout_s
        )
        process.stdin.write(header + data)
        process.stdin.flush()
        status, first, second = protocol.ANSWER.unpack(_read(process, protocol.ANSWER.size))
        if status == protocol.OK:
            height, width = first, second
            if not 0 < height * width <= self._limits.max_image_pixels:
                raise _DiedError(f"it answered with {width} x {height} pixels")
            if kind == protocol.GREY:
                values = np.frombuffer(_read(process, height * width * 4), np.float32)
                return values.reshape(height, width)
            pixels = np.frombuffer(_read(process, height * width * 3), np.uint8)
            return pixels.reshape(height, width, 3)
        if status not in _ERROR_CLASSES or first > _MAX_MESSAGE_BYTES:
            raise _DiedError(f"it answered with status {status}")
        message = _read(process, first).decode(errors="replace")
        if status == protocol.OUT_OF_MEMORY:
            self._end()  # what it holds on to would be missing for the next picture
        raise RowError(_ERROR_CLASSES[status], message)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and (
            self._requests >= _MAX_REQUESTS or self._process.poll() is not None
        ):
            self._end()
        return self._process or self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        """A new process; one that is killed while it starts is replaced as any other."""
        for _ in range(_STARTS - 1):
            try:
                return self._start()
            except InfrastructureError as error:
                logger.warning("%s", error)
        return self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """Starts the process. How long that takes, or that it fails, is no picture's fault."""
        try:
            process = self._process = subprocess.Popen(
                [sys.executable, "-I", str(_SCRIPT), str(self._limits.decode_memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ},
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the job, which then closes this
            )
            self._requests = 0
            with Watchdog(process, _START_TIMEOUT_S):
                _read(process, len(protocol.READY))
            return process
        except (_DiedError, OSError) as error:
            self._end()
            raise InfrastructureError(f"the picture decoder does not start ({error})") from error

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()  # end of input: it ends by itself if it is idle
        except OSError:
            logger.debug("the picture decoder was gone already")
        try:
            process.wait(0 if process.poll() is not None else _CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _read(process: subprocess.Popen[bytes], size: int) -> bytearray:
    assert process.stdout is not None
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        received = process.stdout.readinto(view[filled:])  # type: ignore[attr-defined]
        if not received:
            raise _DiedError("its answer broke off")
        filled += received
    return data
