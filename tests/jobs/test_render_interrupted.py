"""`jobs.render` as users run it: killed, told to stop, left without Ray, or started twice; then started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.manifest import manifest_schema
from schemas.run import ExitCode

pytestmark = pytest.mark.slow

ROWS = 6
DEADLINE_S = 600  # on a machine that is busy with other things


class Job:
    """The job in a process group of its own, which does not outlive the test."""

    def __init__(self, arguments: list[str]):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.render", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        )

    def wait_for(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not happened():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> tuple[int, str]:
        """Exit code and what it said."""
        said = self.process.communicate(timeout=DEADLINE_S)[0]
        return self.process.returncode, said

    def child(self, name: str) -> int:
        """The pid of its child process of this name."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(
                    line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line
                )
            except OSError:
                continue
            if fields["PPid"] == str(self.process.pid) and fields["Name"] == name:
                return int(status.parent.name)
        raise AssertionError(f"no child {name}")


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path, pictures: Path) -> Iterator[Callable[..., Job]]:
    rows = [{"prompt": f"prompt {n}", "style_image_uri": [f"{pictures}/0.png"]} for n in range(ROWS)]
    schema = manifest_schema(["prompt", "style_image_uri"])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "manifest.parquet")
    begun: list[Job] = []

    def start() -> Job:
        places = {"manifest": tmp_path / "manifest.parquet", "model": tiny_model, "output": tmp_path / "out"}
        # Long renders, so that there is a middle to stop in.
        settings = {"actors": 1, "unit_rows": 1, "num_inference_steps": 20}
        begun.append(
            Job([f"--{name.replace('_', '-')}={value}" for name, value in {**places, **settings}.items()])
        )
        return begun[-1]

    yield start
    for job in begun:
        if job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGKILL)
            job.process.communicate()


def commits(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.glob("commits/*/*.json")}


@pytest.mark.parametrize(
    ("signum", "victim", "code"),
    [
        (signal.SIGTERM, "driver", ExitCode.STOPPED),
        (signal.SIGINT, "driver", ExitCode.STOPPED),
        (signal.SIGKILL, "driver", -signal.SIGKILL),
        (signal.SIGKILL, "raylet", ExitCode.INFRASTRUCTURE),
        (signal.SIGKILL, "gcs_server", ExitCode.INFRASTRUCTURE),
    ],
)
def test_what_was_stopped_goes_on_where_it_was(
    start: Callable[..., Job], tmp_path: Path, signum: int, victim: str, code: int
) -> None:
    output = tmp_path / "out"
    job = start()
    job.wait_for(lambda: len(commits(output)) >= 2)
    os.kill(job.process.pid if victim == "driver" else job.child(victim), signum)
    ended, said = job.end()
    assert ended == code, said
    finished = commits(output)
    assert 2 <= len(finished) < ROWS
    assert (output / "run" / "lease.json").exists() == (code == -signal.SIGKILL)

    again, said = start().end()
    assert again == ExitCode.DONE, said
    assert finished.items() <= commits(output).items()
    records = pq.read_table(output / "records").to_pylist()
    assert [record["status"] for record in records] == ["ok"] * ROWS
    assert len({record["record_id"] for record in records}) == ROWS
    assert not (output / "run" / "lease.json").exists()
    assert not list(output.glob("attempts/*/*/*"))


def test_a_second_run_on_the_same_output_is_refused(start: Callable[..., Job], tmp_path: Path) -> None:
    first = start()
    first.wait_for((tmp_path / "out" / "run" / "lease.json").exists)
    code, said = start().end()
    assert code == ExitCode.USAGE
    assert f"pid {first.process.pid}, since" in said
    first.process.terminate()
    assert first.end()[0] == ExitCode.STOPPED
