"""`jobs.render` with the hooks in its driver and its actors: the command that a life gives again and again.

python -m benchmarks.faults.render ARGUMENTS OF JOBS.RENDER
"""

import faulthandler
import os
from typing import Any

from benchmarks.faults.fault import STACKS_SIGNAL
from benchmarks.faults.hooks import Hooks, patch
from benchmarks.faults.mutations import mutate


def main() -> int:
    import actors.render_actor
    import jobs.render
    import pipeline.prepare
    import pipeline.render
    from benchmarks.faults.actor import FaultyRenderActor
    from pipeline.progress import RenderProgress

    faulthandler.register(STACKS_SIGNAL, all_threads=True)
    hooks = Hooks.from_environment()
    hooks.directory.log("driver")
    hooks.directory.write_pid("driver", os.getpid())
    actors.render_actor.RenderActor = FaultyRenderActor  # type: ignore[misc]

    def after(point: str) -> Any:
        def around(original: Any, *args: Any, **kw: Any) -> Any:
            outcome = original(*args, **kw)
            hooks.at(point)
            return outcome

        return around

    def receive(original: Any, progress: Any, record: dict[str, Any]) -> None:
        original(progress, record)
        hooks.at("received", record["row_id"])

    def snapshot(original: Any, *args: Any, **kw: Any) -> Any:
        hooks.at("snapshot")
        outcome = original(*args, **kw)
        hooks.at("snapshotted")
        return outcome

    patch(pipeline.prepare, "prepare", after("planned"))
    patch(
        pipeline.render, "session_name", after("session")
    )  # asked once Ray has started, for each round's actors
    patch(RenderProgress, "rendered", receive)
    patch(pipeline.render, "close_output", snapshot)
    mutate()
    return jobs.render.main()


if __name__ == "__main__":
    from jobs._cli import run_job

    run_job(main)
