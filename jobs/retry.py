"""Tries failed and quarantined rows of an output again, with the config of its last run; other rows stay as they are.

python -m jobs.retry --output s3://bucket/run --status failed
"""

from rich.console import Console

from actors import logs
from jobs._cli import load_config, run_job
from schemas.repair_run import RetryRun
from schemas.run import ExitCode

_GOES_ON = "jobs.retry makes failed rows only; the jobs.render command that began this output makes these"


def main() -> int:
    retry = load_config(RetryRun, None, prog="python -m jobs.retry", description=__doc__)
    from pipeline.present import print_plan, print_summary  # after the flags: --help need not wait for torch
    from pipeline.render import render
    from pipeline.report import write_report
    from pipeline.retry import prepare_retry

    prepared = prepare_retry(retry)
    logs.start(prepared.run.log_format, prepared.provenance.run_id)
    console = Console(quiet=logs.is_json())
    print_plan(prepared.description, console)
    if retry.dry_run:
        return ExitCode.DONE
    summary = render(prepared)
    print_summary(summary, prepared.run.output, console, goes_on=_GOES_ON)
    console.print(
        f"report  {write_report(prepared.storage, prepared.run.output)}", highlight=False, markup=False
    )
    return summary.exit_code(prepared.run.max_failed_fraction, of_some_rows=True)


if __name__ == "__main__":
    run_job(main)
