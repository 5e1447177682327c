"""Training jobs that are killed or told to stop, and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from schemas.run import ExitCode
from schemas.train_run import TrainStyleRun
from tests.support.training import apart, losses_of, metrics_of, train_here

pytestmark = pytest.mark.slow

SAME = 1e-5  # relative; a data position off by one is more than 1e-3 away (tests/pipeline/test_train_loop.py)
SAME_WEIGHTS = 1e-3  # of the way that training went
STEPS = 200  # so many that the kill comes well before the end
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "warmup_steps": 1,
    "learning_rate": 1e-3,
    "image_batch": 2,
    "log_every": 1,
    "checkpoint_every": 20,
    "validation_rows": 2,
    "samples": 0,
}


@pytest.fixture(scope="module")
def whole(training_model: Path, demo_world: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the same run that nothing stopped."""
    output = tmp_path_factory.mktemp("whole")
    given = {"data": demo_world, "model": str(training_model), "output": str(output), "new_adapter": False}
    train_here(TrainStyleRun(**given | SETTINGS))
    return output


def start(data: str, model: Path, output: Path) -> subprocess.Popen[str]:
    """The job as a process group of its own."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jobs.train_style",
            f"--data={data}",
            f"--model={model}",
            f"--output={output}",
            "--no-new-adapter",  # so that it is known where the weights come from
            *flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    )


def wait_for_checkpoint(output: Path, step: int, job: subprocess.Popen[str]) -> None:
    state = output / "checkpoints" / f"step-{step:08d}" / "state.pt"
    deadline = time.monotonic() + 240
    while not state.exists():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, ExitCode.STOPPED),
        (signal.SIGINT, ExitCode.STOPPED),
    ],
)
def test_the_same_command_goes_on_and_ends_as_if_nothing_had_been(
    signum: signal.Signals, code: int, whole: Path, training_model: Path, demo_world: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = start(demo_world, training_model, output)
    wait_for_checkpoint(output, 20, job)
    if signum == signal.SIGKILL:
        os.killpg(job.pid, signum)  # the driver and all in its group
    else:
        job.send_signal(signum)
    _, err = job.communicate(timeout=120)
    assert job.returncode == code
    if code == ExitCode.STOPPED:
        assert err == "stopped by a signal; the same command continues\n"
    assert not (output / "model" / "fingerprint").exists()

    again = start(demo_world, training_model, output)
    out, err = again.communicate(timeout=300)
    assert (again.returncode, err) == (0, "")
    began_at = metrics_of(output)[-1]["began_at_step"]
    assert 20 <= began_at < STEPS
    assert out.count(f"goes on from the checkpoint of step {began_at}\n") == out.count("goes on") == 1
    assert losses_of(output) == pytest.approx(losses_of(whole), rel=SAME)
    assert sorted(losses_of(output)) == list(range(1, STEPS + 1))
    distance = apart(output / "model", whole / "model", training_model)
    print(f"{signum.name}: went on from step {began_at}, weights {distance:.1e}")
    assert distance < SAME_WEIGHTS

    finished = start(demo_world, training_model, output)
    out, err = finished.communicate(timeout=120)
    assert (finished.returncode, err) == (0, "")
    assert "this run has finished before; nothing is trained\n" in out
