"""What a training run measures of itself between two lines of metrics."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from actors.micro_batch import MicroBatch


@dataclass
class Meter:
    """One worker's sums since the last line of metrics."""

    losses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    grad_norms: list[float] = field(default_factory=list)
    samples: int = 0
    data_wait_s: float = 0.0
    began_at: float = field(default_factory=time.perf_counter)
    problems: Counter[str] = field(default_factory=Counter)

    def count(self, batch: MicroBatch, loss: torch.Tensor) -> None:
        """Takes a micro-batch and its mean loss."""
        self.losses[batch.kind].append(loss.detach().item())
        self.samples += len(batch.captions)
        self.problems.update(batch.problems)

    def metrics(self) -> dict[str, Any]:
        """The sums of all workers as a line of metrics, the same on each. Every worker must call it."""
        mine = (dict(self.losses), self.samples, self.data_wait_s, list(self.problems))
        parts: list[Any] = [mine]
        if dist.is_initialized():
            parts = [None] * dist.get_world_size()
            dist.all_gather_object(parts, mine)
        wall_s = time.perf_counter() - self.began_at
        losses: dict[str, list[float]] = defaultdict(list)
        for part in parts:
            for kind, values in part[0].items():
                losses[kind] += values
        return {
            "loss": _mean([value for values in losses.values() for value in values]),
            **{f"loss_{kind}": _mean(values) for kind, values in sorted(losses.items())},
            "grad_norm": _mean(self.grad_norms),
            "samples_per_s": sum(part[1] for part in parts) / wall_s,
            "step_s": wall_s / len(self.grad_norms),
            "data_wait_share": sum(part[2] for part in parts) / (wall_s * len(parts)),
            "problems": sorted({problem for part in parts for problem in part[3]}),
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
