"""Hands a job to a Ray cluster, follows its log, and ends with its exit code.

python -m jobs.submit --address http://127.0.0.1:8265 -- jobs.render --config run.yaml
python -m jobs.submit --submission-id 'nightly-{date}' -- jobs.render --config run.yaml
python -m jobs.submit --submission-id nightly-2026-03-01 --status

A name is run once: while its job runs, the same command follows it; once it is done (exit code 0 or 1), the command
says so. A job that ended otherwise is submitted again, as NAME-2, and so on.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs._cli import load_config, run_job
from schemas.run import ExitCode, UsageError
from schemas.submit_run import SubmitRun


def main() -> int:
    own, command = _at_dashes(sys.argv[1:])
    run = load_config(SubmitRun, own, prog="python -m jobs.submit", description=__doc__)
    if run.status or run.stop:
        if command:
            raise UsageError("--status and --stop take no command after --")
        return _look_after(run)
    code = _submit(run, command)
    if code not in tuple(ExitCode):
        sys.exit(code)  # of a driver that was killed or never began
    return code


def _at_dashes(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _submit(run: SubmitRun, arguments: Sequence[str]) -> int:
    from pipeline.submission import JobServer, attempt_id, exit_code, goes_on, is_done
    from pipeline.submission_package import PROJECT, environment, job_command

    command = job_command(arguments)
    environment(run.env)
    server = JobServer(run.address)
    attempts = server.attempts(run.submission_id) if run.submission_id else []
    if is_done(attempts):
        _say(
            f"{attempts[-1].submission_id} is done, exit code {exit_code(attempts[-1])}; nothing was submitted"
        )
        return exit_code(attempts[-1])
    if goes_on(attempts):
        job_id = str(attempts[-1].submission_id)
        _say(f"{job_id} is running at {server.address}; nothing was submitted")
    else:
        name = run.submission_id and attempt_id(run.submission_id, len(attempts) + 1)
        folder = Path(run.working_dir or PROJECT)
        job_id = server.submit(command, name, working_dir=folder, exclude=run.exclude, env=run.env)
        _say(f"submitted {job_id} to {server.address}")
    how = f"python -m jobs.submit --submission-id {shlex.quote(job_id)}" + (
        f" --address {run.address}" if run.address else ""
    )
    if not run.wait:
        _say(f"it goes on by itself; {how} --status, or --stop")
        return ExitCode.DONE
    try:
        job = server.follow(job_id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        _say(f"\n{job_id} goes on; to stop it: {how} --stop")
        return ExitCode.STOPPED
    if job.driver_exit_code is None:
        _say(f"{job_id} {job.status.value.lower()}: {job.message or 'its driver has no exit code'}")
    return exit_code(job)


def _look_after(run: SubmitRun) -> int:
    from pipeline.submission import JobServer, goes_on, last_attempt

    name = str(run.submission_id)
    server = JobServer(run.address)
    attempts = server.attempts(name)
    job = last_attempt(attempts, name)
    if run.stop and goes_on(attempts):
        job = server.stop(str(job.submission_id))
    code = "" if job.driver_exit_code is None else f", exit code {job.driver_exit_code}"
    print(f"{job.submission_id}: {job.status.value.lower()}{code}; {job.entrypoint}")
    return ExitCode.DONE


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_job(main)
