"""From latents to frames, the same for every engine that has a diffusers VAE.

Shapes: B rows, C latent channels, T frames, N = B*T (row major), H, W pixels (of latents for latents).
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from einops import rearrange


class LatentDecoding:
    """What a pipeline with a `vae` has in common with others."""

    vae: AutoencoderKL

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent pixel along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def decode_latents_to_float(self, latents_BCTHW: torch.Tensor, chunk_frames: int = 8) -> torch.Tensor:
        """Latents -> frames [B, 3, T, H, W], nominally in [-1, 1] but not clamped, float32.

        Args:
            chunk_frames: frames decoded together, at least 1.
        """
        batch = len(latents_BCTHW)
        frames_NCHW = rearrange(latents_BCTHW, "b c t h w -> (b t) c h w").to(self.vae.dtype)
        frames_NCHW = frames_NCHW / self.vae.config.scaling_factor
        decoded = [self.vae.decode(chunk).sample.float() for chunk in frames_NCHW.split(chunk_frames)]
        return rearrange(torch.cat(decoded), "(b t) c h w -> b c t h w", b=batch)

    def decode_latents(self, latents_BCTHW: torch.Tensor, chunk_frames: int = 8) -> np.ndarray:
        """Latents -> RGB frames uint8 [B, T, H, W, 3]; values are truncated, not rounded, as published."""
        return self.frames_to_uint8(self.decode_latents_to_float(latents_BCTHW, chunk_frames))

    @staticmethod
    def frames_to_uint8(frames_BCTHW: torch.Tensor) -> np.ndarray:
        """Frames in [-1, 1] (clamped) -> RGB uint8 [B, T, H, W, 3], truncated as published."""
        frames_uint8 = ((frames_BCTHW.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
        return rearrange(frames_uint8, "b c t h w -> b t h w c").cpu().numpy()
