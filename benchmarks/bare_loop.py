"""The baseline of the efficiency benchmark: a plain loop over a manifest, as one would write it for a few rows.

No Ray, no plan, no records, no recovery, no overlap: load the pictures, condition, denoise, decode, score, encode,
next. Of this project it uses the model library, the seeds and the MP4 encoder, so that it makes the same videos.

python -m benchmarks.bare_loop --manifest M.parquet --model MODEL_DIR --output DIR --threads 2
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from actors.video_codec import encode_mp4
from schemas.identity import row_seed
from schemas.settings import RenderSettings, resolve_settings
from stylecrafter import StyleCrafterPipeline
from stylecrafter.metrics import (
    clip_image_embeddings,
    clip_style_score,
    clip_temp_score,
    clip_text_embeddings,
    clip_text_score,
)
from stylecrafter.model_directory import generation_settings, load_generation_config

# Shape suffixes: B rows, T frames, H height, W width, C colours.

ROWS_FILE = "rows-{shard}.jsonl"


@dataclass(frozen=True)
class BareRow:
    """One row of the manifest with everything resolved."""

    row_id: str
    prompt: str
    styles: list[str]
    seed: int
    settings: RenderSettings


class _Clock:
    """Seconds between laps, divided among the videos of a batch."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.laps[name] = (now - self._last) / self._batch_size
        self._last = now


def read_rows(manifest: Path, model: Path) -> list[BareRow]:
    """The manifest's rows with the model's settings and the pipeline's seeds."""
    defaults = generation_settings(load_generation_config(model), "video")
    return [
        BareRow(
            row_id=raw["row_id"],
            prompt=raw["prompt"],
            styles=raw["style_image_uri"],
            seed=row_seed(
                run_seed=0,
                prompt=raw["prompt"],
                style_image_uri=raw["style_image_uri"],
                depth_video_uri=None,
                sample_index=0,
            ),
            settings=resolve_settings(raw, {"mode": "video"}, defaults),
        )
        for raw in pq.read_table(manifest).to_pylist()
    ]


@torch.inference_mode()
def render_batch(
    pipeline: StyleCrafterPipeline, rows: list[BareRow], empty_text: torch.Tensor, output: Path
) -> list[dict[str, Any]]:
    """Renders, scores, encodes and writes a batch; what was found out about each row.

    Args:
        empty_text: the embedding of the empty prompt, which all rows share.
    """
    began_at, clock = time.time(), _Clock(len(rows))
    pictures = [[np.asarray(Image.open(style).convert("RGB")) for style in row.styles] for row in rows]
    clock.lap("fetch_s")
    text = pipeline.encode_prompt([row.prompt for row in rows])
    style = torch.cat(
        [pipeline.encode_style([Image.fromarray(image) for image in images]) for images in pictures]
    )
    fusion_scales = pipeline.predict_fusion_scales(style, text)
    clock.lap("condition_s")
    settings = [row.settings for row in rows]
    latents = pipeline.denoise(
        text,
        empty_text.expand(len(rows), -1, -1),
        style,
        fusion_scales,
        generators=[torch.Generator().manual_seed(row.seed) for row in rows],
        num_frames=settings[0].num_frames,
        height=settings[0].height,
        width=settings[0].width,
        num_inference_steps=settings[0].num_inference_steps,
        text_guidance_scale=[s.text_guidance_scale for s in settings],
        style_guidance_scale=[s.style_guidance_scale for s in settings],
        style_scale=[s.style_scale for s in settings],
        eta=settings[0].eta,
        guidance=settings[0].guidance,
    )
    clock.lap("denoise_s")
    frames_BTHWC = pipeline.decode_latents(latents)
    clock.lap("decode_s")
    scores = [score(pipeline, frames_BTHWC[i], row.prompt, pictures[i]) for i, row in enumerate(rows)]
    clock.lap("score_s")
    results = []
    for i, row in enumerate(rows):
        started = time.perf_counter()
        path = output / f"{row.row_id}.mp4"
        encode_mp4(frames_BTHWC[i], path, row.settings.fps, row.settings.crf)
        result = {
            "row_id": row.row_id,
            "video": str(path),
            "began_at": began_at,
            "finished_at": time.time(),
            "timings": clock.laps | {"encode_s": time.perf_counter() - started},
        }
        results.append(result | scores[i])
    return results


def score(
    pipeline: StyleCrafterPipeline, frames_THWC: np.ndarray, prompt: str, references: list[np.ndarray]
) -> dict[str, float | None]:
    """The three CLIP scores of one video."""
    encoder, processor = pipeline.image_encoder, pipeline.feature_extractor
    frames = clip_image_embeddings(encoder, processor, frames_THWC)
    text = clip_text_embeddings(pipeline.text_encoder, pipeline.tokenizer, [prompt])[0]
    return {
        "clip_text": clip_text_score(frames, text),
        "clip_style": clip_style_score(frames, clip_image_embeddings(encoder, processor, references)),
        "clip_temp": clip_temp_score(frames),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the MP4s and one line per row")
    parser.add_argument("--threads", type=int, required=True, help="torch threads")
    parser.add_argument("--batch-size", type=int, default=1, help="videos denoised together (default: 1)")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--dtype", default="float32", help="default: float32")
    parser.add_argument(
        "--shard", type=int, default=0, help="which of --shards this loop renders (default: 0)"
    )
    parser.add_argument("--shards", type=int, default=1, help="loops that share the manifest (default: 1)")
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    pipeline = StyleCrafterPipeline.from_pretrained(given.model, dtype=getattr(torch, given.dtype))
    pipeline = pipeline.to(given.device)
    rows = read_rows(given.manifest, given.model)[given.shard :: given.shards]
    given.output.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        empty_text = pipeline.encode_prompt([""])
    with (given.output / ROWS_FILE.format(shard=given.shard)).open("w") as lines:
        for start in range(0, len(rows), given.batch_size):
            for result in render_batch(
                pipeline, rows[start : start + given.batch_size], empty_text, given.output
            ):
                lines.write(json.dumps(result) + "\n")
            lines.flush()


if __name__ == "__main__":
    main()
