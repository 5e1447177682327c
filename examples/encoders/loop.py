"""The loop that trains encoders and judges: one process, AdamW, warm-up and cosine, weight average, resumable.

A step's batch and all its random numbers are functions of (seed, step), so a run that was interrupted goes on
as if it had not been.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

METRICS_FILE = "metrics.jsonl"
_STATE_FILE = "state.pt"

# From a step's number to its loss and whatever else is worth a line in the metrics.
StepLoss = Callable[[int], tuple[torch.Tensor, Mapping[str, float]]]
Evaluate = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Loop:
    """How long and how fast to train.

    Args:
        work: folder of the state, from which the next start goes on, and of the metrics (JSON lines).
        ema_decay: of the average of the weights, which is what counts in the end; it warms up with the run.
        checkpoint_every_s: seconds between states.

    Raises:
        ValueError: a field out of range.
    """

    work: Path
    steps: int
    learning_rate: float
    warmup_steps: int = 50
    weight_decay: float = 0.0
    ema_decay: float = 0.995
    max_grad_norm: float = 1.0
    seed: int = 0
    log_every: int = 50
    evaluate_every: int = 500
    checkpoint_every_s: float = 120.0

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate = {self.learning_rate}: must be above 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay = {self.ema_decay}: must be at least 0 and below 1")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ...: linear warm-up, then a half cosine down to 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: nn.Module, loss_of: StepLoss, loop: Loop, evaluate: Evaluate | None = None
) -> dict[str, float]:
    """Trains in place, from the last state in `loop.work` if there is one, and leaves the averaged weights.

    Args:
        loss_of: draws from torch's global generator, which is seeded anew for every step.
        evaluate: called with the averaged weights in the model, now and then and at the end.

    Returns:
        The last evaluation.
    """
    run = _Run(model, loop)
    started_at, first = time.monotonic(), run.step
    model.train()
    while run.step < loop.steps:
        losses = run.advance(loss_of)
        if run.step % loop.log_every == 0 or run.step == loop.steps:
            per_step_s = (time.monotonic() - started_at) / (run.step - first)
            run.log(losses | {"rate": loop.rate(run.step - 1), "step_s": round(per_step_s, 4)})
        if evaluate is not None and run.step % loop.evaluate_every == 0 and run.step < loop.steps:
            run.log(run.evaluated(evaluate))
        run.save_now_and_then()
    run.save()
    run.use_average()
    model.eval()
    found = dict(evaluate()) if evaluate is not None else {}
    if found:
        run.log(found)
    return found


class _Run:
    """Everything that changes from step to step."""

    def __init__(self, model: nn.Module, loop: Loop):
        self.step = 0
        self._model = model
        self._loop = loop
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            _by_decay(model, loop.weight_decay), lr=loop.learning_rate, betas=(0.9, 0.99), foreach=True
        )
        self._ema = EMAModel(self._parameters, decay=loop.ema_decay, use_ema_warmup=True, power=0.75)
        loop.work.mkdir(parents=True, exist_ok=True)
        if (loop.work / _STATE_FILE).exists():
            self._restore()
        self._saved_at = time.monotonic()

    def advance(self, loss_of: StepLoss) -> dict[str, float]:
        """One step of the optimiser."""
        torch.manual_seed((self._loop.seed << 32) + self.step)
        loss, more = loss_of(self.step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._loop.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._loop.rate(self.step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._ema.step(self._parameters)
        self.step += 1
        return {"loss": float(loss.detach()), **more, "grad_norm": float(norm)}

    def evaluated(self, evaluate: Evaluate) -> dict[str, float]:
        """What `evaluate` finds with the averaged weights, which are taken out again afterwards."""
        self._ema.store(self._parameters)
        self.use_average()
        self._model.eval()
        found = dict(evaluate())
        self._ema.restore(self._parameters)
        self._model.train()
        return found

    def use_average(self) -> None:
        self._ema.copy_to(self._parameters)

    def log(self, values: Mapping[str, float]) -> None:
        """One line for a person, one for programs."""
        print(
            f"step {self.step}/{self._loop.steps}  " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()),
            flush=True,
        )
        with (self._loop.work / METRICS_FILE).open("a") as file:
            file.write(json.dumps({"step": self.step, **values}) + "\n")

    def save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at > self._loop.checkpoint_every_s:
            self.save()

    def save(self) -> None:
        state = {
            "step": self.step,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": self._ema.state_dict(),
        }
        path = self._loop.work / _STATE_FILE
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)  # so that a state is there whole or not at all
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        state: dict[str, Any] = torch.load(self._loop.work / _STATE_FILE, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._ema.load_state_dict(state["ema"])
        self.step = state["step"]
        metrics = self._loop.work / METRICS_FILE
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        metrics.write_text("".join(line + "\n" for line in kept))
        print(f"going on from step {self.step} of {self._loop.work}", flush=True)


def _by_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases, norms and single vectors do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
