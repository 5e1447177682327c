"""Writes finished videos with their records as WebDataset shards, or as a folder for Hugging Face datasets.

python -m jobs.export --output s3://bucket/run --webdataset s3://bucket/shards
python -m jobs.export --output s3://bucket/run --huggingface dataset/
"""

import sys

from actors.storage import Storage
from jobs._cli import load_config, run_job
from pipeline.export import export
from schemas.review_run import ExportRun
from schemas.run import ExitCode


def main() -> int:
    run = load_config(ExportRun, None, prog="python -m jobs.export", description=__doc__)
    exported = export(run, Storage())
    for row_id in exported.missing:
        print(f"warning: row {row_id!r} is not in the export: its MP4 is missing", file=sys.stderr)
    print(
        f"{exported.samples} videos in {len(exported.files)} files below {run.webdataset or run.huggingface}"
    )
    return ExitCode.DONE_WITH_FAILED_ROWS if exported.missing else ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
