"""A plan as the JSON that is kept with its run."""

from typing import Any

from pipeline.budget import hourly_cost_usd
from pipeline.compute import Compute
from pipeline.plan import Plan
from schemas.record import Status
from schemas.run import RenderRun


def plan_summary(plan: Plan, run: RenderRun, compute: Compute, units: int) -> dict[str, Any]:
    """The plan as the JSON that is kept with the run and the text of `jobs.plan` is made from."""
    actor_s = plan.estimated_actor_s
    gpu_hours = actor_s * compute.gpus_per_actor / 3600
    hourly_usd = hourly_cost_usd(run, compute)
    more = [f"and {plan.hidden_warnings} more such rows"] if plan.hidden_warnings else []
    return {
        "manifest": run.manifest,
        "manifest_rows": plan.manifest_rows,
        "records": plan.records,
        "sweep": {name: list(values) for name, values in run.sweep.axes.items()},
        "to_render": plan.to_render.total(),
        "to_copy": plan.to_copy,
        "new_invalid": plan.new_failures[Status.INVALID],
        "new_failed": plan.new_failures[Status.FAILED],
        "already_done": dict(plan.already_done),
        "work_units": units,
        "actors": compute.actors,
        "cpus_per_actor": compute.cpus_per_actor,
        "gpus_per_actor": compute.gpus_per_actor,
        "dtype": compute.dtype,
        "batch_size": run.batch_size,
        "shapes": [
            bucket._asdict() | {"videos": count, "estimated_s_per_video": round(plan.estimated_s[bucket], 2)}
            for bucket, count in plan.buckets.items()
        ],
        "estimated_gpu_hours": round(gpu_hours, 3),
        "estimated_wall_s": round(actor_s / compute.actors, 1),
        "estimated_cost_usd": None
        if hourly_usd is None
        else round(actor_s / compute.actors / 3600 * hourly_usd, 2),
        "warnings": plan.warnings + more,
    }
