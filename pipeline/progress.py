"""What a person sees while a run goes: rows done, failed and reused, seconds per row, time left."""

import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.record import Status

_BURST_S = 0.5  # a unit's records arrive together
_LINE_EVERY_S = 15.0  # where there is no terminal to redraw


class RenderProgress:
    """Counts records against the manifest; a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, already_done: int, to_render: int, console: Console | None = None):
        self._total = total
        self._reused = already_done
        self._statuses: Counter[str] = Counter()
        self._rendered = 0
        self._console = console or Console(file=sys.stderr)
        self._to_render = to_render
        self._first_record = 0.0
        self._first_burst = 0
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("rendering"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=already_done, note="")

    def __enter__(self) -> "RenderProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._line()

    def rendered(self, record: dict[str, Any]) -> None:
        """A record that came back from an actor."""
        if not self._rendered:
            self._first_record = time.monotonic()
        self._rendered += 1
        if time.monotonic() - self._first_record < _BURST_S:
            self._first_burst = self._rendered
        self._statuses[record["status"]] += 1
        self._show()

    def reused(self, count: int) -> None:
        """Records whose video another record has."""
        self._reused += count
        self._show()

    def failed_at_plan(self, count: int) -> None:
        """Records of rows that could not be planned."""
        self._statuses[Status.INVALID] += count
        self._show()

    def _note(self) -> str:
        failed = sum(self._statuses.values()) - self._statuses[Status.OK]
        text = f"{self._statuses[Status.OK]} ok, {failed} failed, {self._reused} reused"
        since_first_s = time.monotonic() - self._first_record
        later = self._rendered - self._first_burst
        if not later:
            return text
        # From the first unit's records on: what came before is start-up, and does not come again.
        per_row_s = since_first_s / later
        left_s = per_row_s * (self._to_render - self._rendered)
        return f"{text}, {per_row_s:.1f} s/row, {_clock(left_s)} left"

    @property
    def _finished(self) -> int:
        return self._reused + sum(self._statuses.values())

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._finished, note=self._note())
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._line()

    def _line(self) -> None:
        if self._bar.disable:
            self._last_line = time.monotonic()
            self._console.print(f"{self._finished}/{self._total} records: {self._note()}", highlight=False)


def _clock(seconds: float) -> str:
    minutes, whole_s = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole_s:02d}"
