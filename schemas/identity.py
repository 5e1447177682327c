"""Names that must never change meaning: row_id, row_key, record_id and seed.

Every function here is a pure hash of canonical JSON. `tests/data/golden_keys.json` pins their values:
a change that moves one of them orphans every video ever rendered.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

KEY_VERSION = 1
_SEED_BITS = 63  # a seed fits a signed 64-bit Parquet column
_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


SUFFIXES = ("mp4", "png", "jpg")  # of what a row becomes


def media_suffix(mode: str | None, image_format: str | None = None) -> str:
    """The suffix of what a row becomes; of records without a format, images are PNGs."""
    if mode != "image":
        return "mp4"
    return "jpg" if image_format == "jpeg" else "png"


def media_path(row_key: str, suffix: str = "mp4") -> str:
    """Where a row's video or image lies below its output."""
    return f"videos/{row_key[:2]}/{row_key}.{suffix}"


def canonical_json(value: Any) -> bytes:
    """Bytes that are equal exactly when the values are: sorted keys, NFC text, no NaN.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = _JSON.encode(value)
    if not unicodedata.is_normalized("NFC", text):
        text = _JSON.encode(_normalise(value))
    return text.encode("utf-8", errors="surrogatepass")


def _normalise(value: Any) -> Any:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, Mapping):
        return {_normalise(key): _normalise(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normalise(item) for item in value]
    return value


def digest(value: Any, length: int = 32) -> str:
    """The first `length` hex digits of the SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:length]


def content_row_id(content: Mapping[str, Any]) -> str:
    """The row_id of a row that brings none: a hash of what it asks for, never of its position."""
    return "c-" + digest(["row_id", KEY_VERSION, content], 24)


def repeated_row_id(row_id: str, occurrence: int) -> str:
    """The row_id of the n-th (from 1) appearance of one row_id in a manifest."""
    return row_id if occurrence == 1 else f"{row_id}~{occurrence}"


def record_id(row_id: str, sample_index: int, variant: str = "") -> str:
    """The object name of a record's commit; safe in a path whatever the row_id holds."""
    return digest(["record_id", KEY_VERSION, row_id, sample_index, variant])


def row_seed(
    *,
    run_seed: int,
    prompt: str,
    style_image_uri: Sequence[str],
    depth_video_uri: str | None,
    sample_index: int,
    manifest_seed: int | None = None,
) -> int:
    """The seed of one video in [0, 2**63): a function of what is asked, never of settings, model or hardware.

    Rows that differ in settings alone therefore share their noise, so that sweeps are paired. A `seed` in the
    manifest replaces the content: samples of one row still differ.
    """
    if manifest_seed is not None:
        source: list[Any] = ["manifest_seed", manifest_seed, sample_index]
    else:
        source = ["run_seed", run_seed, prompt, list(style_image_uri), depth_video_uri, sample_index]
    hashed = hashlib.sha256(canonical_json(["seed", KEY_VERSION, source])).digest()
    return int.from_bytes(hashed[:8], "big") >> (64 - _SEED_BITS)


def row_key(
    *,
    prompt: str,
    style_images: Sequence[tuple[str, str]],
    depth_video: tuple[str, str] | None,
    sample_index: int,
    seed: int,
    settings_changed: Mapping[str, Any],
    engine: str,
    dtype: str,
    model_fingerprint: str,
    render_epoch: int,
) -> str:
    """The name of one video: equal keys promise equal pixels, so that the video is rendered once.

    Args:
        style_images: (URI, version seen at plan time) of each reference, in order.
        depth_video: the same for the depth video.
        settings_changed: only settings that differ from the frozen v1 defaults, so that a setting added later
            with a default moves no old key.
    """
    return digest(
        {
            "key_version": KEY_VERSION,
            "prompt": prompt,
            "style_images": [list(image) for image in style_images],
            "depth_video": list(depth_video) if depth_video else None,
            "sample_index": sample_index,
            "seed": seed,
            "settings": dict(settings_changed),
            "engine": engine,
            "dtype": dtype,
            "model_fingerprint": model_fingerprint,
            "render_epoch": render_epoch,
        }
    )
