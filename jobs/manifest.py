"""Makes a manifest from prompts and style pictures, or from a list of rows.

python -m jobs.manifest --prompts prompts.txt --styles pictures/ --output manifest.parquet
python -m jobs.manifest --from rows.csv --output s3://bucket/manifest.parquet
"""

import sys

from actors.storage import Storage
from jobs._cli import load_config, run_job
from pipeline.files import parquet_bytes
from pipeline.manifest_build import build_manifest
from schemas.manifest_run import ManifestRun
from schemas.run import ExitCode


def main() -> int:
    run = load_config(ManifestRun, None, prog="python -m jobs.manifest", description=__doc__)
    storage = Storage()
    manifest = build_manifest(run, storage)
    for warning in manifest.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    storage.write_bytes(run.output, parquet_bytes(manifest.table))
    print(
        f"{manifest.table.num_rows} rows ({manifest.distinct_prompts} distinct prompts, "
        f"{manifest.distinct_styles} distinct styles) written to {run.output}"
    )
    return ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
