"""Proves that manifest, commits, MP4s and records of an output agree; names what is missing, orphaned or corrupt.

python -m jobs.reconcile --output s3://bucket/run --repair

Exit code 0: they agree, and `_SUCCESS` says so; 1: there are differences (after --repair: left), and it is gone.
"""

from rich.console import Console

from jobs._cli import load_config, run_job
from schemas.repair_run import ReconcileRun
from schemas.run import ExitCode


def main() -> int:
    run = load_config(ReconcileRun, None, prog="python -m jobs.reconcile", description=__doc__)
    from pipeline.present import print_reconciliation  # after the flags: --help need not wait
    from pipeline.reconcile import reconcile

    result = reconcile(run)
    print_reconciliation(result, run.output, Console())
    return ExitCode.DONE if result.agrees else ExitCode.DONE_WITH_FAILED_ROWS


if __name__ == "__main__":
    run_job(main)
