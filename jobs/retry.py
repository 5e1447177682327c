"""Tries failed and quarantined rows of an output again, with the config of its last run; other rows stay as they are.

python -m jobs.retry --output s3://bucket/run --status failed
"""

from rich.console import Console

from jobs._cli import load_config, run_job
from schemas.run import ExitCode, RetryRun


def main() -> int:
    retry = load_config(RetryRun, None, prog="python -m jobs.retry", description=__doc__)
    from pipeline.present import print_plan, print_summary  # after the flags: --help need not wait for torch
    from pipeline.render import render
    from pipeline.report import write_report
    from pipeline.retry import prepare_retry

    console = Console()
    prepared = prepare_retry(retry)
    print_plan(prepared.description, console)
    if retry.dry_run:
        return ExitCode.DONE
    summary = render(prepared)
    print_summary(summary, prepared.run.output, console)
    console.print(
        f"report  {write_report(prepared.storage, prepared.run.output)}", highlight=False, markup=False
    )
    return summary.exit_code(prepared.run.max_failed_fraction)


if __name__ == "__main__":
    run_job(main)
