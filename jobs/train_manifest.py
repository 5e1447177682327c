"""Makes a training manifest from a folder of pictures and videos with captions.

python -m jobs.train_manifest --folder pictures/ --output training.parquet

A picture's caption is what `NAME.txt` beside it says, else the `text` of its line in a `metadata.jsonl` or
`metadata.csv` (with `file_name`, as Hugging Face has it); `--caption-from-name` takes the file's name where there is
neither. Files without caption are named and left out (exit code 1).
"""

import sys

from actors.storage import Storage
from jobs._cli import load_config, run_job
from pipeline.files import parquet_bytes
from pipeline.train_manifest import build_training_manifest
from schemas.run import ExitCode
from schemas.train_manifest import TrainManifestRun


def main() -> int:
    run = load_config(TrainManifestRun, None, prog="python -m jobs.train_manifest", description=__doc__)
    storage = Storage()
    manifest = build_training_manifest(run, storage)
    storage.write_bytes(run.output, parquet_bytes(manifest.table))
    for line in manifest.describe_skipped():
        print(f"warning: {line}", file=sys.stderr)
    if manifest.all_videos_styled:
        print(
            "note: every video has a style_id, so that training gives videos style references too; for plain "
            "videos use --style-ids none",
            file=sys.stderr,
        )
    print(f"{manifest.describe()} written to {run.output}")
    return ExitCode.DONE_WITH_FAILED_ROWS if manifest.skipped else ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
