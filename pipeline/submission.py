"""Jobs on a Ray cluster, through its job server: found by name, submitted once, followed to the end, stopped."""

import asyncio
import logging
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import requests
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from actors.uris import redact
from pipeline.submission_package import JobCommand, environment, write_package
from schemas.run import ExitCode, InfrastructureError, UsageError

_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # in Ray's own order
_DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_TIMEOUT_S = (10.0, 600.0)  # to connect; to answer, which an upload to a slow head may take
_PATIENCE_S = 300.0  # how long a job that is followed may be out of reach
_POLL_S = 1.0
_FINISHED_CODES = (ExitCode.DONE, ExitCode.DONE_WITH_FAILED_ROWS)


class JobServer:
    """The job server of a cluster.

    Args:
        address: http(s)://HOST:PORT of its dashboard; None: where Ray's variables say, else this machine's.

    Raises:
        InfrastructureError: it cannot be reached, or wants a token that is not there.
    """

    def __init__(self, address: str | None):
        named = address or next(filter(None, map(os.environ.get, _ADDRESS_VARIABLES)), _DEFAULT_ADDRESS)
        os.environ[_ADDRESS_VARIABLES[0]] = named  # Ray's client lets this win over its argument
        logging.getLogger("ray").setLevel(logging.ERROR)
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        try:
            self._client = _Client(named)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if isinstance(error, InfrastructureError):
                raise
            why = str(error).splitlines()[0]
            raise InfrastructureError(f"no Ray job server at {redact(named)}: {redact(why)}") from error

    @property
    def address(self) -> str:
        return redact(self._client.get_address())

    def attempts(self, name: str) -> list[JobDetails]:
        """The jobs that were submitted under a name: NAME, NAME-2, NAME-3, ..., the oldest first."""
        jobs = {job.submission_id: job for job in self._client.list_jobs()}
        found: list[JobDetails] = []
        while job := jobs.get(attempt_id(name, len(found) + 1)):
            found.append(job)
        return found

    def submit(
        self,
        command: JobCommand,
        name: str | None,
        *,
        working_dir: Path,
        exclude: Sequence[str] = (),
        env: Sequence[str] = (),
    ) -> str:
        """Sends the working directory and starts a job; its id.

        Raises:
            UsageError: what would be sent is too large, or holds something secret.
        """
        variables = environment(env)
        with TemporaryDirectory() as folder:
            package = Path(folder) / "package.zip"
            write_package(package, working_dir, exclude, command.config)
            try:
                submitted: str = self._client.submit_job(
                    entrypoint=shlex.join(["python", "-m", *command.arguments]),
                    submission_id=name,
                    runtime_env={"working_dir": str(package), "env_vars": variables},
                )
            except RuntimeError as error:
                if isinstance(error, InfrastructureError):
                    raise
                if name and self.attempts(name):
                    return name  # another process submitted it a moment ago
                why = redact(str(error).splitlines()[0])
                raise InfrastructureError(f"the cluster does not take the job: {why}") from error
        return submitted

    def stop(self, job_id: str) -> JobDetails:
        """Stops a job and waits until it has ended."""
        self._client.stop_job(job_id)
        while not (job := self._client.get_job_info(job_id)).status.is_terminal():
            time.sleep(_POLL_S)
        return job

    def follow(self, job_id: str, write: Callable[[str], Any]) -> JobDetails:
        """Gives `write` the job's log as it grows, from its beginning, until the job has ended.

        Raises:
            InfrastructureError: the cluster is out of reach for minutes. The job may go on.
        """
        written = 0
        reached = time.monotonic()
        while True:
            written = asyncio.run(self._tail(job_id, write, written))
            try:
                job = self._client.get_job_info(job_id)
            except (InfrastructureError, RuntimeError) as error:
                if time.monotonic() - reached > _PATIENCE_S:
                    raise InfrastructureError(f"{redact(str(error))}; job {job_id} may go on") from error
            else:
                reached = time.monotonic()
                if job.status.is_terminal():
                    return job
            time.sleep(_POLL_S)

    async def _tail(self, job_id: str, write: Callable[[str], Any], written: int) -> int:
        """Writes what the log holds beyond `written` characters while the connection holds; how many there are."""
        position = 0
        try:
            async for text in self._client.tail_job_logs(job_id):
                if new := text[max(0, written - position) :]:
                    write(new)
                position += len(text)
        except (RuntimeError, OSError, aiohttp.ClientError):
            pass  # whether the job goes on is asked next
        return max(written, position)


class _Client(JobSubmissionClient):
    """Ray's client with time limits, and errors of one sentence."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> requests.Response:
        try:
            return super()._do_request(method, endpoint, timeout=_TIMEOUT_S, **more)
        except AuthenticationError as error:
            wants = "refuses this token" if "failed" in str(error).splitlines()[0] else "asks for a token"
            raise InfrastructureError(
                f"the Ray cluster at {redact(self._address)} {wants}: it is read from RAY_AUTH_TOKEN, from the file "
                "that RAY_AUTH_TOKEN_PATH names, or from ~/.ray/auth_token, unless RAY_AUTH_MODE is disabled"
            ) from error
        except requests.RequestException as error:
            raise InfrastructureError(
                f"no Ray cluster answers at {redact(self._address)} ({type(error).__name__}); is it up, and is its "
                "dashboard's port forwarded (ray dashboard cluster.yaml)?"
            ) from error


def attempt_id(name: str, attempt: int) -> str:
    """The submission id of the n-th job under a name, from 1."""
    return name if attempt == 1 else f"{name}-{attempt}"


def goes_on(attempts: Sequence[JobDetails]) -> bool:
    """Whether the last job under a name is still to end."""
    return bool(attempts) and not attempts[-1].status.is_terminal()


def is_done(attempts: Sequence[JobDetails]) -> bool:
    """Whether the last job under a name did what it was there for; rows that failed do not change that."""
    return bool(attempts) and not goes_on(attempts) and exit_code(attempts[-1]) in _FINISHED_CODES


def exit_code(job: JobDetails) -> int:
    """The exit code of an ended job: its driver's own, a signal as a shell counts it; else what its end stands for."""
    if job.driver_exit_code is not None:
        return job.driver_exit_code if job.driver_exit_code >= 0 else 128 - job.driver_exit_code
    return {JobStatus.SUCCEEDED: ExitCode.DONE, JobStatus.STOPPED: ExitCode.STOPPED}.get(
        job.status, ExitCode.INFRASTRUCTURE
    )


def last_attempt(attempts: Sequence[JobDetails], name: str) -> JobDetails:
    """The job that a name stands for now.

    Raises:
        UsageError: nothing was submitted under it.
    """
    if not attempts:
        raise UsageError(f"submission_id = {name!r}: the cluster knows no such job")
    return attempts[-1]
