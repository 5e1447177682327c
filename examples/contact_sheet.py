"""A picture of a finished render: each row's style references beside frames of its video.

python -m examples.contact_sheet outputs/demo/render outputs/demo/contact_sheet.png
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from moviepy import VideoFileClip
from PIL import Image, ImageDraw, ImageFont

from schemas.record import Status

_CELL_HEIGHT = 128
_FRAMES = 4
_MAX_REFERENCES = 3
_GAP = 8
_CAPTION_HEIGHT = 22
_BACKGROUND = (250, 250, 250)
_INK = (30, 30, 30)
_FAILED_INK = (180, 30, 30)


def write_contact_sheet(output: Path, sheet: Path, limit: int = 24, columns: int = 1) -> None:
    """Draws the first `limit` records of a local output folder, in their order, down one column after another."""
    records = ds.dataset(output / "records").head(limit).to_pylist()
    strips = [_strip(record) for record in records]
    if any(record["model_trained"] is False for record in records):
        strips.insert(0, _caption("The model is UNTRAINED: random weights, no style to be seen", _FAILED_INK))
    rows = -(-len(strips) // columns)
    stacks = [_stacked(strips[start : start + rows]) for start in range(0, len(strips), rows)]
    width, height = sum(stack.width for stack in stacks), max(stack.height for stack in stacks)
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    left = 0
    for stack in stacks:
        canvas.paste(stack, (left, 0))
        left += stack.width
    canvas.save(sheet)


def _stacked(strips: list[Image.Image]) -> Image.Image:
    width = max(strip.width for strip in strips)
    canvas = Image.new("RGB", (width, sum(strip.height for strip in strips)), _BACKGROUND)
    top = 0
    for strip in strips:
        canvas.paste(strip, (0, top))
        top += strip.height
    return canvas


def _strip(record: dict[str, Any]) -> Image.Image:
    """One record: caption above, references left, frames right."""
    ok = record["status"] == Status.OK
    references = [_picture(Path(uri)) for uri in record["style_image_uri"][:_MAX_REFERENCES]] if ok else []
    frames = _frames(Path(record["video_uri"])) if ok else []
    caption = f"{record['row_id']}: {record['prompt']}"
    if not ok:
        caption += f"  [{record['status']}: {record['error_class']}] {record['error']}"
    strip = _caption(caption, _INK if ok else _FAILED_INK)
    cells = [*references, *frames]
    if not cells:
        return strip
    width = max(sum(cell.width + _GAP for cell in cells) + 3 * _GAP, strip.width)
    canvas = Image.new("RGB", (width, strip.height + _CELL_HEIGHT + _GAP), _BACKGROUND)
    canvas.paste(strip)
    left = _GAP
    for index, cell in enumerate(cells):
        left += _GAP if index == len(references) else 0
        canvas.paste(cell, (left, _CAPTION_HEIGHT))
        left += cell.width + _GAP
    return canvas


def _caption(text: str, ink: tuple[int, int, int]) -> Image.Image:
    font = ImageFont.load_default(size=13)
    strip = Image.new("RGB", (int(font.getlength(text)) + 2 * _GAP, _CAPTION_HEIGHT), _BACKGROUND)
    ImageDraw.Draw(strip).text((_GAP, 3), text, fill=ink, font=font)
    return strip


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return _fit(picture.convert("RGB"))


def _frames(path: Path) -> list[Image.Image]:
    """Frames spread evenly over the video."""
    with VideoFileClip(str(path), audio=False) as clip:
        last = clip.duration - 0.5 / clip.fps
        return [_fit(Image.fromarray(clip.get_frame(t))) for t in np.linspace(0, last, _FRAMES)]


def _fit(picture: Image.Image) -> Image.Image:
    return picture.resize((round(picture.width * _CELL_HEIGHT / picture.height), _CELL_HEIGHT))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="output folder of jobs.render")
    parser.add_argument("sheet", type=Path, help="PNG to write")
    parser.add_argument("--limit", type=int, default=24, help="records to show (default: 24)")
    arguments = parser.parse_args()
    write_contact_sheet(arguments.output, arguments.sheet, arguments.limit)
    print(arguments.sheet)


if __name__ == "__main__":
    main()
