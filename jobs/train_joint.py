"""Both stages at once, an ablation of the paper.

The same command goes on after anything that stopped it.

python -m jobs.train_joint --data URI --style-data URI --model URI --output URI
"""

from jobs._cli import run_job
from jobs._train import run_training
from schemas.train_run import TrainJointRun


def main() -> int:
    return run_training(TrainJointRun, "jobs.train_joint", __doc__)


if __name__ == "__main__":
    run_job(main)
