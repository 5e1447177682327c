"""The process in which pictures from strangers are decoded. `actors.media_decoder` starts it by its path.

It imports nothing of ours and not much else: standard input brings requests, standard output takes answers,
and its limits are set before the first byte of a picture arrives. It ends when its input does.

    first:    READY   it has its limits and waits for pictures
    request:  "!BQQd" RGB or GREY, bytes, most pixels, CPU seconds; then the picture's bytes
    answer:   "!BII"  OK, height, width; then height * width * 3 bytes (RGB) or height * width floats (GREY)
              "!BII"  another status, length, 0; then a sentence in UTF-8
"""

import contextlib
import ctypes
import io
import math
import os
import resource
import struct
import sys
import warnings
from typing import BinaryIO

from PIL import Image, ImageFile

REQUEST = struct.Struct("!BQQd")
ANSWER = struct.Struct("!BII")
READY = b"ready"
OK, UNDECODABLE, TOO_MANY_PIXELS, OUT_OF_MEMORY = range(4)
RGB, GREY = range(2)

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MAX_OPEN_FILES = 32
_SNIFFED_BYTES = 1024
_NO_NEW_PRIVILEGES = 38  # prctl

SIGNATURES = {
    "PNG": b"\x89png",
    "JPEG": b"\xff\xd8",
    "WEBP": b"riff",
    "GIF": b"gif8",
    "TIFF": b"ii*\x00",
    "big-endian TIFF": b"mm\x00*",
}
# What PIL keeps more than 8 bits of; its `convert("RGB")` would cut them off.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_OTHER_FILES = {
    b"%pdf": "this is a PDF document",
    b"pk\x03\x04": "this is a ZIP archive",
    b"\x1f\x8b": "this is gzip-compressed data",
    b"\x1ae\xdf\xa3": "this is a Matroska or WebM video",
}


class RefusedError(Exception):
    """A picture that is not decoded: status and a sentence for the user."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def decode(data: bytes, max_pixels: int, kind: int = RGB) -> Image.Image:
    """The first frame as PIL's `convert("RGB")` gives it, or (GREY) its brightness as floats with all its bits.

    As the published code does: alpha is dropped, EXIF rotation is not applied.

    Raises:
        RefusedError: not a whole picture of an allowed format with at most `max_pixels`.
    """
    if not data:
        raise RefusedError(UNDECODABLE, "the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - plugins raise whatever they like on a damaged header
        raise RefusedError(UNDECODABLE, _what_else(data)) from None
    name = image.format or "picture"
    pixels = image.width * image.height
    if pixels > max_pixels:
        size = f"{image.width} x {image.height} = {pixels} pixels"
        raise RefusedError(TOO_MANY_PIXELS, f"the {name} has {size}; at most {max_pixels} are allowed")
    try:
        if kind == RGB:
            return image.convert("RGB")
        return (image if image.mode in _DEEP_MODES else image.convert("RGB").convert("L")).convert("F")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they like; all of it is the picture's fault
        state = "truncated" if _is_truncation(error) else "damaged"
        raise RefusedError(UNDECODABLE, f"the {name} is {state} ({error})") from None


def _is_truncation(error: Exception) -> bool:
    return isinstance(error, EOFError | struct.error) or any(
        word in str(error).lower() for word in ("truncated", "unexpected end", "eof", "incomplete")
    )


def _what_else(data: bytes) -> str:
    """What a file that is no picture of ours looks like."""
    head = data[:_SNIFFED_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    allowed = f"allowed: {', '.join(FORMATS)}"
    for name, signature in SIGNATURES.items():
        if head.startswith(signature):
            return f"this begins as a {name} but it is truncated, damaged or too large to open"
    for signature, sentence in _OTHER_FILES.items():
        if head.startswith(signature):
            return f"{sentence}; {allowed}"
    if head[4:8] == b"ftyp":
        return f"this is a video, HEIC or AVIF file; {allowed}"
    if head.startswith(b"<"):
        is_svg, is_html = b"<svg" in head, b"<html" in head or b"<!doctype html" in head
        kind = "an HTML page" if is_html else "SVG text" if is_svg else "XML text"
        return f"this is {kind}, not a picture; {allowed}"
    if not any(byte < 9 for byte in head):
        return f"this is text, not a picture; {allowed}"
    return f"this is not a picture in a known format; {allowed}"


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until they end."""
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        kind, size, max_pixels, cpu_s = REQUEST.unpack(header)
        data = requests.read(size)
        if len(data) != size:
            return
        _limit_cpu(cpu_s)
        try:
            image = decode(data, max_pixels, kind)
            pixels = image.tobytes()
            answers.write(ANSWER.pack(OK, image.height, image.width))
            answers.write(pixels)
        except MemoryError:
            _refuse(answers, OUT_OF_MEMORY, "the picture needs more memory to decode than is allowed")
        except RefusedError as error:
            _refuse(answers, error.status, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is an answer about this picture
            _refuse(answers, UNDECODABLE, f"the file cannot be decoded ({type(error).__name__}: {error})")
        answers.flush()


def _refuse(answers: BinaryIO, status: int, message: str) -> None:
    text = message.encode(errors="replace")[:2000]
    answers.write(ANSWER.pack(status, len(text), 0))
    answers.write(text)


def _limit_cpu(seconds: float) -> None:
    """Ends a decode that nobody waits for any more: whoever would have killed it may be dead itself."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds) + 1, hard))


def _limit(memory_bytes: int) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def main() -> None:
    Image.init()  # load every plugin before files and memory become scarce
    Image.MAX_IMAGE_PIXELS = None  # the request's own limit holds
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("ignore")
    _limit(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not break the framing
    answers.write(READY)
    answers.flush()
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
