"""Draws a training set of the demo world: MP4 clips, PNG stills and manifest.parquet.

python -m examples.demo_world --output DIR_OR_S3_URI --clips 1000 --stills 4000 --split train --seed 0
"""

import argparse
import os
import sys

from actors.storage import StorageError
from actors.video_codec import VideoError
from examples.demo_world.dataset import LOOKS
from examples.demo_world.export import Export, export
from examples.demo_world.world import SPLITS
from schemas.run import ExitCode


def main() -> int:
    options = _parser().parse_args()
    if options.styles is None:
        # So that each style has about four pictures, and a reference can be another picture than the target.
        options.styles = max(1, max(options.clips, options.stills) // 4)
    try:
        job = Export(**vars(options))
    except ValueError as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    try:
        uri = export(job)
    except (StorageError, VideoError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.INFRASTRUCTURE
    print(uri)
    return ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_world",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="local folder or s3:// URI")
    parser.add_argument("--clips", type=int, default=0, help="videos to write (default: 0)")
    parser.add_argument("--stills", type=int, default=0, help="pictures to write (default: 0)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="default: train")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--style", dest="look", choices=LOOKS, default="styled", help="default: styled")
    parser.add_argument("--styles", type=int, help="number of styles (default: a quarter of clips or stills)")
    parser.add_argument(
        "--size", type=int, default=64, help="side of the square frame in pixels (default: 64)"
    )
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (default: 8)")
    parser.add_argument("--fps", type=int, default=8, help="frames per second (default: 8)")
    parser.add_argument(
        "--depth", action="store_true", help="also write each sample's depth, as a grey video or picture"
    )
    parser.add_argument("--name-styles", action="store_true", help="captions also name the style")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
