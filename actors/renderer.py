"""Holds the model: a batch of planned rows and what they are rendered from in, frames out."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from actors.assets import RowAssets, StyleImage
from actors.lru import LruCache
from schemas.planned import PlannedRow
from schemas.record import ErrorClass, RowError
from schemas.settings import RenderSettings
from schemas.speed import SpeedSettings
from stylecrafter.engines import load_pipeline
from stylecrafter.speed import SpeedOptions, apply_speed_options
from stylecrafter.style_adapter import mix_styles
from stylecrafter.unet_layout import style_layer_groups

# Shape suffixes: B rows, L text tokens, K style tokens, N fusion layers, C channels, T frames, H height, W width.

_CACHED_PROMPTS = 4_096
_CACHED_STYLES = 1_024


class Saving(IntEnum):
    """How much is done to fit a video into the device's memory; each step includes the ones before it."""

    NONE = 0
    ONE_BY_ONE = 1  # guidance branches and decoded frames one after another
    ENCODERS_AWAY = 2  # in main memory while others work
    TILED = 3  # frames are decoded in tiles: their seams are blended, so that pixels change a little


@dataclass
class RenderedVideo:
    """One row's frames, uint8 THWC RGB, and what the model said on the way."""

    frames_THWC: np.ndarray
    fusion_scales: list[float] | None = None  # 1 + tanh(.) per layer; None if read back, or without such
    timings: dict[str, float] = field(default_factory=dict)  # this row's share of its batch, seconds


class Renderer:
    """One model on one device. Not thread-safe: the actor holds a lock around the device."""

    def __init__(self, model_dir: Path, *, dtype: str, device: str, speed: SpeedSettings):
        self.device = torch.device(device)
        # Any: settings that an engine lacks are refused when the run is planned.
        self.pipeline: Any = load_pipeline(model_dir, dtype=getattr(torch, dtype))
        self._offload = speed.cpu_offload
        if not self._offload:
            self.pipeline.to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        apply_speed_options(self.pipeline, SpeedOptions(**speed.model_dump(exclude={"cpu_offload"})))
        if self._offload:
            self.pipeline.enable_model_cpu_offload(device=self.device)
        self._texts: LruCache[torch.Tensor] = LruCache(_CACHED_PROMPTS, name="prompt")
        self._styles: LruCache[torch.Tensor] = LruCache(_CACHED_STYLES, name="style")
        self._saving = Saving.NONE

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    @contextmanager
    def saving_memory(self, saving: Saving) -> Iterator[None]:
        """What is rendered in the block takes less memory, and more time."""
        self._saving = saving
        was_tiling = self.pipeline.vae.use_tiling
        if saving >= Saving.TILED:
            self.pipeline.vae.enable_tiling()
        try:
            yield
        finally:
            self.pipeline.vae.use_tiling = was_tiling
            self._saving = Saving.NONE

    @torch.inference_mode()
    def render(
        self, rows: Sequence[PlannedRow], assets: Sequence[RowAssets]
    ) -> list[RenderedVideo | RowError]:
        """Renders rows of one bucket together; `assets` holds what each is rendered from.

        A row's noise comes from its own seed, so that its frames do not depend on its batch.
        A row whose pixels are not finite becomes a RowError.

        Raises:
            torch.OutOfMemoryError: the batch does not fit.
        """
        assert len({row.bucket for row in rows}) == 1, "a batch mixes buckets"
        clock = _Clock(self.device)
        text_BLC, uncond_BLC, style_BKC, scales_BN1 = self._condition(rows, assets)
        depth_features = self._depth_features(rows, assets)
        # Hooks send away the model before them in line only, which a cached embedding may have left out.
        self.pipeline.maybe_free_model_hooks()
        clock.lap("condition_s")
        with self._encoders_away():
            latents_BCTHW = self._denoise(rows, depth_features, text_BLC, uncond_BLC, style_BKC, scales_BN1)
            clock.lap("denoise_s")
            one_by_one = {"chunk_frames": 1} if self._saving >= Saving.ONE_BY_ONE else {}
            decoded_BCTHW = self.pipeline.decode_latents_to_float(latents_BCTHW, **one_by_one)
        frames_BTHWC = self.pipeline.frames_to_uint8(decoded_BCTHW)
        self.pipeline.maybe_free_model_hooks()
        clock.lap("decode_s")
        share = {name: seconds / len(rows) for name, seconds in clock.laps.items()}
        finite = torch.isfinite(decoded_BCTHW).flatten(1).all(dim=1).tolist()
        return [
            RenderedVideo(frames_BTHWC[i], _fusion_scales(scales_BN1, i), dict(share))
            if finite[i]
            else RowError(ErrorClass.NON_FINITE, "the model produced NaN or infinite pixels for this row")
            for i in range(len(rows))
        ]

    def _condition(
        self, rows: Sequence[PlannedRow], assets: Sequence[RowAssets]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        text_BLC = torch.cat([self._text(row.prompt) for row in rows])
        uncond_BLC = torch.cat([self._text(row.settings.negative_prompt) for row in rows])
        style_BKC = torch.cat(
            [self._row_style(row.settings, one.images) for row, one in zip(rows, assets, strict=True)]
        )
        return text_BLC, uncond_BLC, style_BKC, self.pipeline.predict_fusion_scales(style_BKC, text_BLC)

    def _text(self, prompt: str) -> torch.Tensor:
        return self._texts.get(prompt, lambda: self.pipeline.encode_prompt([prompt]))

    def _row_style(self, settings: RenderSettings, images: Sequence[StyleImage]) -> torch.Tensor:
        if settings.style_mix is None:
            return self._style(images, settings.style_weights)
        first, second = (self._style([image], None) for image in images)
        return mix_styles(first, second, torch.tensor([settings.style_mix]))

    def _style(self, images: Sequence[StyleImage], weights: tuple[float, ...] | None) -> torch.Tensor:
        key = (*(image.sha256 for image in images), weights)
        return self._styles.get(
            key,
            lambda: self.pipeline.encode_style([Image.fromarray(image.pixels) for image in images], weights),
        )

    def _depth_features(
        self, rows: Sequence[PlannedRow], assets: Sequence[RowAssets]
    ) -> tuple[torch.Tensor, ...]:
        """Of the batch [N, C, H, W], N = B * T; none for a bucket without depth."""
        of_rows = []
        for row, one in zip(rows, assets, strict=True):
            if one.depth is not None:
                s = row.settings
                frames = one.depth.frames
                of_rows.append(
                    self.pipeline.encode_depth(
                        [frames], s.num_frames, s.height, s.width, s.depth_normalization
                    )
                )
        return tuple(torch.cat(level) for level in zip(*of_rows, strict=True))

    def _denoise(
        self,
        rows: Sequence[PlannedRow],
        depth_features: tuple[torch.Tensor, ...],
        text_BLC: torch.Tensor,
        uncond_BLC: torch.Tensor,
        style_BKC: torch.Tensor,
        scales_BN1: torch.Tensor | None,
    ) -> torch.Tensor:
        settings = [row.settings for row in rows]
        first = settings[0]
        # Where a row has one, all rows of its bucket do.
        rates = [s.conditioning_fps for s in settings if s.conditioning_fps is not None]
        return self.pipeline.denoise(
            text_BLC,
            uncond_BLC,
            style_BKC,
            scales_BN1,
            generators=[torch.Generator().manual_seed(row.seed) for row in rows],
            num_frames=first.num_frames,
            height=first.height,
            width=first.width,
            num_inference_steps=first.num_inference_steps,
            text_guidance_scale=[s.text_guidance_scale for s in settings],
            style_guidance_scale=[s.style_guidance_scale for s in settings],
            style_scale=self._style_scale(settings),
            depth_features=depth_features,
            conditioning_fps=rates or None,
            sampler=first.scheduler,
            eta=first.eta,
            guidance=first.guidance,
            guidance_interval=(first.guidance_start, first.guidance_end),
            mode=first.mode,
            **({} if first.frame_window is None else {"frame_window": first.frame_window}),
            batch_guidance=False if self._saving >= Saving.ONE_BY_ONE else None,
        )

    def _style_scale(self, settings: Sequence[RenderSettings]) -> list[float] | dict[str, list[float]]:
        """One number per row, or where rows weigh groups of layers, one per row and group."""
        if all(s.style_scale_structure == s.style_scale_texture == 1 for s in settings):
            return [s.style_scale for s in settings]
        groups = style_layer_groups(self.pipeline.unet.config)
        return {
            group: [s.style_scale * getattr(s, f"style_scale_{group}") for s in settings]
            for group in dict.fromkeys(groups)
        }

    @contextmanager
    def _encoders_away(self) -> Iterator[None]:
        encoders = (self.pipeline.text_encoder, self.pipeline.image_encoder)
        if self._saving < Saving.ENCODERS_AWAY or self._offload:
            yield
            return
        try:
            for encoder in encoders:
                encoder.to("cpu")
            yield
        finally:
            for encoder in encoders:
                encoder.to(self.device)


def _fusion_scales(scales_BN1: torch.Tensor | None, row: int) -> list[float] | None:
    return None if scales_BN1 is None else (1 + scales_BN1[row, :, 0]).float().tolist()


class _Clock:
    """Wall seconds between laps, with the device's queue drained first."""

    def __init__(self, device: torch.device):
        self._device = device
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
