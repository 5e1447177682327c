"""What a run may cost and how long it may go on. Both come to one moment, from which on no batch is begun.

Money goes by the clock: a GPU that waits costs what one that renders does.
"""

import math
import time
from dataclasses import dataclass

from pipeline.compute import Compute
from schemas.run import RenderRun


@dataclass(frozen=True)
class Budget:
    """Times are seconds since 1970: actors on other machines go by them."""

    began_at: float
    stop_at: float  # infinite where nothing bounds the run
    bound: str  # the field of the config that `stop_at` comes from; empty where none does
    hourly_usd: float | None  # of all actors; None where the config has no price

    @property
    def is_over(self) -> bool:
        return time.time() >= self.stop_at

    def spent_usd(self) -> float | None:
        """What the actors have cost until now."""
        return None if self.hourly_usd is None else self.hourly_usd * (time.time() - self.began_at) / 3600


def open_budget(run: RenderRun, compute: Compute) -> Budget:
    """The budget of a run that begins now."""
    now = time.time()
    hourly_usd = hourly_cost_usd(run, compute)
    stops = {"": math.inf}
    if run.stop_at is not None:
        stops["stop_at"] = run.stop_at.timestamp()
    if run.max_hours is not None:
        stops["max_hours"] = now + run.max_hours * 3600
    if run.max_cost is not None and hourly_usd:
        stops["max_cost"] = now + run.max_cost / hourly_usd * 3600
    bound = min(stops, key=stops.__getitem__)
    return Budget(now, stops[bound], bound, hourly_usd)


def hourly_cost_usd(run: RenderRun, compute: Compute) -> float | None:
    """US dollars an hour of all actors together; where there is no GPU, the price is that of an actor."""
    if run.price_per_gpu_hour is None:
        return None
    return run.price_per_gpu_hour * compute.actors * (compute.gpus_per_actor or 1.0)
