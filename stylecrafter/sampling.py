"""Sampling: the published DDIM in its order of timesteps and random draws, and faster solvers.

Shapes: B rows, C latent channels, T frames, H, W latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from stylecrafter.noise_schedule import ScaledDDIMScheduler

StepCallback = Callable[[int, int, torch.Tensor], None]
_SOLVERS = {
    "dpm++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "lcm": LCMScheduler,
}
SAMPLERS = ("ddim", *_SOLVERS)


def published_timesteps(num_inference_steps: int, num_train_timesteps: int = 1000) -> list[int]:
    """Timesteps of the published sampler, from noise to data: S = 50 gives 981, 961, ..., 1.

    They are 1 + multiples of 1000 // S, so S that does not divide 1000 yields more steps than asked
    (S = 30 gives 31, S = 7 gives 8), as it does there. Where this runs past the schedule (S = 3 or 9,
    for example) the published sampler fails; here the timestep outside is left out.

    Raises:
        ValueError: S is not between 1 and `num_train_timesteps`.
    """
    _check_steps(num_inference_steps, num_train_timesteps)
    stride = num_train_timesteps // num_inference_steps
    return list(range(1, num_train_timesteps, stride))[::-1]


def prepare_scheduler(scheduler: DDIMScheduler, num_inference_steps: int) -> DDIMScheduler:
    """A fresh scheduler with the published timesteps; the given one keeps its state."""
    steps = published_timesteps(num_inference_steps, scheduler.config.num_train_timesteps)
    fresh = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(num_inference_steps)
    # The step to the previous timestep stays 1000 // S, which is what the scheduler subtracts.
    fresh.timesteps = torch.tensor(steps)
    return fresh


@dataclass(frozen=True)
class Sampler:
    """A scheduler ready for one run.

    Attributes:
        name: one of `SAMPLERS`.
        scheduler: fresh, with its timesteps set.
        input_factors: by which the model's input differs from the scheduler's latents, one per training
            timestep; None: by nothing. See `ScaledDDIMScheduler.without_scale`.
    """

    name: str
    scheduler: Any
    input_factors: torch.Tensor | None = None

    def model_input(self, latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Latents as the model knows them from its training."""
        scaled = self.scheduler.scale_model_input(latents_BCTHW, timestep)
        return scaled if self.input_factors is None else scaled * self.input_factors[round(timestep.item())]

    def step(
        self,
        output: torch.Tensor,
        timestep: torch.Tensor,
        latents_BCTHW: torch.Tensor,
        generators: Sequence[torch.Generator],
        eta: float,
    ) -> torch.Tensor:
        """Latents one step nearer to data; random numbers come from the rows' own generators."""
        options: dict[str, Any] = {}
        when: Any = timestep
        if self.name == "ddim":
            noise = draw_noise(generators, latents_BCTHW.shape[1:]).to(latents_BCTHW.device) if eta else None
            options, when = {"eta": eta, "variance_noise": noise}, int(timestep)
        elif self.name == "lcm":
            options = {"generator": list(generators)}  # drawn row by row, as `draw_noise` does
        return self.scheduler.step(output, when, latents_BCTHW, **options, return_dict=False)[0]


def prepare_sampler(scheduler: DDIMScheduler, name: str, num_inference_steps: int) -> Sampler:
    """A sampler on the model's own noise schedule and prediction type; the given scheduler keeps its state.

    Args:
        scheduler: the model's.
        name: "ddim" as published; "dpm++" (Lu et al. 2022, second order), "unipc" (Zhao et al. 2023) and
            "euler" (Karras et al. 2022) are deterministic and spread their steps over the whole schedule as
            Karras et al. do (equation 5): evenly spread ones end with a jump that small details do not
            survive; "lcm" (Luo et al. 2023) needs weights distilled for it.

    Raises:
        ValueError: another name, or a number of steps that the sampler does not have.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}; allowed are {', '.join(map(repr, SAMPLERS))}")
    if name == "ddim":
        return Sampler(name, prepare_scheduler(scheduler, num_inference_steps))
    changes: dict[str, Any] = {"timestep_spacing": "linspace", "use_karras_sigmas": True}
    if name == "lcm":
        changes = {"timestep_spacing": "leading"}
    factors = None
    if isinstance(scheduler, ScaledDDIMScheduler):
        betas, factors = scheduler.without_scale()
        changes["trained_betas"] = betas.numpy()
        factors = factors.float()
    known = {
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "steps_offset",
        "prediction_type",
    }
    config = {key: value for key, value in scheduler.config.items() if key in known}
    solver = _SOLVERS[name](**config | changes)
    most = solver.config.original_inference_steps if name == "lcm" else solver.config.num_train_timesteps
    _check_steps(num_inference_steps, most)
    solver.set_timesteps(num_inference_steps)
    return Sampler(name, solver, factors)


def _check_steps(steps: int, most: int) -> None:
    if not 1 <= steps <= most:
        raise ValueError(f"num_inference_steps is {steps}; allowed are 1 to {most}")


def draw_noise(generators: Sequence[torch.Generator], shape_CTHW: Sequence[int]) -> torch.Tensor:
    """Unit noise [B, C, T, H, W], each row one draw from its own CPU generator, float32.

    A row's noise thus depends on its generator alone, not on the rows beside it.

    Raises:
        ValueError: a generator is not on the CPU.
    """
    for row, generator in enumerate(generators):
        if generator.device.type != "cpu":
            raise ValueError(f"generators[{row}] is on {generator.device}; only CPU generators are allowed")
    return torch.cat([torch.randn((1, *shape_CTHW), generator=generator) for generator in generators])


def sample(
    predict: Callable[[torch.Tensor, float, bool], torch.Tensor],
    sampler: Sampler,
    noise_BCTHW: torch.Tensor,
    generators: Sequence[torch.Generator],
    *,
    eta: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    callback: StepCallback | None = None,
) -> torch.Tensor:
    """Denoise; returns float32 [B, C, T, H, W].

    Args:
        predict: (latents, timestep, whether to guide) -> model output.
        sampler: from `prepare_sampler`.
        noise_BCTHW: pure noise, the first draw of the generators.
        generators: one per row; DDIM takes one more draw per step from each, with eta above 0, and LCM one
            per step but the last; the others take none.
        eta: of DDIM (Song et al. 2021, equations 12 and 16): 0 deterministic to 1 fully stochastic, where
            the last step adds noise too, as in the published sampler. Others have no eta.
        guidance_interval: share of the steps, from noise to data, at which guidance begins and ends.
        callback: called after each step with (steps done, steps in all, latents); may raise to stop.
    """
    timesteps = sampler.scheduler.timesteps
    latents_BCTHW = noise_BCTHW * sampler.scheduler.init_noise_sigma
    start, end = guidance_interval
    for index, timestep in enumerate(timesteps):
        guided = start <= index / len(timesteps) < end
        output = predict(sampler.model_input(latents_BCTHW, timestep), timestep.item(), guided)
        latents_BCTHW = sampler.step(output, timestep, latents_BCTHW, generators, eta)
        if callback is not None:
            callback(index + 1, len(timesteps), latents_BCTHW)
    return latents_BCTHW
