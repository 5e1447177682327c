"""Stage 2: trains the temporal layers on videos and styled pictures.

The same command goes on after anything that stopped it.

python -m jobs.train_temporal --data URI --style-data URI --model URI --output URI
"""

from jobs._cli import run_job
from jobs._train import run_training
from schemas.train_run import TrainTemporalRun


def main() -> int:
    return run_training(TrainTemporalRun, "jobs.train_temporal", __doc__)


if __name__ == "__main__":
    run_job(main)
