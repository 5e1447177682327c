"""What a person sees while a run goes: rows done, failed and reused, seconds per row, time left."""

import logging
import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actors import logs
from pipeline.budget import Budget
from pipeline.eta import Eta
from schemas.record import Status

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 15.0  # where there is no terminal to redraw


class RenderProgress:
    """Counts records against the manifest; a live bar on a terminal, a line now and then elsewhere."""

    def __init__(
        self,
        total: int,
        already_done: int,
        eta: Eta,
        budget: Budget | None = None,
        console: Console | None = None,
    ):
        self._total = total
        self._reused = already_done
        self._statuses: Counter[str] = Counter()
        self._eta = eta
        self._budget = budget
        self._console = console or Console(file=sys.stderr, quiet=logs.is_json())
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("rendering"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal or self._console.quiet,
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
        self._eta.finished(record)
        self._statuses[record["status"]] += 1
        self._show()

    @property
    def to_render(self) -> int:
        """Rows that no actor is through with."""
        return self._eta.rows_left

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
        if self._budget and (spent_usd := self._budget.spent_usd()) is not None:
            text += f", ${spent_usd:,.2f} spent"
        row_s, left_s = self._eta.row_s, self._eta.left_s
        if row_s is None or left_s is None:
            return text
        return f"{text}, {row_s:.1f} s/row, {_clock(left_s)} left"

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
            line = f"{self._finished}/{self._total} records: {self._note()}"
            if logs.is_json():
                logger.info(line)
            else:
                self._console.print(line, highlight=False)


def _clock(seconds: float) -> str:
    minutes, whole_s = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole_s:02d}"
