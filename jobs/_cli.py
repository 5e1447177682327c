"""What every job's command line shares: config from flags and YAML, and exit codes from exceptions.

A value comes from its flag, else from the `--config` file, else from the model's default; the environment is
not a source. The model alone validates, so that a job behaves the same from YAML, command line and Python.
"""

import argparse
import difflib
import logging
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from actors import logs
from actors.storage_errors import StorageError, UriForbidden
from actors.uris import redact
from jobs._flags import Flag, flags_of
from schemas.manifest import ManifestError, shorten
from schemas.run import ExitCode, InfrastructureError, UsageError

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=BaseModel)

_HELP_COLUMNS = 100
_EXIT_CODES = """exit codes:
  0   done
  1   done, with failed rows
  2   wrong usage, a bad config or a refused plan
  3   infrastructure failed (storage, permissions, hardware) or the circuit breaker opened
  4   stopped early on purpose (budget, deadline, signal); the same command continues
  70  internal error

A value comes from its flag, else from the --config file, else from its default."""


def load_config(
    model: type[Config], argv: Sequence[str] | None, *, prog: str, description: str | None
) -> Config:
    """The job's validated config from its arguments (None: those of this process).

    Raises:
        SystemExit: 2 after one message on stderr that names field, value and what is allowed; 0 after --help.
    """
    flags = flags_of(model)
    parser = _parser(flags, prog, description)
    given, extra = parser.parse_known_args(argv)
    try:
        if extra:
            raise UsageError(_unknown_argument(extra, parser))
        config_file = given.__dict__.pop("config", None)
        from_file = _read_yaml(config_file) if config_file else {}
        _check_keys(model, from_file, config_file)
        from_flags = {tuple(name.split(".")): value for name, value in vars(given).items()}
        try:
            return model.model_validate(_merged(from_file, from_flags))
        except ValidationError as error:
            raise UsageError(_explain(error, flags, from_flags, config_file)) from None
    except UsageError as error:
        parser.error(str(error))


def run_job(run: Callable[[], int]) -> NoReturn:
    """Calls a job and exits with its exit code, or with the one its exception stands for.

    SIGTERM interrupts like Ctrl-C. Only an internal error prints a traceback.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = ExitCode(run())
    except KeyboardInterrupt:
        code = _say("stopped by a signal; the same command continues", ExitCode.STOPPED)
    except (UsageError, ManifestError, UriForbidden) as error:
        code = _say(f"error: {_origin(error)}", ExitCode.USAGE)
    except (InfrastructureError, StorageError) as error:
        code = _say(f"infrastructure error: {_origin(error)}", ExitCode.INFRASTRUCTURE)
    except Exception as error:  # noqa: BLE001 - the outermost frame: everything becomes an exit code
        _say(traceback.format_exc().rstrip(), ExitCode.INTERNAL)
        code = _say(f"internal error: {type(error).__name__}: {error}", ExitCode.INTERNAL)
    sys.stdout.flush()
    sys.exit(code)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(message: str, code: ExitCode) -> ExitCode:
    if logs.is_json():
        logger.error(message, extra=logs.fields(exit_code=code))
    else:
        print(redact(message), file=sys.stderr, flush=True)
    return code


def _origin(error: BaseException) -> BaseException:
    """The exception itself where Ray wrapped it together with a remote traceback."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _shown(value: Any) -> str:
    """A value as an error message may show it: redacted first, since a cut secret is not recognised."""
    return shorten(redact(value) if isinstance(value, str) else value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One message; the usage of forty flags would bury it."""
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {redact(message)}\nSee {self.prog} --help.\n")


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = min(_HELP_COLUMNS, shutil.get_terminal_size((_HELP_COLUMNS, 24)).columns)
    return argparse.RawDescriptionHelpFormatter(prog, width=width, max_help_position=36)


def _parser(flags: Sequence[Flag], prog: str, description: str | None) -> _Parser:
    required = " ".join(f"{flag.option} {flag.metavar}" for flag in flags if flag.required)
    parser = _Parser(
        prog=prog,
        usage=" ".join(filter(None, [prog, "[--config FILE.yaml]", required, "[options]"])).replace(
            "%", "%%"
        ),
        description=(description or "").strip(),
        epilog=_EXIT_CODES,
        formatter_class=_formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="values for any of the options below, as field: value"
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for flag in flags:
        if flag.section not in groups:
            groups[flag.section] = parser.add_argument_group(flag.section)
        flag.add_to(groups[flag.section])
    return parser


def _unknown_argument(extra: Sequence[str], parser: argparse.ArgumentParser) -> str:
    name = next((argument for argument in extra if argument.startswith("--")), extra[0]).split("=", 1)[0]
    if not name.startswith("-"):
        return f"unexpected argument {name!r}; every value needs its flag"
    return f"unknown flag {name}" + _suggestion(name.replace("_", "-"), parser._option_string_actions)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML in which a key may stand once, and a date is the text it looks like."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(file: str) -> dict[str, Any]:
    try:
        content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=_YamlLoader)
    except OSError as error:
        raise UsageError(f"--config {file}: {os.strerror(error.errno or 0)}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {file}: is not UTF-8 text") from None
    except RecursionError:
        raise UsageError(f"--config {file}: is nested too deeply") from None
    except Exception as error:  # noqa: BLE001 - PyYAML's constructors raise whatever a strange value runs into
        raise UsageError(f"--config {file}: is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"--config {file}: must hold 'field: value' lines, not {_shown(content)}")
    return content


def _check_keys(
    model: type[BaseModel], values: Mapping[Any, Any], file: str, above: tuple[str, ...] = ()
) -> None:
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for key, value in values.items():
        where = ".".join((*above, str(key)))
        if key not in fields:
            hint = _suggestion(where.replace("-", "_"), [".".join((*above, field)) for field in fields])
            raise UsageError(f"--config {file}: unknown key {where!r}{hint}")
        nested = fields[key]
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            if not isinstance(value, dict):
                raise UsageError(
                    f"--config {file}: {where} = {_shown(value)}: must hold 'field: value' lines"
                )
            _check_keys(nested, value, file, (*above, key))


def _merged(from_file: dict[str, Any], from_flags: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in from_file.items()}
    for path, value in from_flags.items():
        level = merged
        for key in path[:-1]:
            level = level.setdefault(key, {})
        level[path[-1]] = value
    return merged


def _explain(
    error: ValidationError,
    flags: Sequence[Flag],
    from_flags: Mapping[tuple[str, ...], Any],
    config_file: str | None,
) -> str:
    problems = error.errors(include_url=False)
    missing = [_flag_at(problem["loc"], flags) for problem in problems if problem["type"] == "missing"]
    sentences = []
    if missing:
        names = ", ".join(flag.option for flag in missing if flag)
        sentences.append(f"{names} {'is' if len(missing) == 1 else 'are'} required")
    for problem in problems:
        if problem["type"] != "missing":
            sentences.append(_sentence(problem, flags, from_flags, config_file))
    return "\n  ".join(sentences)


def _sentence(
    problem: Any, flags: Sequence[Flag], from_flags: Mapping[tuple[str, ...], Any], config_file: str | None
) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    flag = _flag_at(problem["loc"], flags)
    if flag is None:  # a rule over several fields says itself which
        return message
    of_item = len(problem["loc"]) > len(flag.path)
    allowed = flag.item_allowed if of_item else flag.allowed
    if allowed and problem["type"] != "value_error":
        message = f"must be {allowed}"
    if flag.path in from_flags:
        return f"{flag.option} {_shown(problem['input'])}: {message}"
    return f"--config {config_file}: {'.'.join(flag.path)} = {_shown(problem['input'])}: {message}"


def _flag_at(location: Sequence[int | str], flags: Sequence[Flag]) -> Flag | None:
    return next((flag for flag in flags if tuple(location[: len(flag.path)]) == flag.path), None)
