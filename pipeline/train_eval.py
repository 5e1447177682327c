"""What a training run is judged by: the loss on a fixed set at fixed timesteps and noises, and a grid of samples."""

import io
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from einops import rearrange
from PIL import Image
from torch import nn

from actors.micro_batch import MicroBatch
from actors.training_samples import TrainingSamples
from schemas.data_plan import DataPlan
from schemas.train_run import TrainRun
from stylecrafter import StyleCrafterPipeline
from stylecrafter.model_directory import generation_settings
from stylecrafter.style_encoder import image_tokens
from stylecrafter.training import TrainingModel, validation_draws

# Shape suffixes: B rows, T frames, H height, W width, C colours or latent channels.

_SEED = 0  # of the fixed set, whatever the run's is: runs compare
_GAP = 2  # pixels between the pictures of a grid


class Validation:
    """The fixed rows of a run, and what is measured on them.

    Every worker holds all of them and computes its share.
    """

    def __init__(self, run: TrainRun, plan: DataPlan, model: TrainingModel, pipeline: StyleCrafterPipeline):
        self._run = run
        self._model = model
        self._pipeline = pipeline
        self._batches = _fixed_batches(run, plan)

    def losses(self, call: nn.Module, forward: Callable[..., torch.Tensor]) -> dict[str, float]:
        """Mean squared error per kind ("val_loss_image", "val_loss_video"), the same on every worker.

        Args:
            call: the model as training calls it.
            forward: puts a micro-batch with its draws through it.
        """
        rank, world_size = _rank(), _world_size()
        was_training = call.training
        call.eval()
        sums: dict[str, torch.Tensor] = {}
        for kind, batches in self._batches.items():
            total = torch.zeros(2, dtype=torch.float64)
            rounds = -(-len(batches) // world_size)
            for turn in range(rounds):
                # All workers call the model equally often, as sharded models need; a surplus turn counts nothing.
                at = turn * world_size + rank
                batch = batches[at % len(batches)]
                loss_B = self._loss(batch, kind, forward)
                if at < len(batches):
                    total += torch.tensor([loss_B.sum().item(), len(loss_B)], dtype=torch.float64)
            sums[kind] = _sum_over_workers(total)
        call.train(was_training)
        return {f"val_loss_{kind}": float(total[0] / total[1]) for kind, total in sums.items()}

    @torch.no_grad()
    def _loss(self, batch: MicroBatch, kind: str, forward: Callable[..., torch.Tensor]) -> torch.Tensor:
        shape_CTHW = self._model.latent_shape(*batch.target_BTHWC.shape[1:4])
        draws = validation_draws(
            _SEED,
            kind,
            batch.positions_B.tolist(),
            self._run.validation_rows,
            shape_CTHW,
            self._model.scheduler.config.num_train_timesteps,
        )
        return forward(batch, draws, plain=True)

    @torch.no_grad()
    def sample_grid(self, device: torch.device) -> Image.Image | None:
        """One row per sample: its reference or depth (where there is one), its target's first frame, and what the model makes.

        The captions are the validation set's; None where there is no validation set.
        """
        kind = "video" if "video" in self._batches else "image"
        rows = [
            (batch, index) for batch in self._batches.get(kind, []) for index in range(len(batch.captions))
        ]
        rows = rows[: self._run.samples]
        if not rows:
            return None
        frames_BTHWC = self._render(
            [(batch.captions[i], _reference(batch, i)) for batch, i in rows], _depth(rows), kind, device
        )
        lines = []
        for (batch, index), frames_THWC in zip(rows, frames_BTHWC, strict=True):
            shown = [batch.target_BTHWC[index, 0], *frames_THWC]
            reference = _reference(batch, index)
            if reference is not None:
                shown.insert(0, self._as_picture(reference, frames_THWC.shape[1:3]))
            if batch.depth_BTHWC is not None:
                shown.insert(0, batch.depth_BTHWC[index, 0])
            lines.append(np.concatenate([_framed(picture) for picture in shown], axis=1))
        return Image.fromarray(np.concatenate(lines))

    def _render(
        self,
        rows: list[tuple[str, np.ndarray | None]],
        depth: list[np.ndarray],
        kind: str,
        device: torch.device,
    ) -> np.ndarray:
        pipeline, run = self._pipeline, self._run
        text = pipeline.encode_prompt([caption for caption, _ in rows])
        uncond = pipeline.encode_prompt([""]).expand_as(text)
        style = scales = None
        if all(reference is not None for _, reference in rows):
            pixels = torch.from_numpy(np.stack([reference for _, reference in rows])).to(device)  # type: ignore[misc]
            style = pipeline.style_adapter.encode(image_tokens(pipeline.image_encoder, pixels))
            scales = pipeline.predict_fusion_scales(style, text)
        settings = generation_settings(pipeline.generation_config, kind)
        target_THWC = next(iter(self._batches[kind])).target_BTHWC[0]
        size = dict(zip(("num_frames", "height", "width"), target_THWC.shape[:3], strict=True))
        latents = pipeline.denoise(
            text,
            uncond,
            style,
            scales,
            generators=[torch.Generator().manual_seed(run.seed + row) for row in range(len(rows))],
            **size,
            depth_features=pipeline.encode_depth(depth, **size) if depth else (),
            num_inference_steps=run.sample_steps,
            text_guidance_scale=settings["text_guidance_scale"],
            style_guidance_scale=settings["style_guidance_scale"],
            mode=kind,
        )
        return pipeline.decode_latents(latents)

    def _as_picture(self, reference_3HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """What the vision tower saw, as a picture of this height and width."""
        processor = self._pipeline.feature_extractor
        mean, std = (np.array(value)[:, None, None] for value in (processor.mean, processor.std))
        pixels_HWC = rearrange((reference_3HW * std + mean).clip(0, 1) * 255, "c h w -> h w c")
        height, width = size
        side = min(height, width)
        picture = Image.fromarray(pixels_HWC.astype(np.uint8)).resize((side, side))
        canvas = Image.new("RGB", (width, height), "white")
        canvas.paste(picture, ((width - side) // 2, (height - side) // 2))
        return np.asarray(canvas)


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _fixed_batches(run: TrainRun, plan: DataPlan) -> dict[str, list[MicroBatch]]:
    """The first rows of each kind of the validation data, cut like training's but never shuffled by the run's seed."""
    manifests = (run.validation_data,) if run.validation_data else plan.manifests
    found: dict[str, list[MicroBatch]] = defaultdict(list)
    for kind, share, size in (("image", 1.0, plan.image_batch), ("video", 0.0, plan.video_batch)):
        if kind not in plan.kinds or not run.validation_rows:
            continue
        # The set in equal parts: its timesteps are spread over all of it.
        size = max(part for part in range(1, size + 1) if run.validation_rows % part == 0)
        fixed = plan.model_copy(
            update={
                "manifests": manifests,
                "seed": _SEED,
                "image_share": share,
                "image_batch": size,
                "video_batch": size,
                "cache_bytes": 0,
            }
        )
        samples = TrainingSamples(fixed)
        try:
            for index in range(run.validation_rows // size):
                found[kind].append(samples.micro_batch(index))
        finally:
            samples.close()
    return dict(found)


def _reference(batch: MicroBatch, index: int) -> np.ndarray | None:
    return None if batch.reference_B3HW is None else batch.reference_B3HW[index]


def _depth(rows: list[tuple[MicroBatch, int]]) -> list[np.ndarray]:
    return [batch.depth_BTHWC[index] for batch, index in rows if batch.depth_BTHWC is not None]


def _framed(picture_HWC: np.ndarray) -> np.ndarray:
    return np.pad(picture_HWC, ((_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    if dist.is_initialized():
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        values = values.to(device)
        dist.all_reduce(values)
    return values.cpu()
