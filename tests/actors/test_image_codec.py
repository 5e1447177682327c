"""Images of rows in image mode: every pixel kept, damage found, identity inside."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.image_codec import decode_image, encode_image, verify_image
from actors.video_codec import VideoError

FRAMES = np.random.default_rng(0).integers(0, 256, (1, 24, 40, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    encode_image(FRAMES, tmp_path / "image.png", "which row")
    return tmp_path / "image.png"


def test_every_pixel_and_the_comment_are_kept(path: Path) -> None:
    verify_image(path, 1, 24, 40)
    assert np.array_equal(decode_image(path, 1, 24, 40), FRAMES)
    assert Image.open(path).info == {"Comment": "which row"}


def test_equal_images_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    encode_image(FRAMES, tmp_path / "again.png", "which row")
    assert (tmp_path / "again.png").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "bit", "text", "empty", "jpeg"])
def test_damage_is_found(path: Path, damage: str) -> None:
    whole = bytearray(path.read_bytes())
    if damage == "bit":
        whole[len(whole) // 2] ^= 1
    contents: dict[str, bytes | bytearray] = {
        "cut": whole[:-20],
        "bit": whole,
        "text": b"<svg/>",
        "empty": b"",
    }
    if damage == "jpeg":
        Image.fromarray(FRAMES[0]).save(path, "JPEG")
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(VideoError, match=r"image\.png"):
        verify_image(path, 1, 24, 40)


def test_another_size_or_mode_is_refused(path: Path) -> None:
    with pytest.raises(VideoError, match="an image of 40 x 24"):
        verify_image(path, 1, 40, 24)
    with pytest.raises(VideoError, match="expected 2 of"):
        verify_image(path, 2, 24, 40)
    Image.fromarray(FRAMES[0, ..., 0]).save(path)
    with pytest.raises(VideoError, match=r"\(L\)"):
        verify_image(path, 1, 24, 40)


@pytest.mark.parametrize(
    "frames", [FRAMES.repeat(2, axis=0), FRAMES.astype(float), FRAMES[..., :1], FRAMES[0]]
)
def test_what_is_no_image_is_not_written(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an image must be uint8"):
        encode_image(frames, tmp_path / "x.png")


def test_a_jpeg_keeps_the_comment_and_nearly_every_pixel(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 40).astype(np.uint8)
    smooth = np.broadcast_to(ramp[None, None, :, None], (1, 24, 40, 3)).copy()
    path = tmp_path / "image.jpg"
    sizes = []
    for quality in (50, 95):
        encode_image(smooth, path, "which row", quality)
        verify_image(path, 1, 24, 40)
        sizes.append(path.stat().st_size)
    assert np.abs(decode_image(path, 1, 24, 40).astype(int) - smooth).max() <= 3
    assert Image.open(path).info["comment"] == b"which row"
    assert sizes[0] < sizes[1]
    first = path.read_bytes()
    encode_image(smooth, path, "which row", 95)
    assert path.read_bytes() == first


def test_a_cut_jpeg_or_a_png_by_that_name_is_found(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    encode_image(FRAMES, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(VideoError, match="is truncated"):
        verify_image(path, 1, 24, 40)
    Image.fromarray(FRAMES[0]).save(path, "PNG")
    with pytest.raises(VideoError, match="is not a JPEG"):
        verify_image(path, 1, 24, 40)
