"""`--log-format json`: all that a render says is one JSON object a line on stderr."""

import io
import json
import logging
import sys

import diffusers
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

from actors import logs
from jobs import render
from jobs._cli import run_job
from schemas.run import ExitCode
from tests.support.rendering import render_in_process


@pytest.fixture
def run_json(monkeypatch, tmp_path, tiny_model, pictures):
    """Renders a manifest as the command line would; the exit code, and the events on stderr."""
    render_in_process(monkeypatch)
    root = logging.getLogger()
    handlers, levels = root.handlers, {name: logging.getLogger(name).level for name in logs._OURS}
    rows = [
        {"row_id": "good", "prompt": "a cat", "style_image_uri": [f"{pictures}/0.png"]},
        {"row_id": "bad", "prompt": "a dog", "style_image_uri": [f"{pictures}/broken.png"]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "manifest.parquet")

    def run(*flags):
        said = io.StringIO()
        monkeypatch.setattr(sys, "stderr", said)
        command = ["--manifest", str(tmp_path / "manifest.parquet"), "--output", str(tmp_path / "out")]
        monkeypatch.setattr(
            sys, "argv", ["render", *command, "--run-id", "r7", "--log-format", "json", *flags]
        )
        with pytest.raises(SystemExit) as ended:
            run_job(render.main)
        return ended.value.code, [json.loads(line) for line in said.getvalue().splitlines()]

    yield lambda *flags, model=str(tiny_model): run("--model", model, *flags)
    root.handlers = handlers
    logging.captureWarnings(False)
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.enable_progress_bar()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_a_render_is_told_as_events(run_json, capsys):
    code, events = run_json()
    assert code == ExitCode.DONE_WITH_FAILED_ROWS
    assert {event["run_id"] for event in events} == {"r7"}
    assert all(event["time"] and event["level"] for event in events)
    finished = {event["row_id"]: event for event in events if event["message"] == "row finished"}
    assert finished["good"]["status"] == "ok" and finished["good"]["timings"]["denoise_s"] > 0
    assert finished["bad"]["error_class"] == "asset_undecodable"
    messages = [event["message"] for event in events]
    assert messages.index("planned") < messages.index("row finished") < messages.index("finished")
    assert events[messages.index("finished")]["summary"]["statuses"] == {"ok": 1, "failed": 1}
    assert capsys.readouterr().out == ""


def test_what_ends_a_run_is_an_event_too(run_json, tmp_path):
    code, events = run_json(model=str(tmp_path / "nothing"))
    assert code == events[-1]["exit_code"] != 0
    assert events[-1]["level"] == "error"
