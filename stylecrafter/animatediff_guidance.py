"""AnimateDiff's UNet under the guidance of text and style.

Shapes: B rows, S text tokens, E channels of text, C latent channels, T frames, H, W latent pixels; styles are
[B, 1, D] or [B, 1, P, D] (see `animatediff`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import UNetMotionModel

from stylecrafter.guidance import Guidance


@dataclass(frozen=True)
class GuidedMotionModel:
    """The UNet behind the one call a sampler makes, as `GuidedModel` is for StyleCrafter's."""

    unet: UNetMotionModel
    guidance: Guidance
    text_BSE: torch.Tensor
    uncond_BSE: torch.Tensor
    style: torch.Tensor
    no_style: torch.Tensor
    batch_branches: bool

    def __call__(self, latents_BCTHW: torch.Tensor, timestep: float, guided: bool = True) -> torch.Tensor:
        """Float32 prediction [B, C, T, H, W]; unguided it is that of text and style together."""
        branches = [(self.text_BSE, self.style)]
        if guided and self.guidance.needs_uncond:
            branches.append((self.uncond_BSE, self.no_style))
            if self.guidance.style_scale_B is not None:
                branches.append((self.text_BSE, self.no_style))
        if self.batch_branches:
            texts, styles = (torch.cat(parts) for parts in zip(*branches, strict=True))
            stacked = latents_BCTHW.repeat(len(branches), 1, 1, 1, 1)
            predictions = self._run(stacked, timestep, texts, styles).chunk(len(branches))
        else:
            predictions = tuple(self._run(latents_BCTHW, timestep, *branch) for branch in branches)
        return self.guidance.combine(predictions)

    def _run(
        self, latents_BCTHW: torch.Tensor, timestep: float, text_BSE: torch.Tensor, style: torch.Tensor
    ) -> torch.Tensor:
        frames = latents_BCTHW.shape[2]
        return self.unet(
            latents_BCTHW.to(self.unet.dtype),
            timestep,
            text_BSE.repeat_interleave(frames, dim=0),
            added_cond_kwargs={"image_embeds": [style]},
        ).sample.float()
