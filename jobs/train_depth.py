"""Trains a depth adapter on videos or pictures with their depth; everything else stays as it is.

The same command goes on after anything that stopped it. The manifest's `depth_uri` names each
row's depth: a grey video as long as the row's, or a grey picture, larger values nearer.
Structure is decided at high noise: try `--high-noise-share 0.5`.

python -m jobs.train_depth --data URI --model URI --output URI
"""

from jobs._cli import run_job
from jobs._train import run_training
from schemas.train_run import TrainDepthRun


def main() -> int:
    return run_training(TrainDepthRun, "jobs.train_depth", __doc__)


if __name__ == "__main__":
    run_job(main)
