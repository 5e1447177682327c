"""Renders a manifest: MP4s, CLIP scores and one record per row. The same command continues what was stopped.

python -m jobs.render --manifest manifest.parquet --model MODEL_DIR --output s3://bucket/run
"""

from rich.console import Console

from actors import logs
from jobs._cli import load_config, run_job
from schemas.run import RenderRun


def main() -> int:
    run = load_config(RenderRun, None, prog="python -m jobs.render", description=__doc__)
    from pipeline.prepare import prepare
    from pipeline.present import print_plan, print_summary  # after the flags: --help need not wait for torch
    from pipeline.render import render
    from pipeline.report import write_report

    logs.start(run.log_format, run.run_id or "")
    console = Console(quiet=logs.is_json())
    prepared = prepare(run)
    print_plan(prepared.description, console)
    if prepared.unit_count:
        console.print("starting the render actors; each loads the model first", highlight=False)
    summary = render(prepared)
    print_summary(summary, run.output, console)
    console.print(
        f"report  {write_report(prepared.storage, prepared.run.output)}", highlight=False, markup=False
    )
    return summary.exit_code(run.max_failed_fraction)


if __name__ == "__main__":
    run_job(main)
