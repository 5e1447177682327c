"""What a run says as JSON lines."""

import io
import json
import logging
import sys

import pytest

from actors import logs


@pytest.fixture
def lines(monkeypatch):
    """Turns JSON lines on, and reads what has been said since."""
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    root = logging.getLogger()
    before = root.handlers, [logging.getLogger(name).level for name in logs._OURS]
    logs.start("json", "run-7")
    yield lambda: [json.loads(line) for line in said.getvalue().splitlines()]
    root.handlers = before[0]
    for name, level in zip(logs._OURS, before[1], strict=True):
        logging.getLogger(name).setLevel(level)


def test_an_event_is_one_line_with_time_level_run_and_row(lines):
    logging.getLogger("actors.x").info("row\nfinished", extra=logs.fields(row_id="a", seconds={"fetch_s": 1}))
    [event] = lines()
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "info",
        "message": "row\nfinished",
        "run_id": "run-7",
        "logger": "actors.x",
        "row_id": "a",
        "seconds": {"fetch_s": 1},
    }


def test_secrets_are_hidden_and_the_line_stays_json(lines, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-key")
    try:
        raise ValueError("key a-very-secret-key")
    except ValueError:
        logging.getLogger("pipeline.x").exception("GET https://h/x?X-Amz-Signature=abcdef failed")
    [event] = lines()
    assert "abcdef" not in event["message"]
    assert "ValueError" in event["traceback"] and "a-very-secret-key" not in event["traceback"]


def test_others_are_heard_from_warnings_on(lines):
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("somebody.else").warning("trouble")
    assert [event["message"] for event in lines()] == ["trouble"]


def test_text_changes_nothing():
    before = list(logging.getLogger().handlers)
    logs.start("text", "run-7")
    assert logging.getLogger().handlers == before
    assert not logs.is_json()
