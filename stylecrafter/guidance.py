"""Classifier-free guidance by text and style.

Shapes: B rows, C latent channels, T frames, H, W latent pixels, S text tokens, E channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stylecrafter.attention import StyleCondition
from stylecrafter.unet import StyleCrafterUNet
from stylecrafter.validation import Scale, per_row

DUAL_FORMS = ("published", "paper")


def single_guidance(cond: torch.Tensor, uncond: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """uncond + scale (cond - uncond): one scale for everything that conditions (Ho and Salimans 2022)."""
    return uncond + scale * (cond - uncond)


def published_guidance(
    full: torch.Tensor,
    text: torch.Tensor,
    uncond: torch.Tensor,
    text_scale: torch.Tensor,
    style_scale: torch.Tensor,
) -> torch.Tensor:
    """full + style_scale (full - text) + text_scale (text - uncond), as the released code has it.

    A row with text scale 1 is not guided at all, as there.
    """
    guided = full + style_scale * (full - text) + text_scale * (text - uncond)
    return torch.where(text_scale == 1, full, guided)


def paper_guidance(
    full: torch.Tensor,
    text: torch.Tensor,
    uncond: torch.Tensor,
    text_scale: torch.Tensor,
    style_scale: torch.Tensor,
) -> torch.Tensor:
    """uncond + text_scale (text - uncond) + style_scale (full - text) (paper, supplement).

    The published form with scales (t, s) equals this one with (t + 1, s + 1).
    """
    return uncond + text_scale * (text - uncond) + style_scale * (full - text)


@dataclass(frozen=True)
class Guidance:
    """How the predictions of the branches become one.

    Attributes:
        text_scale_B: one per row.
        style_scale_B: one per row; None means one scale for text and style together.
        form: of the dual guidance, "published" or "paper".
    """

    text_scale_B: torch.Tensor
    style_scale_B: torch.Tensor | None
    form: str = "published"

    def __post_init__(self) -> None:
        if self.form not in DUAL_FORMS:
            raise ValueError(f"guidance is {self.form!r}; allowed are {', '.join(map(repr, DUAL_FORMS))}")

    @classmethod
    def of(cls, text_scale: Scale, style_scale: Scale | None, form: str, batch: int) -> Guidance:
        """The guidance of a batch, from one number for all rows or one per row.

        Raises:
            ValueError: numbers that do not fit the rows, or another form.
        """
        style_B = None if style_scale is None else per_row(style_scale, batch, "style_guidance_scale")
        return cls(per_row(text_scale, batch, "text_guidance_scale"), style_B, form)

    def of_rows(self, rows: Sequence[int]) -> Guidance:
        """The guidance of some rows of the batch."""
        style_B = None if self.style_scale_B is None else self.style_scale_B[rows]
        return Guidance(self.text_scale_B[rows], style_B, self.form)

    @property
    def needs_uncond(self) -> bool:
        """Whether any row needs the unconditional branch."""
        paper_dual = self.style_scale_B is not None and self.form == "paper"
        return paper_dual or bool((self.text_scale_B != 1).any())

    def combine(self, branches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Guided prediction [B, C, T, H, W] of the branches full, uncond and text, or of the first ones of them."""
        if len(branches) == 1:
            return branches[0]
        full, uncond, *rest = branches
        text = rest[0] if rest else None
        shape = (-1, 1, 1, 1, 1)
        text_scale = self.text_scale_B.to(full.device).view(shape)
        if self.style_scale_B is None or text is None:
            return single_guidance(full, uncond, text_scale)
        style_scale = self.style_scale_B.to(full.device).view(shape)
        dual = published_guidance if self.form == "published" else paper_guidance
        return dual(full, text, uncond, text_scale, style_scale)


@dataclass(frozen=True)
class GuidedModel:
    """The UNet behind the one call a sampler makes: (latents, timestep) -> guided prediction.

    Attributes:
        text_BSE, uncond_BSE: embeddings of the prompts and of the negative (or empty) prompts.
        style: style condition of the batch, None for text only.
        depth_features: of the batch, the same for every branch; none: no depth.
        fps_B: one per row, the same for every branch; None: the model's own.
        image_mode: skip the temporal layers.
        frame_window: see `StyleCrafterUNet.forward`.
        batch_branches: run the branches as one batch of up to 3 B rows instead of one after another.
    """

    unet: StyleCrafterUNet
    guidance: Guidance
    text_BSE: torch.Tensor
    uncond_BSE: torch.Tensor
    style: StyleCondition | None
    depth_features: tuple[torch.Tensor, ...]
    fps_B: torch.Tensor | None
    image_mode: bool
    batch_branches: bool
    frame_window: int | None = None

    def __call__(self, latents_BCTHW: torch.Tensor, timestep: float, guided: bool = True) -> torch.Tensor:
        """Float32 prediction [B, C, T, H, W]; unguided it is that of text and style together."""
        contexts = [self.text_BSE]
        if guided and self.guidance.needs_uncond:
            contexts.append(self.uncond_BSE)
            if self.style is not None and self.guidance.style_scale_B is not None:
                contexts.append(self.text_BSE)
        return self.guidance.combine(self._predict(latents_BCTHW, timestep, contexts))

    def _predict(
        self, latents: torch.Tensor, timestep: float, contexts: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """One prediction per context; only the first has style."""
        latents = latents.to(self.unet.dtype)
        stem = None
        # A cache follows whole forward passes.
        if len(contexts) > 1 and not self.unet.is_cache_enabled:
            stem = self.unet.stem(latents, self.image_mode, self.frame_window)
        if not self.batch_branches:
            styles = (self.style, *(None,) * (len(contexts) - 1))
            return [self._run(latents, timestep, c, s, stem) for c, s in zip(contexts, styles, strict=True)]
        plain_rows = (len(contexts) - 1) * len(latents)
        style = self.style and self.style.with_plain_rows(plain_rows)
        stacked = latents.repeat(len(contexts), 1, 1, 1, 1)
        stem = stem if stem is None else stem.repeat(len(contexts), 1, 1, 1)
        return self._run(stacked, timestep, torch.cat(list(contexts)), style, stem).chunk(len(contexts))

    def _run(
        self,
        latents: torch.Tensor,
        timestep: float,
        text: torch.Tensor,
        style: StyleCondition | None,
        stem: torch.Tensor | None,
    ) -> torch.Tensor:
        branches = len(text) // len(self.text_BSE)
        return self.unet(
            latents,
            timestep,
            text,
            style,
            image_mode=self.image_mode,
            fps=None if self.fps_B is None else self.fps_B.repeat(branches),
            depth_features=[feature.repeat(branches, 1, 1, 1) for feature in self.depth_features],
            frame_window=self.frame_window,
            stem=stem,
        ).sample.float()
