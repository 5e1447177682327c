"""A blind preference study of two or more runs of the same rows: a page for raters, and the count of their votes.

python -m jobs.study --outputs s3://bucket/run-a s3://bucket/run-b --study study/
python -m jobs.study --study study/ --collect votes/

Give the raters study.html alone: key.json says which video is of which run.
"""

from rich.console import Console

from actors.storage import Storage
from jobs._cli import load_config, run_job
from schemas.review_run import StudyRun
from schemas.run import ExitCode


def main() -> int:
    run = load_config(StudyRun, None, prog="python -m jobs.study", description=__doc__)
    from pipeline.study import make_study
    from pipeline.study_votes import collect, print_result  # after the flags: --help need not wait for them

    console, storage = Console(), Storage()
    if run.collect:
        print_result(collect(run, storage), console)
        return ExitCode.DONE
    made = make_study(run, storage)
    lines = (
        f"{made.trials} pairs from {made.shared_rows} shared rows, {made.page_bytes / 2**20:.1f} MiB",
        f"for the raters  {made.page}",
        f"for you alone   {made.key}",
    )
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    return ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
