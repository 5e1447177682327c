"""The processes of one life, told from all others on this machine by a variable of their environment."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_POLL_S = 0.2
_MIN_SHARE = 0.1


def processes_of(variable: str, value: str) -> Iterator[int]:
    """The pids of all processes that were started with this variable, but for this one."""
    marker = f"{variable}={value}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            if marker in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def command_of(pid: int) -> str:
    """The command line of a process, "" once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def parent_of(pid: int) -> int | None:
    """The pid of a process's parent, or None once it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("PPid:"):
                return int(line.split()[1])
    return None


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill(pid: int) -> bool:
    """SIGKILL; whether there was somebody to kill."""
    if not is_alive(pid):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


class OwnTime:
    """A clock that slows down while processes wait for a CPU, so that a busy machine is not taken for a halt.

    From each look to the next it leaves out what the thread that waited longest waited, but a tenth goes on always:
    where many compete, even a thread that only polls waits most of the time.

    Args:
        pids: whose waiting counts; asked at each look.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]):
        self._pids = pids
        self._passed_s = 0.0
        self._looked_at, self._waited_s = time.monotonic(), waited_for_cpu_s(pids())

    def passed_s(self) -> float:
        """The time since the beginning; to be asked often."""
        now, waited_s = time.monotonic(), waited_for_cpu_s(self._pids())
        waited_most_s = max(
            (waited_s[task] - self._waited_s.get(task, 0.0) for task in waited_s), default=0.0
        )
        wall_s = now - self._looked_at
        self._passed_s += max(wall_s - waited_most_s, _MIN_SHARE * wall_s)
        self._looked_at, self._waited_s = now, waited_s
        return self._passed_s


def waited_for_cpu_s(pids: Iterable[int]) -> dict[str, float]:
    """How long each thread of these processes was ready to run but had no CPU, in all its life, by its name in /proc."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError, IndexError):
                    found[str(task)] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
