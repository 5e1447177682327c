"""What `jobs.submit` sends and decides, without a cluster; with one: test_submit_cluster.py."""

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ray.dashboard.modules.job.pydantic_models import JobDetails

from jobs import submit
from jobs._cli import load_config
from pipeline import submission
from pipeline.submission import exit_code, goes_on, is_done
from pipeline.submission_package import PROJECT, JobCommand, environment, job_command, write_package
from schemas.run import ExitCode, InfrastructureError, UsageError
from schemas.submit_run import SubmitRun


def job(status: str, code: int | None = None, name: str = "night") -> JobDetails:
    return JobDetails(
        type="SUBMISSION",
        status=status,
        driver_exit_code=code,
        entrypoint="python -m jobs.render",
        submission_id=name,
    )


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (job("SUCCEEDED", 0), 0),
        (job("FAILED", 1), 1),
        (job("FAILED", 2), 2),
        (job("FAILED", 137), 137),
        (job("FAILED", -9), 137),
        (job("STOPPED"), ExitCode.STOPPED),
        (job("FAILED"), ExitCode.INFRASTRUCTURE),
    ],
)
def test_the_exit_code_is_the_drivers(ended: JobDetails, code: int) -> None:
    assert exit_code(ended) == code


@pytest.mark.parametrize(
    ("attempts", "runs", "done"),
    [
        ([], False, False),
        ([job("PENDING")], True, False),
        ([job("RUNNING")], True, False),
        ([job("SUCCEEDED", 0)], False, True),
        ([job("FAILED", 1)], False, True),
        ([job("FAILED", 3)], False, False),
        ([job("STOPPED")], False, False),
        ([job("FAILED", 3), job("RUNNING")], True, False),
        ([job("FAILED", 3), job("SUCCEEDED", 0)], False, True),
    ],
)
def test_what_a_name_stands_for(attempts: list[JobDetails], runs: bool, done: bool) -> None:
    assert (goes_on(attempts), is_done(attempts)) == (runs, done)


class Cluster:
    """A job server that holds jobs and takes more."""

    address = "http://cluster"

    def __init__(self, *jobs: JobDetails, ends: JobDetails | None = None):
        self.jobs = list(jobs)
        self.ends = ends or job("SUCCEEDED", 0)
        self.submitted: list[tuple[JobCommand, str | None]] = []

    def attempts(self, name: str) -> list[JobDetails]:
        return self.jobs

    def submit(self, command: JobCommand, name: str | None, **_: Any) -> str:
        self.submitted.append((command, name))
        return name or "random"

    def follow(self, job_id: str, write: Any) -> JobDetails:
        write(f"log of {job_id}\n")
        return self.ends


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(cluster: Cluster, line: str = "--submission-id night -- jobs.render --manifest m") -> int:
        monkeypatch.setattr(submission, "JobServer", lambda address: cluster)
        monkeypatch.setattr(sys, "argv", ["submit", *line.split()])
        return submit.main()

    return run


def test_a_new_name_is_submitted_and_followed(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(ends=job("FAILED", 1))
    assert run(cluster) == 1
    assert cluster.submitted == [(JobCommand(("jobs.render", "--manifest", "m"), None), "night")]
    assert capsys.readouterr().out == "log of night\n"


def test_what_runs_is_followed_and_what_is_done_is_left(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for cluster in (Cluster(job("RUNNING")), Cluster(job("SUCCEEDED", 0))):
        assert run(cluster) == 0
        assert cluster.submitted == []
    assert "is running" in (said := capsys.readouterr().err)
    assert "is done" in said


def test_what_failed_is_submitted_under_the_next_name(run: Any) -> None:
    cluster = Cluster(job("FAILED", 3), job("STOPPED", name="night-2"))
    assert run(cluster) == 0
    assert cluster.submitted[0][1] == "night-3"


def test_a_killed_drivers_code_is_passed_on(run: Any) -> None:
    with pytest.raises(SystemExit) as end:
        run(Cluster(ends=job("FAILED", -9)))
    assert end.value.code == 137


def test_without_waiting_nothing_is_followed(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Cluster(), "--no-wait -- jobs.render --manifest m") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "stands nothing"),
        ("-- jobs.no_such --manifest m", "stands 'jobs.no_such'"),
        ("-- jobs.submit -- jobs.render", "stands 'jobs.submit'"),
        ("-- jobs.render --config missing.yaml", "no such file"),
        ("-- jobs.render --manifest https://user:word@host/m.parquet", "holds credentials"),
        ("-- jobs.render --manifest https://h/m?X-Amz-Signature=0123456789abcdef", "holds credentials"),
        ("--env AWS_SECRET_ACCESS_KEY=x -- jobs.render --manifest m", "looks secret"),
        ("--env AWS_ACCESS_KEY_ID=x -- jobs.render --manifest m", "looks secret"),
        ("--env HF_TOKEN=x -- jobs.render --manifest m", "looks secret"),
        ("--env NAME=AKIAABCDEFGHIJKLMNOP -- jobs.render --manifest m", "holds credentials"),
        ("--submission-id night --status -- jobs.render", "take no command"),
    ],
)
def test_what_is_refused(run: Any, line: str, says: str) -> None:
    cluster = Cluster()
    with pytest.raises(UsageError, match=says):
        run(cluster, line)
    assert cluster.submitted == []


@pytest.mark.parametrize(
    "line",
    [
        "--address ray://host:10001",
        "--submission-id a/b",
        "--submission-id {day}",
        "--env NAME",
        "--status",
        "--submission-id a --status --stop",
    ],
)
def test_flags_that_do_not_fit(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_config(SubmitRun, line.split(), prog="submit", description=None)


def test_a_date_in_the_name_is_today() -> None:
    assert str(SubmitRun(submission_id="night-{date}").submission_id).count("-") == 3


def test_harmless_variables_pass() -> None:
    given = ["TOKENIZERS_PARALLELISM=false", "AWS_REGION=eu-central-1", "A=b=c"]
    assert environment(given)["A"] == "b=c"


def test_a_config_goes_along_wherever_it_lies(tmp_path: Path) -> None:
    config = tmp_path / "night.yaml"
    config.write_text("manifest: s3://b/m.parquet")
    command = job_command(["python", "-m", "jobs.render", "--config", str(config), "--limit", "1"])
    assert command.arguments == ("jobs.render", "--config", "submitted/night.yaml", "--limit", "1")
    assert job_command(["jobs.render", f"--config={config}"]).arguments[1] == "--config=submitted/night.yaml"
    config.write_text("manifest: https://user:word@host/m.parquet")
    with pytest.raises(UsageError, match="holds credentials"):
        job_command(["jobs.render", f"--config={config}"])

    folder = tmp_path / "code"
    folder.mkdir()
    (folder / ".rayignore").write_text("*.bin")
    for name in ("a.py", "b.bin", "c.txt"):
        (folder / name).touch()
    sizes = []
    for name in ("one.zip", "two.zip"):
        write_package(tmp_path / name, folder, ["c.txt"], config)
        sizes.append((tmp_path / name).read_bytes())
    assert sizes[0] == sizes[1]
    with zipfile.ZipFile(tmp_path / "one.zip") as package:
        assert {"a.py", "CODE_VERSION", "submitted/night.yaml"} <= set(package.namelist())
        assert not {"b.bin", "c.txt"} & set(package.namelist())
        assert package.read("submitted/night.yaml") == config.read_bytes()


def test_this_project_is_sent_without_what_a_job_does_not_need(tmp_path: Path) -> None:
    write_package(tmp_path / "p.zip", PROJECT, [], None)
    with zipfile.ZipFile(tmp_path / "p.zip") as package:
        names = package.namelist()
    assert {
        "jobs/render.py",
        "pipeline/pages/report.html",
        "stylecrafter/data/bpe_simple_vocab_16e6.txt.gz",
    } <= set(names)
    assert not [name for name in names if name.startswith((".git/", ".venv/", "tests/"))]
    assert (tmp_path / "p.zip").stat().st_size < 20 * 2**20


def test_an_address_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
    with pytest.raises(InfrastructureError, match=r"no Ray cluster answers at http://127.0.0.1:1 ") as raised:
        submission.JobServer("http://127.0.0.1:1")
    assert "\n" not in str(raised.value)
