"""What a training run tells: metrics as JSON lines and for TensorBoard, written by the first worker; progress."""

import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from tensorboardX import SummaryWriter

from actors.storage import ObjectNotFound, Storage, StorageError, join
from schemas.train_run import TrainRun

METRICS_FILE = "metrics.jsonl"
_UPLOAD_EVERY_S = 15.0
_POLL_S = 2.0
_SHOWN_PROBLEMS = 3  # of one line of metrics
_NOT_PLOTTED = frozenset({"step", "time", "problems"})


class MetricsLog:
    """Collects one line per logged step, and writes all of them now and then: an object store cannot append.

    A run that goes on from step N keeps the lines up to N and drops those after it.
    """

    def __init__(self, storage: Storage, run: TrainRun, step: int):
        self._storage = storage
        self._output = run.output
        self._lines = [line for line in read_metrics(storage, run.output) if line["step"] <= step]
        self._folder = tempfile.TemporaryDirectory(prefix="tensorboard-")
        self._board = SummaryWriter(self._folder.name, purge_step=step + 1 if step else None)
        self._written_at = time.monotonic()

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes the metrics of one step; `step` is among them."""
        self._lines.append(dict(line))
        for name, value in line.items():
            if name not in _NOT_PLOTTED and isinstance(value, int | float):
                self._board.add_scalar(name, value, line["step"])
        if time.monotonic() - self._written_at > _UPLOAD_EVERY_S:
            self.write()

    def write(self) -> None:
        """Everything so far, as `metrics.jsonl` and event files under `tensorboard/`."""
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        self._storage.write_bytes(join(self._output, METRICS_FILE), text.encode())
        self._board.flush()
        for file in Path(self._folder.name).iterdir():
            self._storage.upload(file, join(self._output, "tensorboard", file.name))
        self._written_at = time.monotonic()

    def close(self) -> None:
        self.write()
        self._board.close()
        self._folder.cleanup()


def read_metrics(storage: Storage, output: str) -> list[dict[str, Any]]:
    """The lines that a run has written so far; none before its first."""
    try:
        text = storage.read_bytes(join(output, METRICS_FILE)).decode()
    except ObjectNotFound:
        return []
    return [json.loads(line) for line in text.splitlines() if line.strip()]


@contextmanager
def shown_progress(storage: Storage, run: TrainRun, console: Console, began_at: int) -> Iterator[None]:
    """Prints the run's metrics as they are written, from wherever its workers are.

    Args:
        began_at: the step that the run is known to begin or go on at.
    """
    ended = threading.Event()
    progress = _Progress(storage, run, console, began_at)

    def follow() -> None:
        while not ended.wait(_POLL_S):
            progress.show_new()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.show_new()


class _Progress:
    """What a person is told of the lines of metrics, each of them once."""

    def __init__(self, storage: Storage, run: TrainRun, console: Console, began_at: int):
        self._storage = storage
        self._run = run
        self._console = console
        # When each step's line was made: workers that go on after a failure make some of them again.
        self._shown = {line["step"]: line["time"] for line in read_metrics(storage, run.output)}
        self._began_at = self._last_step = began_at
        self._is_readable = True

    def show_new(self) -> None:
        try:
            lines = read_metrics(self._storage, self._run.output)
        except StorageError as error:
            if self._is_readable:
                self._say(f"the metrics cannot be read just now: {error}")
            self._is_readable = False
            return
        self._is_readable = True
        fresh = [line for line in lines if self._shown.get(line["step"]) != line["time"]]
        for line in fresh:
            if line["began_at_step"] != self._began_at or line["step"] <= self._last_step:
                self._say(where_it_goes_on(line["began_at_step"]))
            self._shown[line["step"]] = line["time"]
            self._began_at, self._last_step = line["began_at_step"], line["step"]
            self._warn(line["problems"])
        if fresh:
            self._say(progress_line(fresh[-1], self._run.steps))

    def _warn(self, problems: list[str]) -> None:
        for problem in problems[:_SHOWN_PROBLEMS]:
            self._say(f"warning: {problem}")
        if (more := len(problems) - _SHOWN_PROBLEMS) > 0:
            self._say(f"warning: {more} more samples could not be read, see {METRICS_FILE}")

    def _say(self, text: str) -> None:
        say(self._console, text)


def say(console: Console, text: str) -> None:
    """One line, as it is: whoever reads it by machine finds it whole."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def where_it_goes_on(step: int) -> str:
    """What a person is told where an earlier beginning is taken up."""
    if step:
        return f"goes on from the checkpoint of step {step}"
    return "begins again at step 0: no checkpoint had been finished"


def progress_line(line: Mapping[str, Any], steps: int) -> str:
    """One step's metrics for a person."""
    parts = [f"step {line['step']}/{steps}", f"loss {line['loss']:.4f}"]
    parts += [f"{name} {line[name]:.4f}" for name in sorted(line) if name.startswith("val_loss")]
    parts.append(f"{line['samples_per_s']:.2f} samples/s")
    parts.append(f"waiting for data {line['data_wait_share']:.0%}")
    left_s = (steps - line["step"]) * line["step_s"]
    parts.append(f"{int(left_s // 3600)}:{int(left_s // 60 % 60):02d}:{int(left_s % 60):02d} left")
    return ", ".join(parts)
