"""Trains a base text-to-video UNet, from nothing or further.

The same command goes on after anything that stopped it.

python -m jobs.train_base --data URI --model URI --output URI
"""

from jobs._cli import run_job
from jobs._train import run_training
from schemas.train_run import TrainBaseRun


def main() -> int:
    return run_training(TrainBaseRun, "jobs.train_base", __doc__)


if __name__ == "__main__":
    run_job(main)
