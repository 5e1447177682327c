"""Reads depth from videos with a transformers depth estimation model, for manifests' `depth_video_uri` and for training.

NAME.npy holds the depth of NAME.mp4, larger is nearer. The same command continues.

python -m jobs.extract_depth --videos clips/ --depth-model DEPTH_MODEL_DIR --output depth/
"""

import sys

from jobs._cli import load_config, run_job
from schemas.depth_run import ExtractDepthRun
from schemas.run import ExitCode


def main() -> int:
    run = load_config(ExtractDepthRun, None, prog="python -m jobs.extract_depth", description=__doc__)
    from pipeline.extract_depth import extract_depth  # after the flags: --help need not wait for torch

    made = failed = found = 0
    for one in extract_depth(run):
        if one.error is not None:
            failed += 1
            print(f"{one.video}: {one.error}", file=sys.stderr)
        elif one.is_new:
            made += 1
            print(one.output, flush=True)
        else:
            found += 1
    print(f"{made} made, {found} were there, {failed} failed")
    return ExitCode.DONE_WITH_FAILED_ROWS if failed else ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
