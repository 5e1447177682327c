"""Draws a content in a style: frames and the true depth of what is in them."""

import numpy as np

from examples.demo_world.families import paint
from examples.demo_world.palettes import Colour
from examples.demo_world.scenes import DEPTHS, Layer, scene_layers
from examples.demo_world.shapes import shape_mask
from examples.demo_world.textures import UNITS, Grid, grid
from examples.demo_world.world import Content, Style, positions

# Frames are uint8 THWC, RGB, square; depth is uint8 THW, larger is nearer. The drawing is made at _FINER times the
# frame's size and reduced.

_FINER = 2
_HALO = 9.0  # units; more than the widest contour or glow reaches beyond its layer
_MIN_SIZE = 16  # below it, no shape can be told from another


def draw_clip(
    content: Content, style: Style, size: int = 64, frames: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """The object on its way.

    Args:
        size: side of the square frame, in pixels.
        frames: how many; a single one shows the object at `content.progress` of its way.

    Returns:
        (frames uint8 THWC, depth uint8 THW, larger is nearer)

    Raises:
        ValueError: frames < 1, or a size that is odd or below 16.
    """
    check_size(size, frames)
    scene_HWC, scene_depth_HW = _draw_scene(content, style, size)
    sprite = _draw_object(content, style, size)
    frames_THWC = np.empty((frames, size, size, 3), np.uint8)
    depth_THW = np.empty((frames, size, size), np.uint8)
    for t, centre in enumerate(positions(content, frames)):
        window = _window(sprite, centre, size)
        picture = scene_HWC * (1 - window[..., 3:4]) + window[..., :3]
        frames_THWC[t] = _softened(picture) * 255 + np.float32(0.5)
        depth_THW[t] = np.where(window[..., 4] >= 0.5, DEPTHS["object"], scene_depth_HW)
    return frames_THWC, depth_THW


def check_size(size: int, frames: int) -> None:
    """Raises the ValueError of `draw_clip` for what it cannot draw."""
    if frames < 1:
        raise ValueError(f"frames = {frames}: must be at least 1")
    if size < _MIN_SIZE or size % 2:
        raise ValueError(f"size = {size}: must be an even number of pixels, at least {_MIN_SIZE}")


def draw_still(content: Content, style: Style, size: int = 64) -> np.ndarray:
    """One picture, uint8 HWC, with the object at `content.progress` of its way."""
    return draw_clip(content, style, size, frames=1)[0][0]


def _draw_scene(content: Content, style: Style, size: int) -> tuple[np.ndarray, np.ndarray]:
    drawing = grid(size * _FINER, centred=False)
    picture = np.zeros((*drawing.x_HW.shape, 3), np.float32)
    depth_HW = np.zeros((size, size), np.uint8)
    for layer in scene_layers(content.scene, content.layout, drawing):
        rows = _rows_with(layer.mask_HW, drawing)
        painted = paint(Layer(layer.role, layer.mask_HW[rows], layer.depth), style, drawing.crop(rows))
        picture[rows] += (painted.colour_HWC - picture[rows]) * painted.opacity_HW[..., None]
        depth_HW[_reduced(layer.mask_HW) >= 0.5] = layer.depth
    picture = _reduced(picture)
    return np.clip(_with_background(picture, style, size), 0, 1), depth_HW


def _rows_with(mask_HW: np.ndarray, drawing: Grid) -> slice:
    """The rows that a layer, with its halo, can reach: painting only these saves a third of the time."""
    first = int(mask_HW.any(axis=1).argmax()) - round(_HALO * drawing.pixels_per_unit)
    return slice(max(first, 0), None)


def _with_background(picture: np.ndarray, style: Style, size: int) -> np.ndarray:
    """The style's treatment of the whole scene behind the object."""
    drawing = grid(size, centred=True)
    if style.background == "gradient":
        share = (0.5 - drawing.y_HW / UNITS) * np.float32(0.6)
        return _towards(picture, style.palette.far, np.clip(share, 0, 1))
    if style.background == "vignette":
        radius2 = (drawing.x_HW**2 + drawing.y_HW**2) * np.float32(4 / UNITS**2)
        return _towards(picture, style.palette.ink, np.clip((radius2 - 0.45) * np.float32(0.75), 0, 0.8))
    if style.background == "frame":
        from_middle = np.maximum(np.abs(drawing.x_HW), np.abs(drawing.y_HW))
        return _towards(picture, style.palette.object, (from_middle > UNITS / 2 - 2.5).astype(np.float32))
    return picture


def _towards(picture: np.ndarray, colour: Colour, share_HW: np.ndarray) -> np.ndarray:
    return picture + (np.array(colour, np.float32) - picture) * share_HW[..., None].astype(np.float32)


def _draw_object(content: Content, style: Style, size: int) -> np.ndarray:
    """The object in the middle of a drawing twice as wide as the frame: RGB times opacity, opacity, mask."""
    side = size * _FINER
    mask_HW = shape_mask(content.shape, content.size * side, side)
    drawing: Grid = grid(side, centred=True)
    painted = paint(Layer("object", mask_HW, DEPTHS["object"]), style, drawing)
    sprite = np.zeros((2 * side, 2 * side, 5), np.float32)
    inner = sprite[side // 2 : side // 2 + side, side // 2 : side // 2 + side]
    inner[..., :3] = painted.colour_HWC * painted.opacity_HW[..., None]
    inner[..., 3] = painted.opacity_HW
    inner[..., 4] = mask_HW
    return sprite


def _window(sprite: np.ndarray, centre: np.ndarray, size: int) -> np.ndarray:
    """What the frame shows of the object whose middle is at `centre` (shares of the side)."""
    side = size * _FINER
    left, top = (side - np.rint(centre * side).astype(int)).tolist()
    return _reduced(sprite[top : top + side, left : left + side])


def _softened(picture_HWC: np.ndarray) -> np.ndarray:
    """Blurred by (1, 2, 1) / 4 both ways, as by a lens: a small autoencoder gets 4 dB nearer to such pictures."""
    rows = picture_HWC.copy()
    rows[1:-1] = (picture_HWC[:-2] + picture_HWC[2:]) * np.float32(0.25) + picture_HWC[1:-1] * np.float32(0.5)
    soft = rows.copy()
    soft[:, 1:-1] = (rows[:, :-2] + rows[:, 2:]) * np.float32(0.25) + rows[:, 1:-1] * np.float32(0.5)
    return soft


def _reduced(field: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels."""
    assert _FINER == 2
    rows = field[::2] + field[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)
