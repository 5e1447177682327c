"""The published noise schedule, and that of bases that scale the signal beside the noise.

The noised latents of the latter (VideoCrafter2, and the 1024 model) are sqrt(a_t) s_t x_0 + sqrt(1 - a_t) noise, where
the scale s_t falls from 1 to `signal_scale` over the first 400 timesteps and then stays.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler

# diffusers finds out how to load a component by the base class that the component's module names.
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput

_FALLING_TIMESTEPS = 400

# Stable Diffusion's betas with the DDIM steps of the published code; arguments of `DDIMScheduler`.
PUBLISHED_SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


class ScaledDDIMScheduler(DDIMScheduler):
    """DDIM on a schedule with signal scale, as VideoCrafter's sampler has it.

    Its defaults are VideoCrafter2's; a `DDIMScheduler` from its config is the same sampler without the scale.

    Args:
        signal_scale: s_t from timestep 400 on, in (0, 1] (published as `scale_b`).

    Raises:
        ValueError: a scale out of range, or a model that does not predict the noise.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        clip_sample: bool = False,
        set_alpha_to_one: bool = False,
        steps_offset: int = 1,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        signal_scale: float = 0.7,
    ):
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            clip_sample=clip_sample,
            set_alpha_to_one=set_alpha_to_one,
            steps_offset=steps_offset,
            prediction_type=prediction_type,
            timestep_spacing=timestep_spacing,
        )
        if not 0 < signal_scale <= 1:
            raise ValueError(f"signal_scale is {signal_scale}; allowed are numbers above 0 up to 1")
        if prediction_type != "epsilon":
            raise ValueError(f"prediction_type is {prediction_type!r}; a scaled schedule allows 'epsilon'")
        timesteps = torch.arange(num_train_timesteps, dtype=torch.float64)
        share = (timesteps / (_FALLING_TIMESTEPS - 1)).clamp(max=1)
        self.signal_scales = (1 - (1 - signal_scale) * share).float()

    def step(  # type: ignore[override, unused-ignore]
        self,
        model_output: torch.Tensor,
        timestep: int,
        sample: torch.Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: torch.Generator | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One step as in the base class, whose clean latents come out times s_t."""
        plain: Any = super().step(
            model_output, timestep, sample, eta, use_clipped_model_output, generator, variance_noise
        )
        stride = self.config.num_train_timesteps // self.num_inference_steps
        previous = max(int(timestep) - stride, 0)
        scale, previous_scale = self.signal_scales[int(timestep)], self.signal_scales[previous]
        clean = plain.pred_original_sample / scale
        # Below the lowest timestep the base class stays at alphas_cumprod[0], where the scale is 1.
        correction = self.alphas_cumprod[previous].sqrt() * (previous_scale - scale) * clean
        previous_sample = plain.prev_sample + correction
        return DDIMSchedulerOutput(previous_sample, clean) if return_dict else (previous_sample, clean)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Noised latents: sqrt(a_t) s_t x_0 + sqrt(1 - a_t) noise."""
        scales = self.signal_scales.to(original_samples.device, original_samples.dtype)[timesteps]
        shape = (-1, *(1,) * (original_samples.ndim - 1))
        return super().add_noise(original_samples * scales.view(shape), noise, timesteps)

    def without_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A plain schedule whose latents differ from this one's by a factor: its betas, and that factor.

        With c_t^2 = a_t s_t^2 + 1 - a_t, latents divided by c_t have unit variance, signal and noise in the
        same ratio, and the same noise to predict. Any sampler can run on them and hand the model c_t times
        its latents.

        Returns:
            betas and c_t, float64 [timesteps].
        """
        alphas = self.alphas_cumprod.double()
        signal = alphas * self.signal_scales.double() ** 2
        factor = (signal + 1 - alphas).sqrt()
        plain_alphas = signal / factor**2
        previous = torch.cat([plain_alphas.new_ones(1), plain_alphas[:-1]])
        return 1 - plain_alphas / previous, factor
