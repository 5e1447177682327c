"""Time limits on what cannot be interrupted: a child process that answers through pipes, and this process itself."""

import faulthandler
import math
import subprocess
import threading
from collections.abc import Callable

_GRACE_S = 120.0
_STDERR = 2  # the descriptor: what stands in sys.stderr's place (a test's, Ray's) need not have one


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


class Deadline:
    """`with Deadline(timeout_s, end): ...` calls `end`, in a thread of its own, when the block takes longer.

    `end` is to end the process. Where it cannot, since native code holds the interpreter, the process is ended
    without it after a while. One at a time in a process; an infinite `timeout_s` is none.
    """

    def __init__(self, timeout_s: float, end: Callable[[], None]):
        self._timeout_s = timeout_s
        self._end = end
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        if math.isinf(self._timeout_s):
            return
        self._timer = threading.Timer(self._timeout_s, self._end)
        self._timer.daemon = True
        self._timer.start()
        faulthandler.dump_traceback_later(self._timeout_s + _GRACE_S, exit=True, file=_STDERR)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            faulthandler.cancel_dump_traceback_later()
            self._timer.cancel()
