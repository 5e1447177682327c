"""Trains an AutoencoderKL from nothing, on the demo world or on the pictures of a training manifest.

python -m examples.encoders.train_autoencoder --output outputs/encoders
python -m examples.encoders.train_autoencoder --output outputs/encoders --data pictures/manifest.parquet --size 128

Writes OUTPUT/vae (half precision), OUTPUT/autoencoder.json with its PSNR on held-out pictures and, to go on from
after an interruption, OUTPUT/training/autoencoder.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from actors.storage import StorageError
from examples.encoders.components import save_component
from examples.encoders.linear_start import start_linear
from examples.encoders.loop import Loop, train
from examples.encoders.pictures import demo_pictures, manifest_pictures
from schemas.manifest import ManifestError
from schemas.run import ExitCode, InfrastructureError

# Shapes: N pictures, H, W pixels, C = 3 colours or the latents' channels.

_POOL, _HELD_OUT = 12_000, 256
_STYLED_SHARE = 2 / 3
_START_PICTURES = 400
_GROUPS = 4
_EDGES = 0.1  # weight of the edge term: sharpness counts more than its share of the squared error
_KL = 1e-3  # keeps latents smooth: a denoiser then need not be exact, and 30 dB are reached all the same


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        pictures_NHWC, held_out = _pictures(options)
        vae = build_autoencoder(tuple(options.channels), options.latent_channels, options.seed)
        found = train_autoencoder(vae, pictures_NHWC, held_out, _loop(options), options.batch)
        set_scaling_factor(vae, pictures_NHWC[:1000])
        save_component(vae, options.output / "vae")
    except (ValueError, ManifestError) as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    except (StorageError, InfrastructureError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.INFRASTRUCTURE
    facts = {"command": f"python -m examples.encoders.train_autoencoder {' '.join(sys.argv[1:])}", **found}
    (options.output / "autoencoder.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(options.output / "vae")
    return ExitCode.DONE


def build_autoencoder(channels: tuple[int, ...], latent_channels: int, seed: int) -> AutoencoderKL:
    """A small autoencoder: no attention, which would cost time at no gain, and few norm groups.

    Args:
        channels: widths of the levels; each but the last halves the picture's side.

    Raises:
        ValueError: widths that norm groups or the linear start have no place in.
    """
    if len(channels) < 2 or any(c < 4 or c % _GROUPS for c in channels):
        raise ValueError(f"channels are {channels}; at least two multiples of {_GROUPS} are needed")
    if channels[0] == channels[1] or channels[-1] == channels[-2]:
        raise ValueError(f"channels are {channels}; the first two must differ, and the last two")
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=_GROUPS,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
    )


def train_autoencoder(
    vae: AutoencoderKL,
    pictures_NHWC: np.ndarray,
    held_out: Mapping[str, np.ndarray],
    loop: Loop,
    batch: int,
) -> dict[str, float]:
    """Trains in place.

    Args:
        held_out: pictures to measure with, by name.

    Returns:
        `psnr_NAME` in dB for each name: the mean over its pictures, coded by the posterior's mean.
    """
    start_linear(vae, to_signed(pictures_NHWC[:_START_PICTURES]))
    vae.to(memory_format=torch.channels_last)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = torch.randint(len(pictures_NHWC), (batch,)).numpy()
        return _loss(vae, to_signed(pictures_NHWC[chosen]))

    def evaluate() -> dict[str, float]:
        return {f"psnr_{name}": float(psnr(vae, found).mean()) for name, found in held_out.items()}

    return train(vae, loss_of, loop, evaluate)


def _loss(vae: AutoencoderKL, pixels_NCHW: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    posterior = vae.encode(pixels_NCHW).latent_dist
    decoded_NCHW = vae.decode(posterior.sample()).sample
    error_NCHW = decoded_NCHW - pixels_NCHW
    squared = error_NCHW.square().mean()
    edges = sum(error_NCHW.diff(dim=axis).square().mean() for axis in (-1, -2))
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    loss = squared + _EDGES * edges + _KL * kl
    return loss, {"mse": float(squared.detach()), "kl": float(kl.detach())}


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures_NHWC: np.ndarray) -> np.ndarray:
    """Per picture, dB."""
    found = []
    for start in range(0, len(pictures_NHWC), 32):
        pixels_NCHW = to_signed(pictures_NHWC[start : start + 32])
        decoded_NCHW = vae.decode(vae.encode(pixels_NCHW).latent_dist.mode()).sample.clamp(-1, 1)
        found.append(-10 * torch.log10(((decoded_NCHW - pixels_NCHW) / 2).square().mean(dim=(1, 2, 3))))
    return torch.cat(found).numpy()


@torch.no_grad()
def set_scaling_factor(vae: AutoencoderKL, pictures_NHWC: np.ndarray) -> None:
    """So that scaled latents of such pictures have the standard deviation 1, as diffusion's noise."""
    means = [
        vae.encode(to_signed(some)).latent_dist.sample()
        for some in np.split(pictures_NHWC, range(32, len(pictures_NHWC), 32))
    ]
    vae.register_to_config(scaling_factor=round(1 / float(torch.cat(means).std()), 4))


def to_signed(pictures_NHWC: np.ndarray) -> torch.Tensor:
    """uint8 NHWC to float NCHW in [-1, 1], with channels last in memory, in which convolutions are faster."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures_NHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def _pictures(options: argparse.Namespace) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Pictures to train on, shuffled, and those to measure with."""
    size, seed = options.size, options.seed
    if options.data is not None:
        everything, _ = manifest_pictures(options.data, options.pool + _HELD_OUT, size, seed)
        few = min(_HELD_OUT, len(everything) // 10 + 1)
        return everything[few:] if len(everything) > few else everything, {"held_out": everything[:few]}
    styled = round(options.pool * _STYLED_SHARE)
    pool = np.concatenate(
        [
            demo_pictures(styled, seed, "styled", size=size),
            demo_pictures(options.pool - styled, seed, "neutral", size=size),
        ]
    )
    held_out = {
        look: demo_pictures(_HELD_OUT, seed, look, "held-out", size) for look in ("neutral", "styled")
    }
    return pool[np.random.default_rng(seed).permutation(len(pool))], held_out


def _loop(options: argparse.Namespace) -> Loop:
    return Loop(
        work=options.output / "training" / "autoencoder" if options.work is None else options.work,
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup_steps=100,
        seed=options.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.encoders.train_autoencoder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder to write the component vae into")
    add("--work", type=Path, help="folder of the state and metrics (default: OUTPUT/training/autoencoder)")
    add("--data", help="training manifest (default: the demo world)")
    add("--pool", type=int, default=_POOL, help=f"pictures kept in memory (default: {_POOL})")
    add("--size", type=int, default=64, help="side of the pictures in pixels (default: 64)")
    add("--channels", type=int, nargs="+", default=(16, 32, 64), help="widths (default: 16 32 64)")
    add("--latent-channels", type=int, default=4, help="default: 4")
    add("--steps", type=int, default=2500, help="default: 2500")
    add("--batch", type=int, default=8, help="default: 8")
    add("--learning-rate", type=float, default=1.5e-3, help="default: 0.0015")
    add("--seed", type=int, default=0, help="default: 0")
    add("--threads", type=int, default=1, help="default: 1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
