"""What a fault does when its moment has come: mostly SIGKILL, to real processes."""

import os
import threading
import time
from pathlib import Path

from benchmarks.faults.fault import DIRECTORY_VARIABLE, Fault, FaultDirectory
from benchmarks.faults.processes import command_of, is_alive, kill, parent_of, processes_of

_HANG_S = 3600.0
_DECODER_WAIT_S = 30.0


def act(fault: Fault, directory: FaultDirectory) -> None:
    """Carries out a fault that was claimed; one whose victim is gone already did not happen."""
    if not _ACTIONS[fault.action.split()[0]](fault, directory):
        directory.unclaim(fault)


def _kill_driver(fault: Fault, directory: FaultDirectory) -> bool:
    pid = directory.read_pid("driver")
    return pid is not None and kill(pid)


def _kill_self(fault: Fault, directory: FaultDirectory) -> bool:
    return kill(os.getpid())


def _kill_node(fault: Fault, directory: FaultDirectory) -> bool:
    """The raylet that started this worker, unless it is the head's: with the head, all of Ray would go."""
    raylet = parent_of(os.getpid())
    if raylet is None or "raylet" not in command_of(raylet) or raylet == directory.read_pid("head"):
        return False
    return kill(raylet)


def _kill_ray(fault: Fault, directory: FaultDirectory) -> bool:
    """Everything that belongs to this life but its driver; this process last."""
    driver, me = directory.read_pid("driver"), os.getpid()
    victims = [pid for pid in processes_of(DIRECTORY_VARIABLE, str(directory.path)) if pid != driver]
    if driver is None or not is_alive(driver):
        return False
    hit = [kill(pid) for pid in victims]
    return kill(me) if me != driver else any(hit)


def _kill_decoder(fault: Fault, directory: FaultDirectory) -> bool:
    """The picture decoder of this process: the one that idles, else the one that is started next."""
    threading.Thread(target=_kill_next_decoder, args=(fault, directory), daemon=True).start()
    return True


def _kill_next_decoder(fault: Fault, directory: FaultDirectory) -> None:
    deadline = time.monotonic() + _DECODER_WAIT_S
    while time.monotonic() < deadline:
        for pid in _children(os.getpid()):
            if "decoder_process" in command_of(pid) and kill(pid):
                return
        time.sleep(0.001)
    directory.unclaim(fault)


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task")
    return [int(pid) for file in tasks.glob("*/children") for pid in file.read_text().split()]


def _hang(fault: Fault, directory: FaultDirectory) -> bool:
    time.sleep(_HANG_S)
    return True


def _rewrite(fault: Fault, directory: FaultDirectory) -> bool:
    """Puts another picture in a picture's place: the end of a PNG is not looked at, but is part of its content."""
    with Path(fault.action.split(maxsplit=1)[1]).open("ab") as file:
        file.write(os.urandom(16))
    return True


_ACTIONS = {
    "kill-driver": _kill_driver,
    "kill-self": _kill_self,
    "kill-node": _kill_node,
    "kill-ray": _kill_ray,
    "kill-decoder": _kill_decoder,
    "hang": _hang,
    "rewrite": _rewrite,
}
