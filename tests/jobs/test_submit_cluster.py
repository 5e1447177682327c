"""`jobs.submit` and `ray job submit` against a Ray head of the test's own that asks for a token."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from schemas.manifest import manifest_schema
from schemas.run import ExitCode
from tests.support.ray_head import RayHead

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEADLINE_S = 600  # on a machine that is busy with other things


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with RayHead() as head:
        yield head


class Night:
    """A render config in a folder that is not the project's, and the commands that submit it."""

    def __init__(self, folder: Path, head: RayHead, model: Path, styles: list[str], **settings: Any):
        rows = [{"prompt": f"prompt {n}", "style_image_uri": [style]} for n, style in enumerate(styles)]
        schema = manifest_schema(["prompt", "style_image_uri"])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "manifest.parquet")
        self.output = folder / "out"
        self.head = head
        self.config = folder / "night.yaml"
        places = {
            "manifest": str(folder / "manifest.parquet"),
            "model": str(model),
            "output": str(self.output),
        }
        self.config.write_text(yaml.safe_dump({**places, "actors": 1, "unit_rows": 1, **settings}))

    def submit(self, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "jobs.submit", *flags]
        return self._start([*command, "--", "jobs.render", "--config", str(self.config)])

    def ray_job_submit(self) -> subprocess.Popen[str]:
        ray = str(Path(sys.executable).parent / "ray")
        job = [ray, "job", "submit", "--working-dir", ".", "--", "python", "-m", "jobs.render"]
        return self._start([*job, "--config", str(self.config)])

    def look_after(self, *flags: str) -> str:
        return end(self._start([sys.executable, "-m", "jobs.submit", *flags]))[1]

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.head.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def commits(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.output.glob("commits/*/*.json")}

    def await_a_commit(self, following: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self.commits():
            assert following.poll() is None, following.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def driver(self) -> int:
        """The pid of the render, which the lease names."""
        return int(json.loads((self.output / "run" / "lease.json").read_text())["pid"])


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=DEADLINE_S)[0]
    return process.returncode, said


def test_a_name_is_run_once_and_its_log_and_exit_code_arrive(
    tmp_path: Path, head: RayHead, tiny_model: Path, pictures: Path
) -> None:
    night = Night(tmp_path, head, tiny_model, [f"{pictures}/0.png"])
    code, said = end(night.submit("--submission-id", "done-{date}"))
    assert code == ExitCode.DONE, said
    assert "1/1 records: 1 ok" in said
    finished = night.commits()
    assert len(finished) == 1
    records = pq.read_table(night.output / "records").to_pylist()
    assert records[0]["code_version"] != "unversioned"  # it came with the package: the cluster has no .git

    code, said = end(night.submit("--submission-id", "done-{date}"))
    assert (code, said.count("\n")) == (ExitCode.DONE, 1)
    assert "is done, exit code 0; nothing was submitted" in said
    assert ": succeeded, exit code 0; python -m jobs.render" in night.look_after(
        "--submission-id", "done-{date}", "--status"
    )
    assert night.commits() == finished

    code, said = end(night.ray_job_submit())
    assert code == ExitCode.DONE, said
    assert "1/1 records" in said
    assert night.commits() == finished


def test_failed_rows_and_bad_configs_have_their_exit_codes(
    tmp_path: Path, head: RayHead, tiny_model: Path
) -> None:
    failed = Night(tmp_path, head, tiny_model, ["/nowhere/style.png"])
    code, said = end(failed.submit("--submission-id", "failed"))
    assert code == ExitCode.DONE_WITH_FAILED_ROWS, said
    code, said = end(failed.submit("--submission-id", "failed"))
    assert code == ExitCode.DONE_WITH_FAILED_ROWS
    assert "failed is done, exit code 1" in said

    failed.config.write_text("manifest: m.parquet\nno_such_option: 1\n")
    code, said = end(failed.submit("--submission-id", "bad"))
    assert code == ExitCode.USAGE
    assert "no_such_option" in said
    assert "submitted bad-2 to" in end(failed.submit("--submission-id", "bad", "--no-wait"))[1]
    assert end(failed.ray_job_submit())[0] == 1  # Ray's command knows done and failed only


def test_the_next_night_goes_on_where_a_killed_one_ended(
    tmp_path: Path, head: RayHead, tiny_model: Path, pictures: Path
) -> None:
    night = Night(tmp_path, head, tiny_model, [f"{pictures}/0.png"] * 4, num_inference_steps=30)
    following = night.submit("--submission-id", "night-1")
    night.await_a_commit(following)
    following.send_signal(signal.SIGINT)
    code, said = end(following)
    assert code == ExitCode.STOPPED
    assert "night-1 goes on; to stop it: python -m jobs.submit --submission-id night-1 --stop" in said
    os.kill(night.driver(), signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while "running" in (said := night.look_after("--submission-id", "night-1", "--status")):
        assert time.monotonic() < deadline
    assert "night-1: failed, exit code" in said
    finished = night.commits()
    assert 1 <= len(finished) < 4

    code, said = end(night.submit("--submission-id", "night-2"))
    assert code == ExitCode.DONE, said
    assert finished.items() <= night.commits().items()
    summary = json.loads((night.output / "run" / "summary.json").read_text())
    assert (summary["rendered"], summary["statuses"]) == (4 - len(finished), {"ok": 4})


def test_a_live_job_is_stopped_and_the_name_goes_on_later(
    tmp_path: Path, head: RayHead, tiny_model: Path, pictures: Path
) -> None:
    night = Night(tmp_path, head, tiny_model, [f"{pictures}/0.png"] * 4, num_inference_steps=30)
    following = night.submit("--submission-id", "stopped")
    night.await_a_commit(following)
    assert "stopped: stopped" in night.look_after("--submission-id", "stopped", "--stop")
    code, said = end(following)
    assert code == ExitCode.STOPPED, said
    finished = night.commits()
    assert 1 <= len(finished) < 4
    assert "stopped: stopped" in night.look_after("--submission-id", "stopped", "--stop")  # again: it says so

    code, said = end(night.submit("--submission-id", "stopped"))
    assert code == ExitCode.DONE, said
    assert "submitted stopped-2 to" in said
    assert finished.items() <= night.commits().items()
    assert len(night.commits()) == 4


def test_a_wrong_token_is_one_sentence(head: RayHead, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0" * 32)
    environment = head.environment | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    command = [sys.executable, "-m", "jobs.submit", "--submission-id", "x", "--status"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stdout) == (ExitCode.INFRASTRUCTURE, "")
    assert "refuses this token" in done.stderr
    assert done.stderr.count("\n") == 1
