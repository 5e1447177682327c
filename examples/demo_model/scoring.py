"""What rendered videos show, by judges and an independent CLIP: one line of scores per video.

Shapes: N videos, T frames, H, W pixels, C = 3 colours, P width of the joint CLIP space.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from actors.video_codec import decode_mp4
from examples.demo_model.conditions import CONTENT, STYLE, Condition, judged_right
from examples.demo_model.judges import Judges
from examples.encoders.components import Clip
from schemas.record import Status
from stylecrafter.metrics import (
    clip_image_embeddings,
    clip_style_score,
    clip_text_embeddings,
    clip_text_score,
)

JUDGED = (*CONTENT, *STYLE)
SIMILARITIES = ("clip_style", "clip_text")

Scores = Mapping[str, np.ndarray]
"""Per name in JUDGED bool [N], per name in SIMILARITIES float [N]."""


def read_videos(output: Path, count: int) -> np.ndarray:
    """Frames [N, T, H, W, C] of a finished render whose rows are numbered 0000, 0001, ...

    Raises:
        ValueError: a row is missing or did not become a video.
    """
    records = ds.dataset(output / "records").to_table().to_pylist()
    by_row = {record["row_id"]: record for record in records if record["status"] == Status.OK}
    wanted = [f"{index:04d}" for index in range(count)]
    if missing := [row for row in wanted if row not in by_row]:
        raise ValueError(f"{output}: {len(missing)} of {count} rows have no video, the first is {missing[0]}")
    return np.stack(
        [
            decode_mp4(Path(one["video_uri"]), one["num_frames"], one["height"], one["width"])
            for one in (by_row[row] for row in wanted)
        ]
    )


def scores(
    frames_NTHWC: np.ndarray, conditions: Sequence[Condition], judges: Judges, clip: Clip
) -> dict[str, np.ndarray]:
    """Every video against its own prompt and its own reference, whichever it was given."""
    found = judged_right(judges, frames_NTHWC, conditions, JUDGED)
    prompts_NP = clip_text_embeddings(clip.text_encoder, clip.tokenizer, [one.prompt for one in conditions])
    similar: dict[str, list[float]] = {name: [] for name in SIMILARITIES}
    for frames_THWC, one, prompt_P in zip(frames_NTHWC, conditions, prompts_NP, strict=True):
        frames_TP, reference_1P = (
            clip_image_embeddings(clip.image_encoder, clip.feature_extractor, pictures)
            for pictures in (frames_THWC, one.reference_HWC[None])
        )
        similar["clip_style"].append(clip_style_score(frames_TP, reference_1P))
        similar["clip_text"].append(clip_text_score(frames_TP, prompt_P))
    return found | {name: np.array(values) for name, values in similar.items()}


def true_frames(conditions: Sequence[Condition]) -> np.ndarray:
    """The demo world's own clips of these conditions: what the best of models would render."""
    return np.stack([one.frames_THWC for one in conditions])
