"""One run at a time writes to an output: who does holds `run/lease.json`, and shows that it lives by renewing it."""

import contextlib
import json
import os
import platform
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from actors.storage import ObjectNotFound, Storage, StorageError, join
from pipeline.interrupt import Interrupt
from schemas.run import InfrastructureError, UsageError

_BEAT_S = 15.0
_STALE_S = 90.0  # several beats, and more than clocks differ
_MAX_BYTES = 2**16

Holder = dict[str, Any]


class LeaseLost(InfrastructureError):  # noqa: N818 - what happened, as the user reads it
    """Another run has taken the output over, since this one showed no life for too long."""


class Lease:
    """`with Lease(storage, output, run_id): ...`: nobody else writes to the output meanwhile.

    The lease of a run that was killed is taken over at once on its own machine, else when its heartbeat is old. A
    run that finds its lease gone raises `LeaseLost` out of the block, wherever that is.

    Args:
        storage: an outage at the start is waited for as long as this one does; while the lease is held, only who
            needs the store for the run's work waits.

    Raises:
        UsageError: another run holds the output; names it.
    """

    def __init__(self, storage: Storage, output: str, run_id: str, beat_s: float = _BEAT_S):
        self._patient = storage
        self._storage = storage.without_patience()
        self._output = output
        self._beat_s = beat_s
        self._own: Holder = {"token": secrets.token_hex(16), "run_id": run_id, **_this_process()}
        self._interrupt = Interrupt()
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> None:
        uri = _uri(self._output)
        self._own["since"] = _now()
        if not self._patient.create(uri, self._body()):
            holder = _holder(self._patient, self._output)
            # It may be its own: created, the answer lost on its way, and tried again.
            if holder is not None and not self._is_own(holder) and not _is_gone(holder):
                raise _refusal(self._output, holder)
            self._patient.write_bytes(uri, self._body())
        holder = _holder(self._patient, self._output)
        if not self._is_own(holder):  # another one took it at the same time
            raise _refusal(self._output, holder or {})
        self._heart.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._heart.join()
        # A store that is down must not hide why the run ends; the lease grows stale by itself.
        with contextlib.suppress(StorageError):
            if self._is_own(_holder(self._storage, self._output)):
                self._storage.delete(_uri(self._output))
        self._interrupt.__exit__(kind, error, trace)

    def _beat(self) -> None:
        while not self._released.wait(self._beat_s):
            with contextlib.suppress(
                StorageError
            ):  # an outage: whoever waits for the store decides when it is too long
                holder = _holder(self._storage, self._output)
                if not self._is_own(holder):
                    self._interrupt.end(LeaseLost(_lost(self._output, holder)))
                    return
                self._storage.write_bytes(_uri(self._output), self._body())

    def _is_own(self, holder: Holder | None) -> bool:
        return holder is not None and holder.get("token") == self._own["token"]

    def _body(self) -> bytes:
        return json.dumps({**self._own, "heartbeat_at": _now()}, indent=1).encode()


def check_free(storage: Storage, output: str) -> None:
    """Refuses an output that another process's run is writing to.

    Raises:
        UsageError: names the run.
    """
    holder = _holder(storage, output)
    if holder is None or _is_gone(holder):
        return
    own = _this_process()
    if {name: holder.get(name) for name in own} != own:
        raise _refusal(output, holder)


def _uri(output: str) -> str:
    return join(output, "run", "lease.json")


def _holder(storage: Storage, output: str) -> Holder | None:
    """Who holds the output; None if nobody does, nothing for a lease that cannot be read."""
    try:
        holder = json.loads(storage.read_bytes(_uri(output), _MAX_BYTES))
    except ObjectNotFound:
        return None
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_gone(holder: Holder) -> bool:
    if holder.get("machine") == _machine():
        return _start_of(holder.get("pid")) != holder.get("process_start")
    try:
        silent = datetime.now(UTC) - datetime.fromisoformat(holder["heartbeat_at"])
    except (KeyError, TypeError, ValueError):
        return True
    return silent.total_seconds() > _STALE_S


def _refusal(output: str, holder: Holder) -> UsageError:
    return UsageError(
        f"output = {output!r}: another run is writing to it: {_named(holder)}, since {holder.get('since')}, last seen "
        f"{holder.get('heartbeat_at')}; wait for it or stop it (a run that was killed is forgotten after {_STALE_S:g} s)"
    )


def _lost(output: str, holder: Holder | None) -> str:
    by = f"it was taken over by {_named(holder)}" if holder else "its lease was removed"
    return f"this run no longer holds {output}: {by}; what is finished is kept"


def _named(holder: Holder) -> str:
    return f"run {holder.get('run_id')} on host {holder.get('host')}, pid {holder.get('pid')}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _this_process() -> Holder:
    pid = os.getpid()
    return {"host": platform.node(), "machine": _machine(), "pid": pid, "process_start": _start_of(pid)}


def _machine() -> str:
    """What tells this system and its process ids from every other, containers on one host too."""
    boot = pids = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {boot} {pids}"


def _start_of(pid: Any) -> str | None:
    """When a process of this machine began, in the kernel's own count; None if there is no such process."""
    try:
        state, *fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except (OSError, TypeError, ValueError):
        return None
    return None if state == "Z" else fields[18]  # a zombie has ended
