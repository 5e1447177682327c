"""What a checkpoint holds: trained weights, their average, the optimiser, the step. Nothing else is needed to go on.

The learning rate, the sample order and all random numbers are functions of the step.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel
from torch.distributed.tensor import DTensor, distribute_tensor

from schemas.train_run import TrainRun

STATE_FILE = "state.pt"


def learning_rate(run: TrainRun, step: int) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then a half cosine down to 0 at the last step, or constant."""
    if step < run.warmup_steps:
        return run.learning_rate * (step + 1) / run.warmup_steps
    if run.schedule == "constant":
        return run.learning_rate
    progress = (step - run.warmup_steps) / max(1, run.steps - run.warmup_steps)
    return run.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass
class TrainState:
    """Everything that changes from step to step."""

    parameters: dict[str, torch.nn.Parameter]  # the trained ones by name; sharded under FSDP
    optimizer: torch.optim.AdamW
    ema: EMAModel | None
    step: int = 0

    @classmethod
    def fresh(cls, run: TrainRun, parameters: dict[str, torch.nn.Parameter]) -> "TrainState":
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=run.learning_rate, weight_decay=run.weight_decay, foreach=True
        )
        # The average warms up with the run: its decay grows to `ema_decay`.
        ema = (
            EMAModel(parameters.values(), decay=run.ema_decay, use_ema_warmup=True, power=0.75)
            if run.ema_decay
            else None
        )
        return cls(parameters, optimizer, ema)

    def apply_gradients(self, run: TrainRun) -> float:
        """One optimiser step with clipped gradients; returns their norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), run.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(run, self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(self.parameters.values())
        self.step += 1
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def gather(self) -> dict[str, Any] | None:
        """The state as whole tensors on the CPU: on rank 0; None elsewhere. Every worker must call it."""
        averaged = self.ema.shadow_params if self.ema is not None else []
        moments = [self.optimizer.state[parameter] for parameter in self.parameters.values()]
        state = {
            "step": self.step,
            "names": list(self.parameters),
            "weights": [_whole(parameter.detach()) for parameter in self.parameters.values()],
            "average": [_whole(tensor) for tensor in averaged],
            "average_steps": self.ema.optimization_step if self.ema is not None else 0,
            "moments": [{name: _whole(value) for name, value in moment.items()} for moment in moments],
        }
        return state if not dist.is_initialized() or dist.get_rank() == 0 else None

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a gathered state, under any number of workers.

        Raises:
            ValueError: it holds other parameters than are trained here.
        """
        if state["names"] != list(self.parameters):
            raise ValueError("the checkpoint holds other parameters than this run trains")
        for parameter, value in zip(self.parameters.values(), state["weights"], strict=True):
            parameter.copy_(_like(parameter, value))
        if self.ema is not None:
            for tensor, value in zip(self.ema.shadow_params, state["average"], strict=True):
                tensor.copy_(_like(tensor, value))
            self.ema.optimization_step = state["average_steps"]
        for parameter, moment in zip(self.parameters.values(), state["moments"], strict=True):
            # The number of steps is a scalar on the CPU, whatever the parameter is.
            self.optimizer.state[parameter] = {
                name: value if value.ndim == 0 else _like(parameter, value) for name, value in moment.items()
            }
        self.step = state["step"]


def save_state(state: dict[str, Any], folder: Path) -> None:
    """Writes a gathered state."""
    torch.save(state, folder / STATE_FILE)


def load_state(folder: Path) -> dict[str, Any]:
    """Reads a gathered state; tensors and plain values only, no code."""
    loaded: dict[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    return loaded


def _whole(value: Any) -> Any:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    # A copy: the checkpoint is written while training goes on.
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def _like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A whole tensor, placed as another is."""
    if isinstance(tensor, DTensor):
        return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    return value.to(tensor.device, tensor.dtype)
