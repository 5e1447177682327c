"""The demo's manifest from object storage to object storage: style pictures, manifest, model and output in S3.

python -m examples.s3_demo

Starts a real S3 server (SeaweedFS) for its own length; with a bucket of your own, set the AWS_* variables and call
`jobs.render` with s3:// URIs as this does.
"""

import argparse
import os
import sys
from pathlib import Path

from examples.demo import render, write_manifest, write_styles
from examples.s3_server import S3Server
from examples.untrained_model import build_untrained_pipeline
from schemas.run import ExitCode

_BUCKET = "demo"
_ROOT = f"s3://{_BUCKET}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/s3_demo"), help="default: outputs/s3_demo"
    )
    folder = parser.parse_args().folder.resolve()
    if not (folder / "model").is_dir():
        build_untrained_pipeline(seed=0).save_pretrained(folder / "model")
    write_styles(folder / "styles")
    write_manifest(folder / "manifest.parquet", f"{_ROOT}/styles")
    with S3Server(folder / "server", buckets=(_BUCKET,)) as server:
        for path in _files(folder):
            server.client().put_object(
                Bucket=_BUCKET, Key=str(path.relative_to(folder)), Body=path.read_bytes()
            )
        environment = os.environ | server.environment()
        code = render(f"{_ROOT}/model", f"{_ROOT}/manifest.parquet", f"{_ROOT}/render", environment)
        listing = server.client().list_objects_v2(Bucket=_BUCKET, Prefix="render/")
        for item in listing["Contents"]:
            print(f"{_ROOT}/{item['Key']}  {item['Size']} bytes")
    return ExitCode.DONE if code == ExitCode.DONE_WITH_FAILED_ROWS else code or ExitCode.INTERNAL


def _files(folder: Path) -> list[Path]:
    parts = (folder / "model", folder / "styles")
    return [
        folder / "manifest.parquet",
        *(path for part in parts for path in part.rglob("*") if path.is_file()),
    ]


if __name__ == "__main__":
    sys.exit(main())
