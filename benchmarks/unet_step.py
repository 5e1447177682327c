"""How near the UNet comes to what the machine can compute, and to a plain form of itself.

python -m benchmarks.unet_step                     (the published structure at 64 channels, 16 frames of 320 x 128 pixels)
python -m benchmarks.unet_step --threads 2 --repeats 7

In every repeat, in turn: a large matrix product, one forward pass with text and style, and a guided step (three
branches, one after another) as the sampler takes it and in the form of `benchmarks.plain_unet`, whose results must be
equal. The first ratio is the pass's FLOP/s over the product's, where the pass counts for the reference's 0.2326 TFLOP,
so that work that need not be done is none; the second is the plain step's seconds over ours. Ends with one line of JSON
per figure.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.figures import Figure
from benchmarks.plain_unet import PlainStyle, plain_attention
from stylecrafter.attention import StyleCondition
from stylecrafter.guidance import Guidance, GuidedModel
from stylecrafter.speed import to_channels_last
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.unet import StyleCrafterUNet

# Shapes: B rows, C channels, T frames, H, W latent pixels, S tokens of text, K of style, E their channels, L layers.

_REFERENCE_TFLOP = 0.2326  # counted for the published code: explicit attention, contexts repeated per frame
_CHANNELS = (64, 128, 256, 256)
_LATENTS_BCTHW = (1, 4, 16, 16, 40)
_TEXT_BSE, _STYLE_BKE = (1, 77, 1024), (1, 8, 1024)
_TIMESTEP = 500
_TEXT_SCALE, _STYLE_SCALE = 15.0, 7.5
_MATRIX = 2048
_TOLERANCE = 1e-4  # largest relative difference (L2) of the two forms


class Step:
    """One forward pass, and one guided step in both forms; inputs are drawn from a seed.

    Args:
        channels, latents_BCTHW: smaller ones are for tests.
    """

    def __init__(
        self, channels: tuple[int, ...] = _CHANNELS, latents_BCTHW: tuple[int, ...] = _LATENTS_BCTHW
    ):
        torch.manual_seed(0)
        self.unet = StyleCrafterUNet(block_out_channels=channels).eval()
        self._adapter = StyleAdapter(
            num_layers=1, scale_num_layers=1, layer_channels=self.unet.style_layer_channels
        ).eval()
        self._latents_BCTHW = torch.randn(latents_BCTHW)
        self._text_BSE, style_BKE = torch.randn(_TEXT_BSE), torch.randn(_STYLE_BKE)
        scales_BL1 = self._adapter.predict_scales(style_BKE, self._text_BSE)
        self._style = self._adapter.condition(style_BKE, scales_BL1)
        self._plain_style = PlainStyle(self._adapter, style_BKE, 1 + scales_BL1.squeeze(-1))
        self._uncond_BSE = torch.randn(_TEXT_BSE)

    def forward(self) -> torch.Tensor:
        """Ours, with text and style."""
        return self._forward(self._text_BSE, self._style)

    def plain_forward(self) -> torch.Tensor:
        with plain_attention(self.unet):
            return self._forward(self._text_BSE, self._plain_style)

    def ours(self) -> torch.Tensor:
        """A guided step as the sampler takes it."""
        guided = GuidedModel(
            unet=self.unet,
            guidance=_guidance(),
            text_BSE=self._text_BSE,
            uncond_BSE=self._uncond_BSE,
            style=self._style,
            depth_features=(),
            fps_B=None,
            image_mode=False,
            batch_branches=False,
        )
        return guided(self._latents_BCTHW, _TIMESTEP)

    def plain(self) -> torch.Tensor:
        with plain_attention(self.unet):
            branches = [
                self._forward(text_BSE, style)
                for text_BSE, style in (
                    (self._text_BSE, self._plain_style),
                    (self._uncond_BSE, None),
                    (self._text_BSE, None),
                )
            ]
        return _guidance().combine(branches)

    def difference(self) -> float:
        """Of the two results, relative L2."""
        ours, plain = self.ours(), self.plain()
        return float((ours - plain).norm() / plain.norm())

    def _forward(self, text_BSE: torch.Tensor, style: StyleCondition | PlainStyle | None) -> torch.Tensor:
        return self.unet(self._latents_BCTHW, _TIMESTEP, text_BSE, style).sample


@torch.inference_mode()
def measure(repeats: int, channels_last: bool) -> list[Figure]:
    """Both figures.

    Raises:
        ValueError: the two forms differ by more than rounding.
    """
    step = Step()
    if channels_last:
        to_channels_last(step.unet)
    difference = step.difference()
    if difference > _TOLERANCE:
        raise ValueError(f"the two forms differ by {difference:.2g}; at most {_TOLERANCE:g} is rounding")
    left, right = torch.randn(2, _MATRIX, _MATRIX)
    flop_ratios, plain_ratios = [], []
    for _ in range(repeats):
        product_s, pass_s = _seconds(lambda: left @ right), _seconds(step.forward)
        ours_s, plain_s = _seconds(step.ours), _seconds(step.plain)
        peak, achieved = 2 * _MATRIX**3 / product_s, _REFERENCE_TFLOP * 1e12 / pass_s
        print(
            f"product {peak / 1e9:.1f} GFLOP/s, pass {pass_s:.3f} s = {achieved / 1e9:.1f} GFLOP/s, "
            f"step {ours_s:.3f} s, plain {plain_s:.3f} s",
            flush=True,
        )
        flop_ratios.append(achieved / peak)
        plain_ratios.append(plain_s / ours_s)
    return [
        Figure.of_repeats("unet_flops_ratio", "ratio", flop_ratios),
        Figure.of_repeats("unet_vs_plain_ratio", "ratio", plain_ratios),
    ]


def _guidance() -> Guidance:
    return Guidance.of(_TEXT_SCALE, _STYLE_SCALE, "published", 1)


def _seconds(run: Callable[[], torch.Tensor]) -> float:
    """The median of three, so that one interruption does not count."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unet_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=5, help="default: 5")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--channels-last", action="store_true", help="convolutions of both forms in that memory format"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for figure in measure(options.repeats, options.channels_last):
        print(figure.as_json_line())


if __name__ == "__main__":
    main()
