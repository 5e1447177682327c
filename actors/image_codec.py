"""An image to PNG or JPEG and back. PNG keeps every pixel, and a checksum of each of its parts; JPEG is smaller.

A changed byte inside a JPEG is found by its record's SHA-256 alone.
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from actors.video_codec import VideoError

# Frames are uint8 THWC, RGB, as those of a video: T = 1 frame.

_COMMENT = "Comment"
_FORMATS = {".png": "PNG", ".jpg": "JPEG"}
_ENDS = {"PNG": b"\0\0\0\0IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


def encode_image(frames_THWC: np.ndarray, path: Path, comment: str = "", jpeg_quality: int = 95) -> None:
    """Writes the one frame, as the path's suffix says.

    Args:
        comment: kept in the file's metadata.
        jpeg_quality: 1 to 100, higher is better and larger; colours keep their full resolution.

    Raises:
        ValueError: not one frame of uint8 RGB.
    """
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[::3] != (1, 3):
        shape = f"{frames_THWC.dtype} {frames_THWC.shape}"
        raise ValueError(f"frames = {shape}: an image must be uint8 of shape (1, height, width, 3)")
    image = Image.fromarray(frames_THWC[0])
    if _FORMATS[path.suffix] == "JPEG":
        image.save(path, "JPEG", quality=jpeg_quality, subsampling=0, comment=comment.encode())
        return
    about = PngInfo()
    if comment:
        about.add_text(_COMMENT, comment)
    image.save(path, "PNG", pnginfo=about)


def verify_image(path: Path, num_frames: int, height: int, width: int) -> None:
    """Decodes the whole file, checks every checksum that it has and compares its size with what is expected.

    Raises:
        VideoError: it is not one of our images, is damaged, or has another size.
    """
    kind = _FORMATS[path.suffix]
    if not path.read_bytes().endswith(_ENDS[kind]):
        raise VideoError(f"{path.name} is not a {kind}, or is truncated")
    try:
        with Image.open(path, formats=(kind,)) as image:
            image.verify()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path.name} is not a {kind}, or is damaged ({error})") from error
    decode_image(path, num_frames, height, width)


def decode_image(path: Path, num_frames: int, height: int, width: int) -> np.ndarray:
    """The image as uint8 THWC RGB with one frame.

    Raises:
        VideoError: it does not decode to this size.
    """
    kind = _FORMATS[path.suffix]
    try:
        with Image.open(path, formats=(kind,)) as image:
            found, mode = image.size, image.mode
            pixels_HWC = np.asarray(image.convert("RGB")) if found == (width, height) else None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path.name} is not a decodable {kind} ({error})") from error
    if pixels_HWC is None or mode != "RGB" or num_frames != 1:
        raise VideoError(
            f"{path.name} is an image of {found[0]} x {found[1]} ({mode}); "
            f"expected {num_frames} of {width} x {height} (RGB)"
        )
    return pixels_HWC[None]
