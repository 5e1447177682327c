"""Stage 1: trains the style adapter on pictures.

The same command goes on after anything that stopped it.

python -m jobs.train_style --data URI --model URI --output URI
"""

from jobs._cli import run_job
from jobs._train import run_training
from schemas.train_run import TrainStyleRun


def main() -> int:
    return run_training(TrainStyleRun, "jobs.train_style", __doc__)


if __name__ == "__main__":
    run_job(main)
