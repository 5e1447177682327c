"""What goes to a cluster with a job: the command, the code with its version, the config; nothing secret."""

import logging
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from actors.uris import redact
from pipeline.provenance import VERSION_FILE, code_version
from schemas.run import UsageError

PROJECT = VERSION_FILE.parent
_CONFIG_FOLDER = "submitted"
_MAX_PACKAGE_BYTES = 512 * 2**20  # Ray keeps packages in the head's memory and takes no larger ones
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content is the same package, which Ray then has already
_SECRET_NAMES = re.compile(
    r"(^|_)(SECRETS?|TOKENS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|(ACCESS|PRIVATE|API)_?KEYS?)(_|$)",
    re.I,
)
_SECRET_VALUES = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY|\b(hf|gh[pousr])_\w{20,}"
)
_INSTEAD = (
    "the cluster keeps what is submitted, for everybody who may see its jobs; let the nodes have it instead: an IAM "
    "role for buckets, a Kubernetes secret or a file on the nodes for anything else"
)


@dataclass(frozen=True)
class JobCommand:
    """A job of ours with its arguments, as it runs on the cluster."""

    arguments: tuple[str, ...]  # after `python -m`; a --config among them names its place in the package
    config: Path | None  # the local file that it names


def job_command(arguments: Sequence[str]) -> JobCommand:
    """The job that `jobs.NAME --flag ...` asks for; `python -m` before it may be left out.

    Raises:
        UsageError: there is no such job, its config is no file, or something in it is secret.
    """
    given = list(arguments)
    if given[:2] == ["python", "-m"]:
        given = given[2:]
    known = sorted(
        f"jobs.{path.stem}" for path in (PROJECT / "jobs").glob("[a-z]*.py") if path.stem != "submit"
    )
    if not given or given[0] not in known:
        asked = repr(given[0]) if given else "nothing"
        raise UsageError(f"after -- stands {asked}; it must be one of {', '.join(known)}, with its flags")
    config: Path | None = None
    for index, argument in enumerate(given):
        refuse_secret("the command", argument)
        flag, separator, value = argument.partition("=")
        if flag != "--config" or not (separator or index + 1 < len(given)):
            continue
        config = Path(value if separator else given[index + 1])
        place = f"{_CONFIG_FOLDER}/{config.name}"
        given[index if separator else index + 1] = f"--config={place}" if separator else place
        if not config.is_file():
            raise UsageError(f"--config {config}: there is no such file")
        refuse_secret(f"--config {config}", config.read_text(encoding="utf-8", errors="replace"))
    return JobCommand(tuple(given), config)


def environment(assignments: Iterable[str]) -> dict[str, str]:
    """The variables of `NAME=VALUE` items.

    Raises:
        UsageError: one of them looks secret.
    """
    variables = dict(item.split("=", 1) for item in assignments)
    for name, value in variables.items():
        if _SECRET_NAMES.search(name):
            raise UsageError(f"--env {name}: looks secret, and {_INSTEAD}")
        refuse_secret(f"--env {name}", value)
    return variables


def refuse_secret(where: str, text: str) -> None:
    """Raises a UsageError if there are credentials in a text: in a URI, of this process's environment, or a key."""
    if redact(text) != text or _SECRET_VALUES.search(text):
        raise UsageError(f"{where} holds credentials, and {_INSTEAD}")


def write_package(target: Path, working_dir: Path, exclude: Iterable[str], config: Path | None) -> None:
    """Writes the zip file of a working directory, with the code's version and the config in their places.

    Raises:
        UsageError: the folder is not there, or too large.
    """
    if not working_dir.is_dir():
        raise UsageError(f"--working-dir {working_dir}: there is no such folder")
    quiet = logging.getLogger("stylecrafter.package")
    quiet.setLevel(logging.ERROR)
    excludes = [*get_runtime_env_default_excludes(), *exclude]
    create_package(str(working_dir), target, include_gitignore=True, excludes=excludes, logger=quiet)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as package:
        if VERSION_FILE.name not in package.namelist():
            package.writestr(zipfile.ZipInfo(VERSION_FILE.name, _ZIP_EPOCH), code_version())
        if config is not None:
            place = f"{_CONFIG_FOLDER}/{config.name}"
            package.writestr(zipfile.ZipInfo(place, _ZIP_EPOCH), config.read_bytes())
    size_bytes = target.stat().st_size
    if size_bytes > _MAX_PACKAGE_BYTES:
        raise UsageError(
            f"--working-dir {working_dir}: {size_bytes / 2**20:.0f} MiB packed, and a cluster takes at most "
            f"{_MAX_PACKAGE_BYTES // 2**20} MiB; --exclude what the job does not need, or name it in .rayignore"
        )
