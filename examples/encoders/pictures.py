"""Pictures to train on, drawn or read once and kept in memory: uint8 NHWC, RGB, square."""

from collections import Counter

import numpy as np

from actors.storage import Storage
from actors.training_media import TrainingMedia
from actors.training_rows import read_training_rows
from examples.demo_world.dataset import Look, still
from examples.demo_world.world import Split
from schemas.record import RowError
from schemas.run import FetchLimits
from schemas.training import Kind
from stylecrafter.augment import centre_crop

_CACHE_BYTES = 2**20  # every picture is wanted once


def demo_pictures(count: int, seed: int, look: Look, split: Split = "train", size: int = 64) -> np.ndarray:
    """Stills of the demo world, each somewhere on its object's way."""
    return np.stack([still(seed, i, look=look, split=split, size=size).frames_THWC[0] for i in range(count)])


def manifest_pictures(uri: str, count: int, size: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Up to `count` pictures of a training manifest, scaled and centre-cropped, and their captions.

    Of a video it takes one frame. What cannot be read is left out, and said.

    Raises:
        ManifestError: the manifest cannot be used.
        ValueError: none of the rows drawn could be read.
    """
    storage, limits = Storage(), FetchLimits()
    rows = read_training_rows(storage, [uri])
    numbered: list[tuple[Kind, int]] = [
        (kind, i) for kind, rows_of in rows.counts.items() for i in range(rows_of)
    ]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(numbered))[:count]
    media = TrainingMedia(storage, limits, short_side=size, cache_bytes=_CACHE_BYTES)
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    failures: Counter[str] = Counter()
    try:
        for kind, index in (numbered[i] for i in chosen):
            row = rows.row(kind, index)
            try:
                pixels_HWC = media.picture(row) if kind == "image" else media.frame(row, rng.random())
            except RowError as error:
                failures[str(error.error_class)] += 1
                continue
            pictures.append(centre_crop(pixels_HWC, size, size))
            captions.append(row.caption)
    finally:
        media.close()
    if failures:
        print(f"{failures.total()} of {len(chosen)} pictures could not be read: {dict(failures)}")
    if not pictures:
        raise ValueError(f"data is {uri!r}; at least one of its pictures must be readable")
    return np.stack(pictures), captions
