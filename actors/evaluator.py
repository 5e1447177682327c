"""The actor that evaluates: records in; scores and embeddings of their videos out. Frames stay in here."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from actors.assets import row_error
from actors.lru import LruCache
from actors.media_decoder import MediaDecoder
from actors.publisher import PublishedVideo, Publisher
from actors.storage import ObjectNotFound, Storage, StorageError, redact
from schemas.identity import media_suffix
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits, UsageError
from stylecrafter.metric_models import Clip, Dino, load_flow
from stylecrafter.metrics import (
    clip_style_score,
    clip_temp_score,
    clip_text_score,
    layout_embedding,
    warping_error,
)

# Shape suffixes: T frames, R references, P width of an embedding, S width of a layout embedding.

_CACHED = 4_096
SCORES = ("clip_text", "clip_style", "clip_temp", "dino_style", "warping_error")
_VECTOR = pa.list_(pa.float32())
EVALUATED_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("error", pa.string()),  # why a video has no scores
        *(pa.field(name, pa.float64()) for name in SCORES),
        pa.field("frames", _VECTOR),  # mean of the unit CLIP embeddings of the frames
        pa.field("references", _VECTOR),  # likewise of the style's references
        pa.field("frames_layout", _VECTOR),
        pa.field("references_layout", _VECTOR),
        pa.field("models", pa.string()),  # which networks looked, as "clip=..., dino=..."
    ]
)


@dataclass(frozen=True)
class EvaluatorConfig:
    """What an evaluator is built from; small and picklable. Directories are URIs."""

    output: str
    clip: str
    dino: str | None
    flow: str | None
    device: str
    threads: int
    limits: FetchLimits


@dataclass(frozen=True)
class _Seen:
    """Pictures as the networks see them."""

    clip_TP: torch.Tensor
    dino_TP: torch.Tensor | None
    layout_TS: torch.Tensor


class VideoEvaluator:
    """Once per process: loads the networks. Per batch: reads MP4s and style pictures, and scores them.

    A video or picture that cannot be read, or is not the one that was rendered with, is an error of its row.

    Raises:
        UsageError: a directory does not hold what it should.
    """

    def __init__(self, config: EvaluatorConfig):
        torch.set_num_threads(config.threads)
        self._storage = Storage(config.limits)
        self._limits = config.limits
        self._publisher = Publisher(self._storage, config.output)
        self._decoder = MediaDecoder(config.limits)
        try:
            self._clip = Clip(self._storage.local_copy(config.clip), config.device)
            self._dino = Dino(self._storage.local_copy(config.dino), config.device) if config.dino else None
            flow = load_flow(self._storage.local_copy(config.flow), config.device) if config.flow else None
        except (ValueError, ObjectNotFound) as error:
            raise UsageError(str(error)) from error
        self._flow = flow and flow[0]
        layout = self._dino or self._clip
        names = {"clip": self._clip.name, "dino": self._dino and self._dino.name, "flow": flow and flow[1]}
        self._models = ", ".join(
            f"{kind}={name}" for kind, name in {**names, "layout": layout.name}.items() if name
        )
        self._texts: LruCache[torch.Tensor] = LruCache(_CACHED, name="evaluated_text")
        self._references: LruCache[_Seen] = LruCache(_CACHED, name="evaluated_picture")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`EVALUATED_SCHEMA` rows of a batch of records; `style_locations` says where their pictures are read."""
        return pa.Table.from_pylist(
            [self._row(record) for record in batch.to_pylist()], schema=EVALUATED_SCHEMA
        )

    def _row(self, record: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"record_id": record["record_id"], "models": self._models, **self._evaluate(record)}
        except (RowError, ObjectNotFound) as error:
            return {"record_id": record["record_id"], "models": self._models, "error": redact(str(error))}

    def _evaluate(self, record: dict[str, Any]) -> dict[str, Any]:
        suffix = media_suffix(record["mode"], record["image_format"])
        frames_THWC = self._publisher.read_frames(
            _video(record, self._publisher.video_uri(record["row_key"], suffix))
        )
        frames = self._look(frames_THWC)
        references = self._style(record)
        prompt_P = self._texts.get(record["prompt"], lambda: self._clip.texts([record["prompt"]])[0])
        dino = None
        if frames.dino_TP is not None and references.dino_TP is not None:
            dino = clip_style_score(frames.dino_TP, references.dino_TP)
        return {
            "clip_text": clip_text_score(frames.clip_TP, prompt_P),
            "clip_style": clip_style_score(frames.clip_TP, references.clip_TP),
            "clip_temp": clip_temp_score(frames.clip_TP),
            "dino_style": dino,
            "warping_error": warping_error(frames_THWC, self._flow)
            if self._flow and len(frames_THWC) > 1
            else None,
            "frames": _mean(frames.clip_TP),
            "references": _mean(references.clip_TP),
            "frames_layout": _mean(frames.layout_TS),
            "references_layout": _mean(references.layout_TS),
        }

    def _look(self, pictures_THWC: np.ndarray) -> _Seen:
        clip_TP, patches_TLC = self._clip.pictures(pictures_THWC)
        dino_TP = None
        if self._dino is not None:
            dino_TP, patches_TLC = self._dino.pictures(pictures_THWC)
        return _Seen(clip_TP, dino_TP, layout_embedding(patches_TLC))

    def _style(self, record: dict[str, Any]) -> _Seen:
        """All references of a record."""
        wanted = zip(record["style_locations"], record["style_image_sha256"] or (), strict=False)
        seen = [self._references.get(key, lambda key=key: self._reference(*key)) for key in wanted]  # type: ignore[misc]
        return _Seen(
            torch.cat([one.clip_TP for one in seen]),
            torch.cat([one.dino_TP for one in seen if one.dino_TP is not None]) if self._dino else None,
            torch.cat([one.layout_TS for one in seen]),
        )

    def _reference(self, location: str, sha256: str) -> _Seen:
        try:
            self._storage.check_input(location)
            data, _ = self._storage.fetch(location, self._limits.max_image_bytes)
        except StorageError as error:
            raise row_error(error, location) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RowError(
                ErrorClass.ASSET_CHANGED, f"{redact(location)} is not the picture that was rendered with"
            )
        return self._look(self._decoder.decode_image(data)[None])


def _video(record: dict[str, Any], uri: str) -> PublishedVideo:
    shape = record["num_frames"], record["height"], record["width"]
    return PublishedVideo(uri, record["sha256"], record["size_bytes"], record["duration_s"], *shape)


def _mean(embeddings_TP: torch.Tensor) -> list[float]:
    mean: list[float] = embeddings_TP.mean(dim=0).tolist()
    return mean
