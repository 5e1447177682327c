"""Writes run/report.html of an output: what was made, how good it is, what failed and why, what it cost.

python -m jobs.report --output s3://bucket/run
"""

from actors.storage import Storage
from jobs._cli import load_config, run_job
from pipeline.report import write_report
from schemas.review_run import ReportRun
from schemas.run import ExitCode


def main() -> int:
    run = load_config(ReportRun, None, prog="python -m jobs.report", description=__doc__)
    print(write_report(Storage(), run.output, run.max_rows))
    return ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
