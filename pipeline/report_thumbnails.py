"""Small pictures of the style references, inside the page: it must show them offline, and ask no foreign server."""

import base64
import io
from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np
from PIL import Image

from actors.media_decoder import MediaDecoder
from actors.parallel import parallel_map
from actors.storage import Storage, StorageError
from pipeline.finished import FinishedOutput
from schemas.record import RowError
from schemas.run import FetchLimits

_SIDE_PX = 192
_QUALITY = 72
_BUDGET_BYTES = 3 * 2**20


def thumbnails(
    output: FinishedOutput, uris: Iterable[str], config: dict[str, object], limits: FetchLimits
) -> dict[str, str]:
    """Data URIs of style pictures by their URI, in order, until the page's budget is spent.

    A picture that cannot be read, or no longer may be, has none.
    """
    made: dict[str, str] = {}
    spent = 0
    distinct = list(dict.fromkeys(uris))
    inputs = Storage(limits)  # what the run may not read, its report may not either
    with closing(MediaDecoder(limits)) as decoder:
        pictures: Iterator[str | None] = parallel_map(
            lambda uri: _thumbnail(inputs, output.asset_uri(uri, config), limits, decoder), distinct
        )
        for uri, picture in zip(distinct, pictures, strict=True):
            if picture is None:
                continue
            spent += len(picture)
            if spent > _BUDGET_BYTES:
                break
            made[uri] = picture
    return made


def _thumbnail(inputs: Storage, location: str, limits: FetchLimits, decoder: MediaDecoder) -> str | None:
    try:
        return data_uri(read_picture(inputs, location, limits, decoder), _SIDE_PX)
    except (StorageError, RowError, ValueError):
        return None


def read_picture(inputs: Storage, location: str, limits: FetchLimits, decoder: MediaDecoder) -> np.ndarray:
    """A style picture as uint8 HWC RGB.

    Raises:
        StorageError, RowError: it cannot, or may not, be read, or is no picture.
    """
    inputs.check_input(location)
    data, _ = inputs.fetch(location, limits.max_image_bytes)
    return decoder.decode_image(data)


def data_uri(pixels_HWC: np.ndarray, side_px: int) -> str:
    """A picture as a JPEG of at most `side_px` to a side, as a URI."""
    picture = Image.fromarray(pixels_HWC)
    picture.thumbnail((side_px, side_px))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
