"""DDIM sampling in the published order of timesteps and random draws.

Shapes: B rows, C latent channels, T frames, H, W latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import DDIMScheduler

StepCallback = Callable[[int, int, torch.Tensor], None]


def published_timesteps(num_inference_steps: int, num_train_timesteps: int = 1000) -> list[int]:
    """Timesteps of the published sampler, from noise to data: S = 50 gives 981, 961, ..., 1.

    They are 1 + multiples of 1000 // S, so S that does not divide 1000 yields more steps than asked
    (S = 30 gives 31, S = 7 gives 8), as it does there. Where this runs past the schedule (S = 3 or 9,
    for example) the published sampler fails; here the timestep outside is left out.

    Raises:
        ValueError: S is not between 1 and `num_train_timesteps`.
    """
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise ValueError(
            f"num_inference_steps is {num_inference_steps}; allowed are 1 to {num_train_timesteps}"
        )
    stride = num_train_timesteps // num_inference_steps
    return list(range(1, num_train_timesteps, stride))[::-1]


def prepare_scheduler(scheduler: DDIMScheduler, num_inference_steps: int) -> DDIMScheduler:
    """A fresh scheduler with the published timesteps; the given one keeps its state."""
    steps = published_timesteps(num_inference_steps, scheduler.config.num_train_timesteps)
    fresh = DDIMScheduler.from_config(scheduler.config)
    fresh.set_timesteps(num_inference_steps)
    # The step to the previous timestep stays 1000 // S, which is what the scheduler subtracts.
    fresh.timesteps = torch.tensor(steps)
    return fresh


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


def ddim_sample(
    predict: Callable[[torch.Tensor, int], torch.Tensor],
    scheduler: DDIMScheduler,
    latents_BCTHW: torch.Tensor,
    generators: Sequence[torch.Generator],
    eta: float,
    callback: StepCallback | None = None,
) -> torch.Tensor:
    """Denoise with DDIM (Song et al. 2021, equations 12 and 16); returns float32 [B, C, T, H, W].

    With eta 1 the last step adds noise too, as in the published sampler.

    Args:
        predict: (latents, timestep) -> guided model output.
        scheduler: from `prepare_scheduler`.
        latents_BCTHW: pure noise, the first draw of the generators.
        generators: one per row; each gives one more draw per step.
        eta: 0 deterministic to 1 fully stochastic.
        callback: called after each step with (steps done, steps in all, latents); may raise to stop.
    """
    timesteps = scheduler.timesteps.tolist()
    for done, timestep in enumerate(timesteps, start=1):
        output = predict(latents_BCTHW, timestep)
        noise = draw_noise(generators, latents_BCTHW.shape[1:]).to(latents_BCTHW.device) if eta else None
        latents_BCTHW = scheduler.step(
            output, timestep, latents_BCTHW, eta=eta, variance_noise=noise, return_dict=False
        )[0]
        if callback is not None:
            callback(done, len(timesteps), latents_BCTHW)
    return latents_BCTHW
