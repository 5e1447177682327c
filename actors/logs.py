"""What a run says, as one JSON object a line on stderr: `--log-format json`. In an actor, stderr is a file of Ray's."""

import importlib
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from actors.uris import redact

_OURS = ("jobs", "pipeline", "actors")
_DRAW_BARS = ("diffusers", "transformers")


class JsonLines(logging.Formatter):
    """time, level, message and run_id; row_id and more fields where an event has them."""

    def __init__(self, run_id: str):
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON, without secrets."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "run_id": self._run_id,
            "logger": record.name,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        # Before it is JSON: what hides a secret must not swallow a quotation mark.
        shown = {name: redact(value) if isinstance(value, str) else value for name, value in event.items()}
        return json.dumps(shown, ensure_ascii=False, default=str)


def start(log_format: str, run_id: str = "") -> None:
    """Sets what this process logs and how; calling it again changes the run. Text: Python's own way, warnings only."""
    if log_format != "json":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(run_id))
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in _DRAW_BARS:
        if name in sys.modules:  # else this process loads no model, and need not wait for the import
            importlib.import_module(f"{name}.utils.logging").disable_progress_bar()


def is_json() -> bool:
    """Whether this process tells all it says as JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def fields(**values: Any) -> dict[str, Any]:
    """The `extra` of a logging call: fields of the event beside its message, such as row_id."""
    return {"fields": values}
