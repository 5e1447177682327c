"""An image to PNG and back. PNG keeps every pixel, and a checksum of each of its parts."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from actors.video_codec import VideoError

# Frames are uint8 THWC, RGB, as those of a video: T = 1 frame.

_COMMENT = "Comment"
_END = b"\0\0\0\0IEND\xaeB`\x82"


def encode_png(frames_THWC: np.ndarray, path: Path, comment: str = "") -> None:
    """Writes the one frame.

    Args:
        comment: kept in the file's metadata.

    Raises:
        ValueError: not one frame of uint8 RGB.
    """
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[::3] != (1, 3):
        shape = f"{frames_THWC.dtype} {frames_THWC.shape}"
        raise ValueError(f"frames = {shape}: an image must be uint8 of shape (1, height, width, 3)")
    about = PngInfo()
    if comment:
        about.add_text(_COMMENT, comment)
    Image.fromarray(frames_THWC[0]).save(path, "PNG", pnginfo=about)


def verify_png(path: Path, num_frames: int, height: int, width: int) -> None:
    """Checks every checksum, decodes the whole file and compares its size with what is expected.

    Raises:
        VideoError: it is not one of our images, is damaged, or has another size.
    """
    if not path.read_bytes().endswith(_END):
        raise VideoError(f"{path.name} is not a PNG, or is truncated")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.verify()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path.name} is not a PNG, or is damaged ({error})") from error
    decode_png(path, num_frames, height, width)


def decode_png(path: Path, num_frames: int, height: int, width: int) -> np.ndarray:
    """The image as uint8 THWC RGB with one frame.

    Raises:
        VideoError: it does not decode to this size.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            found, mode = image.size, image.mode
            pixels_HWC = np.asarray(image.convert("RGB")) if found == (width, height) else None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path.name} is not a decodable PNG ({error})") from error
    if pixels_HWC is None or mode != "RGB" or num_frames != 1:
        raise VideoError(
            f"{path.name} is an image of {found[0]} x {found[1]} ({mode}); "
            f"expected {num_frames} of {width} x {height} (RGB)"
        )
    return pixels_HWC[None]
