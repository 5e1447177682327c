"""Exit codes from exceptions, and what a user sees of each."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from actors.storage_errors import ObjectNotFound, StorageUnavailable, UriForbidden
from jobs._cli import run_job
from schemas.manifest import ManifestError
from schemas.run import ExitCode, InfrastructureError, UsageError


@pytest.fixture
def exit_of(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[Callable[[], int]], tuple[int, str]]]:
    """Runs a job to its end; returns exit code and stderr."""
    previous = signal.getsignal(signal.SIGTERM)

    def run(job: Callable[[], int]) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            run_job(job)
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, previous)


def raising(error: BaseException) -> Callable[[], int]:
    def job() -> int:
        raise error

    return job


@pytest.mark.parametrize("code", list(ExitCode))
def test_a_job_that_returns_exits_with_its_code(code: ExitCode, exit_of: Any) -> None:
    assert exit_of(lambda: code) == (code, "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("seed = -1"), 2),
        (ManifestError("no column"), 2),
        (UriForbidden("scheme 'ftp'", "ftp://x"), 2),
        (InfrastructureError("no GPU"), 3),
        (StorageUnavailable("does not answer", "s3://bucket"), 3),
        (ObjectNotFound("no such bucket", "s3://bucket"), 3),
        (KeyboardInterrupt(), 4),
    ],
)
def test_an_expected_failure_is_one_line(error: BaseException, code: int, exit_of: Any) -> None:
    actual, err = exit_of(raising(error))
    assert actual == code
    assert err.count("\n") == 1
    assert str(error) in err


def test_an_unexpected_failure_shows_its_traceback_and_ends_in_one_line(exit_of: Any) -> None:
    code, err = exit_of(raising(ZeroDivisionError("oops")))
    assert code == ExitCode.INTERNAL
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1] == "internal error: ZeroDivisionError: oops"


def test_sigterm_stops_like_ctrl_c(exit_of: Any) -> None:
    def job() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    code, err = exit_of(job)
    assert code == ExitCode.STOPPED
    assert "the same command continues" in err


def test_secrets_do_not_reach_the_traceback(exit_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIsecret")
    _, err = exit_of(raising(RuntimeError("sent wJalrXUtnFEMIsecret to s3://id:pass@bucket/x")))
    assert "wJalrXUtnFEMIsecret" not in err
    assert "id:pass" not in err


def test_a_failure_inside_a_ray_task_is_told_by_its_cause(exit_of: Any) -> None:
    error = RayTaskError("task", "Traceback of the worker ...", UsageError("manifest = 'x': not found"))
    code, err = exit_of(raising(error.as_instanceof_cause()))
    assert (code, err) == (2, "error: manifest = 'x': not found\n")
