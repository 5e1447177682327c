"""Outputs as `jobs.render` leaves them, made without a model: records, run files, style pictures and small MP4s."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actors.storage import Storage
from actors.video_codec import encode_mp4
from pipeline.files import write_parquet
from schemas.identity import KEY_VERSION, record_id
from schemas.record import RECORD_SCHEMA, SCHEMA_VERSION, ErrorClass, Status, records_table
from schemas.sweep import Sweep

HOSTILE = "</script><script>window.broken = true</script><img src=x onerror='window.broken = true'>"
FRAMES, HEIGHT, WIDTH = 16, 64, 96
_PROMPTS = (
    "A street performer playing the guitar",
    "A wolf walking stealthily through the forest",
    "A field of sunflowers on a sunny day",
    "A rotating pizza with <b>cheese</b> & basil",
    "A lighthouse on a rocky coast at night, with waves that break over the pier and gulls in the wind",
    "Ein Ritter auf einem Pferd, 馬に乗った騎士",
)
_START = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
_FAILURES = (
    (Status.FAILED, ErrorClass.ASSET_NOT_FOUND, "s3://styles/ink_9.png: there is no such object"),
    (Status.FAILED, ErrorClass.NON_FINITE, "the model produced NaN or infinite pixels for this row"),
    (Status.INVALID, ErrorClass.INVALID_ROW, f"prompt: {HOSTILE}"),
)


def write_output(
    folder: Path,
    rows: int = 24,
    *,
    styles: int = 4,
    videos: int = 3,
    quality: float = 0.0,
    seed: int = 0,
    run_id: str = "night",
    trained: bool = True,
) -> list[dict[str, Any]]:
    """Writes a finished output; its records.

    Args:
        videos: how many different MP4s there are; all rows' files are copies of these.
        quality: added to the CLIP scores.
    """
    random = np.random.default_rng(seed)
    pictures = _write_styles(folder.parent / "styles", styles)
    records = [_record(folder, index, pictures, random, quality, run_id, trained) for index in range(rows)]
    _write_videos(folder, [record for record in records if record["status"] == Status.OK], videos, seed)
    write_records(folder, records)
    _write_run_files(folder, records, run_id, trained)
    return records


def write_sweep(folder: Path, sweep: Sweep, rows: int = 4, **values: Any) -> list[dict[str, Any]]:
    """Writes a finished output of a sweep, whose scores follow the first axis; its records."""
    combinations = sweep.combinations()
    records = write_output(folder, rows * len(combinations), **values)
    plain = [dict(record) for record in records[:rows]]
    for index, record in enumerate(records):
        row, (variant, settings) = plain[index // len(combinations)], combinations[index % len(combinations)]
        name = {name: row[name] for name in ("row_id", "prompt", "style_image_uri")} | {"variant": variant}
        record |= name | settings | {"record_id": record_id(row["row_id"], 0, variant)}
        if record["status"] == Status.OK:
            record["style_image_sha256"] = [_sha256(Path(uri)) for uri in row["style_image_uri"]]
            record["clip_style"] += 0.1 * (
                index % len(combinations) * len(next(iter(sweep.axes.values()))) // len(combinations)
            )
    write_records(folder, records)
    return records


def write_records(folder: Path, records: list[dict[str, Any]]) -> None:
    """The snapshot with its pointer."""
    uri = str(folder / "records" / "part-0-00000.parquet")
    write_parquet(Storage(), uri, records_table(records))
    Storage().write_bytes(str(folder / "run" / "records.json"), json.dumps({"files": [uri]}).encode())


def ok_record(row_id: str, prompt: str, styles: list[str], **values: Any) -> dict[str, Any]:
    """A finished record with plausible values."""
    key = hashlib.md5(repr((row_id, prompt, styles)).encode(), usedforsecurity=False).hexdigest()
    settings: dict[str, Any] = {
        "mode": "video", "num_frames": FRAMES, "height": HEIGHT, "width": WIDTH, "fps": 8,
        "num_inference_steps": 50, "text_guidance_scale": 15.0, "style_guidance_scale": 7.5, "style_scale": 1.0,
        "negative_prompt": "", "eta": 1.0, "guidance": "published", "crf": 18,
    }  # fmt: skip
    base = {
        "row_id": row_id, "row_key": key, "record_id": record_id(row_id, 0), "sample_index": 0, "variant": "",
        "prompt": prompt, "style_image_uri": styles, "seed": 2**62 + len(row_id), "priority": 0, "attempts": 1,
        "status": Status.OK, "clip_model": "model:0123456789abcdef", "model_fingerprint": "0123456789abcdef" * 4,
        "model_trained": True, "engine": "stylecrafter", "dtype": "float32", "code_version": "0.1.0+abc",
        "run_id": "night", "key_version": KEY_VERSION, "render_epoch": 0, "schema_version": SCHEMA_VERSION,
        "node": "node-1", "device": "NVIDIA H100", "finished_at": _START, "duration_s": FRAMES / 8,
        "size_bytes": 12_345,
    }  # fmt: skip
    return dict.fromkeys(RECORD_SCHEMA.names) | settings | base | values


def _record(
    folder: Path,
    index: int,
    pictures: list[Path],
    random: np.random.Generator,
    quality: float,
    run_id: str,
    trained: bool,
) -> dict[str, Any]:
    prompt = _PROMPTS[index // len(pictures) % len(_PROMPTS)]
    style = pictures[index % len(pictures)]
    record = ok_record(
        f"row-{index:05d}",
        f"{prompt}." if index // len(pictures) < len(_PROMPTS) else f"{prompt}, take {index}.",
        [str(style)],
        run_id=run_id,
        model_trained=trained,
        node=f"node-{index % 2 + 1}",
        finished_at=_START + timedelta(seconds=12.0 * index + float(random.uniform(0, 9))),
    )
    if index % 20 == 7:
        status, error_class, error = _FAILURES[index // 20 % len(_FAILURES)]
        return record | {"status": status, "error_class": error_class, "error": error, "attempts": 2}
    denoise_s = float(random.gamma(60, 0.3))
    seconds = {
        "fetch_s": 0.4, "condition_s": 0.3, "denoise_s": denoise_s, "decode_s": 2.1, "score_s": 0.5,
        "encode_s": 0.8, "upload_s": float(random.gamma(2, 0.2)),
    }  # fmt: skip
    scale = 1 + 0.3 * np.tanh(random.normal(0.4 * (index % len(pictures)) - 0.5, 0.5, 16))
    return record | {
        "timings": seconds,
        "video_uri": str(folder / "videos" / record["row_key"][:2] / f"{record['row_key']}.mp4"),
        "style_image_sha256": [_sha256(style)],
        "sha256": "ab" * 32,
        "clip_text": float(np.clip(random.normal(0.27 + quality, 0.03), -1, 1)),
        "clip_style": float(
            np.clip(random.normal(0.45 + quality + 0.02 * (index % len(pictures)), 0.05), -1, 1)
        ),
        "clip_temp": float(np.clip(random.normal(0.985, 0.006), -1, 1)),
        "fusion_scales": [float(value) for value in scale],
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_styles(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"style {index} ünï#1.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(_picture(index, 0.0, 120, 160)).save(path)
    return paths


def _write_videos(folder: Path, records: list[dict[str, Any]], count: int, seed: int) -> None:
    movies = []
    for index in range(min(count, len(records))):
        frames = np.stack([_picture(index + seed, t / FRAMES, HEIGHT, WIDTH) for t in range(FRAMES)])
        path = folder.parent / f".movie-{seed}-{index}.mp4"
        encode_mp4(frames, path, fps=8, crf=23)
        movies.append(path.read_bytes())
        path.unlink()
    for index, record in enumerate(records):
        path = Path(record["video_uri"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(movies[index % len(movies)])


def _picture(kind: int, time: float, height: int, width: int) -> np.ndarray:
    """Stripes of two colours that depend on `kind`, with a disc that crosses the picture."""
    y, x = np.mgrid[0:height, 0:width] / height
    dark, light = (np.random.default_rng(kind + shift).integers(40, 255, 3) for shift in (0, 100))
    waves = 0.5 + 0.5 * np.sin((x * np.cos(kind) + y * np.sin(kind)) * (14 + 3 * kind))
    picture = dark * waves[..., None] + light * (1 - waves[..., None])
    disc = (x - 1.5 * time) ** 2 + (y - 0.5) ** 2 < 0.04
    picture[disc] = 255 - light
    return picture.astype(np.uint8)


def _write_run_files(folder: Path, records: list[dict[str, Any]], run_id: str, trained: bool) -> None:
    config = {
        "manifest": str(folder.parent / "manifest.parquet"),
        "model": "models/full",
        "output": str(folder),
    }
    config |= {"price_per_gpu_hour": 2.5, "run_id": run_id, "batch_size": 1, "seed": 0, "limits": {}}
    plan = {
        "records": len(records),
        "actors": 2,
        "gpus_per_actor": 1.0,
        "cpus_per_actor": 4.0,
        "dtype": "float32",
    }
    summary = {
        "run_id": run_id, "records": len(records), "missing": 0, "rendered": len(records), "reused": 0,
        "wall_s": 13.0 * len(records), "model_trained": trained, "problems": {}, "code_version": "0.1.0+abc",
        "model_fingerprint": "0123456789abcdef" * 4,
    }  # fmt: skip
    for name, value in (("config", config), ("plan", plan), ("summary", summary)):
        for place in (folder / "run", folder / "run" / run_id):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.json").write_text(json.dumps(value))
