"""A time limit on a child process that answers through pipes: a blocked read ends when the process does."""

import subprocess
import threading


class Watchdog:
    """`with Watchdog(process, timeout_s) as watchdog: ...` kills the process when the block takes longer.

    `fired` tells afterwards whether it did; the block itself only sees the broken pipe.
    """

    def __init__(self, process: subprocess.Popen[bytes], timeout_s: float):
        self._process = process
        self._fired = threading.Event()
        self._timer = threading.Timer(timeout_s, self._fire)
        self._timer.daemon = True

    @property
    def fired(self) -> bool:
        return self._fired.is_set()

    def __enter__(self) -> "Watchdog":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _fire(self) -> None:
        self._fired.set()
        self._process.kill()
