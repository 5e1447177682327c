"""Videos longer than those of the training: FreeNoise (Qiu et al. 2023, arXiv 2310.15169).

Temporal layers see windows of as many frames as they were trained on, which overlap by three quarters, and what they
say of a frame is averaged. The noise of later frames is that of earlier ones in another order, so that distant windows
begin alike and agree on what is to be seen.

Shapes: B rows, C channels, T frames, N = B*T (row major), H, W latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange

_STRIDES = 4  # of a window; the published one is 4 of 16 frames


def stride_of(window: int) -> int:
    """Frames from one window to the next."""
    return max(1, window // _STRIDES)


def window_starts(frames: int, window: int) -> list[int]:
    """First frames of the windows that cover a video; the last one ends where it ends."""
    return [*range(0, frames - window, stride_of(window)), frames - window]


def over_windows(
    run: Callable[[torch.Tensor, int], torch.Tensor], x_NCHW: torch.Tensor, frames: int, window: int
) -> torch.Tensor:
    """A temporal layer window by window.

    Args:
        run: (features of B windows, frames of each) -> features of the same shape.
        window: frames of a window, fewer than there are.
    """
    x_BTCHW = rearrange(x_NCHW, "(b t) c h w -> b t c h w", t=frames)
    # Most weight in the middle of a window, where a frame sees as much before as after it.
    near_T = torch.arange(1, window + 1, device=x_NCHW.device, dtype=x_NCHW.dtype)
    weights_T111 = torch.minimum(near_T, near_T.flip(0))[:, None, None, None]
    total_BTCHW = torch.zeros_like(x_BTCHW)
    seen_T111 = x_NCHW.new_zeros(frames, 1, 1, 1)
    for start in window_starts(frames, window):
        part = slice(start, start + window)
        out = run(rearrange(x_BTCHW[:, part], "b t c h w -> (b t) c h w"), window)
        total_BTCHW[:, part] += weights_T111 * rearrange(out, "(b t) c h w -> b t c h w", t=window)
        seen_T111[part] += weights_T111
    return rearrange(total_BTCHW / seen_T111, "b t c h w -> (b t) c h w")


def reschedule_noise(
    noise_BCTHW: torch.Tensor, generators: Sequence[torch.Generator], window: int
) -> torch.Tensor:
    """Noise whose frames from `window` on are earlier ones: each stride is the one a window before it, shuffled.

    Args:
        generators: one per row, on the CPU; one draw of each per stride.
    """
    noise_BCTHW, stride = noise_BCTHW.clone(), stride_of(window)
    for noise_CTHW, generator in zip(noise_BCTHW, generators, strict=True):
        for start in range(window, noise_CTHW.shape[1], stride):
            order = torch.randperm(stride, generator=generator)[: noise_CTHW.shape[1] - start]
            noise_CTHW[:, start : start + stride] = noise_CTHW[:, start - window + order]
    return noise_BCTHW


def check_window(window: int | None, caches: bool) -> None:
    """Refuses what has no meaning.

    Raises:
        ValueError: fewer than 2 frames, or attention broadcast, which would take one window's result for another's.
    """
    if window is None:
        return
    if window < 2:
        raise ValueError(f"frame_window is {window}; allowed are 2 or more frames, or None")
    if caches:
        raise ValueError(f"frame_window is {window}; with attention broadcast only None is allowed")
