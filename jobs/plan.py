"""The dry run: what `jobs.render` would do with the same flags, in counts, shapes, time and cost.

python -m jobs.plan --manifest manifest.parquet --model MODEL_DIR --output s3://bucket/run
"""

from rich.console import Console

from jobs._cli import load_config, run_job
from schemas.run import ExitCode, RenderRun


def main() -> int:
    run = load_config(RenderRun, None, prog="python -m jobs.plan", description=__doc__)
    from pipeline.prepare import prepare
    from pipeline.present import print_plan  # after the flags: --help need not wait for torch

    print_plan(prepare(run).description, Console())
    return ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
