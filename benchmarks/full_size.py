"""Seconds and memory of one video of the full-size model with random weights: what a GPU can do.

python -m benchmarks.full_size                                       (CUDA, bfloat16, 50 steps, 320 x 512 x 16)
python -m benchmarks.full_size --compile --channels-last

Denoising with text and style guidance (three branches a step) and decoding; text and image encoder, which run once per
prompt and picture (0.4 of 1,662 TFLOP), are left out. One video warms up; the figure is the median of the others. The
compute floor of an H100 is 1.7 s. Ends with one line of JSON per figure.
"""

import argparse
import time
from types import SimpleNamespace

import torch
from diffusers import AutoencoderKL, DDIMScheduler

from benchmarks.figures import Figure
from stylecrafter.decoding import LatentDecoding
from stylecrafter.guidance import Guidance, GuidedModel
from stylecrafter.noise_schedule import PUBLISHED_SCHEDULE
from stylecrafter.sampling import draw_noise, prepare_sampler, sample
from stylecrafter.speed import to_channels_last
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.unet import StyleCrafterUNet

_TEXT_BSE, _STYLE_BKE = (1, 77, 1024), (1, 8, 1024)
_TEXT_SCALE, _STYLE_SCALE = 15.0, 7.5
_LATENT_CHANNELS, _LATENT_FACTOR = 4, 8


class Model(LatentDecoding):
    """UNet, style and autoencoder with random weights.

    Args:
        channels: of the UNet; the published ones are the default.
        vae_channels: of the autoencoder.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        channels: tuple[int, ...] = (320, 640, 1280, 1280),
        vae_channels: tuple[int, ...] = (128, 256, 512, 512),
    ):
        torch.manual_seed(0)
        with device:
            self.unet = StyleCrafterUNet(block_out_channels=channels).to(dtype).eval()
            self.vae = _autoencoder(vae_channels).to(dtype).eval()
            adapter = StyleAdapter(layer_channels=self.unet.style_layer_channels).to(dtype).eval()
            self._text_BSE = torch.randn(_TEXT_BSE, dtype=dtype)
            style_BKE = torch.randn(_STYLE_BKE, dtype=dtype)
        self._style = adapter.condition(style_BKE, adapter.predict_scales(style_BKE, self._text_BSE))
        self._device = device

    def render(
        self, steps: int, frames: int, height: int, width: int, *, batch_guidance: bool
    ) -> torch.Tensor:
        """One video from text and style, frames float32 [1, 3, T, H, W]."""
        guided = GuidedModel(
            unet=self.unet,
            guidance=Guidance.of(_TEXT_SCALE, _STYLE_SCALE, "published", 1),
            text_BSE=self._text_BSE,
            uncond_BSE=torch.zeros_like(self._text_BSE),
            style=self._style,
            depth_features=(),
            fps_B=None,
            image_mode=False,
            batch_branches=batch_guidance,
        )
        generators = [torch.Generator().manual_seed(0)]
        shape_CTHW = (_LATENT_CHANNELS, frames, height // _LATENT_FACTOR, width // _LATENT_FACTOR)
        noise_BCTHW = draw_noise(generators, shape_CTHW).to(self._device)
        latents_BCTHW = sample(
            guided,
            prepare_sampler(DDIMScheduler(**PUBLISHED_SCHEDULE), "ddim", steps),
            noise_BCTHW,
            generators,
        )
        return self.decode_latents_to_float(latents_BCTHW)


def _autoencoder(channels: tuple[int, ...]) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=2,
        latent_channels=_LATENT_CHANNELS,
        scaling_factor=0.18215,
    )


@torch.inference_mode()
def measure(model: Model, options: argparse.Namespace | SimpleNamespace) -> list[Figure]:
    """Renders `repeats` videos after one that warms up."""
    is_cuda = options.device == "cuda"
    seconds = []
    for number in range(options.repeats + 1):
        if is_cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = time.perf_counter()
        frames = model.render(
            options.steps,
            options.frames,
            options.height,
            options.width,
            batch_guidance=not options.sequential,
        )
        assert torch.isfinite(frames.cpu()).all(), "the random model gave pixels that are not finite"
        seconds.append(time.perf_counter() - started)
        print(f"{'warm-up' if number == 0 else 'video'} {seconds[-1]:.2f} s", flush=True)
    figures = [Figure.of_repeats("full_size_video_s", "s", seconds[1:])]
    if is_cuda:
        peak_gib = torch.cuda.max_memory_allocated() / 2**30
        figures.append(Figure.of_repeats("full_size_peak_memory_gib", "GiB", [peak_gib]))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.full_size",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="cuda", help="default: cuda")
    add("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="default: bfloat16")
    add("--steps", type=int, default=50, help="default: 50")
    add("--frames", type=int, default=16, help="default: 16")
    add("--height", type=int, default=320, help="pixels (default: 320)")
    add("--width", type=int, default=512, help="pixels (default: 512)")
    add("--repeats", type=int, default=3, help="videos that count (default: 3)")
    add("--compile", action="store_true", help="torch.compile of the UNet")
    add("--channels-last", action="store_true", help="convolutions in that memory format")
    add(
        "--sequential",
        action="store_true",
        help="guidance branches one after another (default: as one batch)",
    )
    options = parser.parse_args()
    model = Model(torch.device(options.device), getattr(torch, options.dtype))
    if options.channels_last:
        for network in (model.unet, model.vae):
            to_channels_last(network)
    if options.compile:
        model.unet.compile()
    for figure in measure(model, options):
        print(figure.as_json_line())


if __name__ == "__main__":
    main()
