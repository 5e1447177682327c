"""How a thread that watches something ends the run: the main thread is interrupted, and raises the watcher's error."""

import signal
import threading
from types import TracebackType


class Interrupt:
    """`with Interrupt() as interrupt: ...`: `interrupt.end(error)`, from any thread, makes the block raise `error`.

    Outside the main thread, where nothing can be interrupted, the block raises it when it ends.
    """

    def __init__(self) -> None:
        self._error: Exception | None = None
        self._in_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Interrupt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # GeneratorExit: the interrupt met the consumer of a generator that the block is in.
        if self._error is not None and kind in (None, KeyboardInterrupt, GeneratorExit):
            raise self._error from None

    def end(self, error: Exception) -> None:
        """Makes the block raise `error`, also where it waits for something that never comes."""
        if self._error is not None:
            return
        self._error = error
        if self._in_main:
            # A signal, not `interrupt_main`: only that wakes a thread that waits for a lock.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
