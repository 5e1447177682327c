"""Ray for a run: the cluster that RAY_ADDRESS names, or a local one that ends with the run."""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from pipeline.interrupt import Interrupt
from schemas.run import ExitCode, InfrastructureError

_VITAL = ("raylet", "gcs_server")
_WATCH_EVERY_S = 0.5
_LAST_WORD_S = 30.0  # less than Ray's 60 until it ends the process
_OBJECT_STORE_BYTES = 256 * 2**20  # units and records only: frames never enter the object store


def is_remote() -> bool:
    """Whether RAY_ADDRESS names a cluster (`ray job submit` sets it for the job)."""
    return os.environ.get("RAY_ADDRESS", "local") != "local"


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray for the length of a run: the cluster of RAY_ADDRESS, else a local one that ends with the run."""
    if ray.is_initialized():
        yield
        return
    # Ray Data would start 32 processes to read the footers of our few files of work units.
    os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")
    with _own_sigterm():
        try:
            _start_ray()
        except Exception as error:  # of no one type; on a busy machine it gives up after 30 s
            raise InfrastructureError(f"Ray does not start: {error}") from error
    with _ended_with_ray():
        yield


def session_name() -> str:
    """Which start of Ray this is; empty outside Ray."""
    return ray.get_runtime_context().get_session_name() if ray.is_initialized() else ""


def living_nodes() -> set[str]:
    """The ids of the cluster's nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@contextmanager
def _ended_with_ray() -> Iterator[None]:
    """Shuts Ray down at the end, and raises as soon as this machine's Ray dies.

    Ray itself would wait a minute, then end our process with 1, which here means a finished run. Where the main thread
    is inside Ray and cannot be interrupted, the process is ended before that.
    """
    node: Any = ray._private.worker._global_node
    block_ended, shut_down = threading.Event(), threading.Event()

    def watch(interrupt: Interrupt) -> None:
        while not block_ended.wait(_WATCH_EVERY_S):
            if dead := [kind for kind, _ in node.dead_processes() if kind in _VITAL]:
                why = f"Ray's {dead[0]} has died; what is finished is kept, and the same command continues"
                interrupt.end(InfrastructureError(why))
                if not shut_down.wait(_LAST_WORD_S):
                    print(f"infrastructure error: {why}", file=sys.stderr, flush=True)
                    os._exit(ExitCode.INFRASTRUCTURE)
                return

    with Interrupt() as interrupt:
        if node is not None and not is_remote():
            threading.Thread(target=watch, args=[interrupt], name="ray-watch", daemon=True).start()
        try:
            yield
        finally:
            block_ended.set()
            ray.shutdown()
            shut_down.set()


def _start_ray() -> None:
    if is_remote():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        # Ray's C++ core writes hints for its own developers to our stderr, even that its level was set.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # On a CPU that is shared, OpenMP threads that spin while they wait cost up to ten times the work itself.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Ray's own processes would take the cores from its workers, which it runs at nice 15.
        os.environ.setdefault("RAY_worker_niceness", "0")
        with _stderr_shown_on_failure():
            ray.init(
                address="local",
                num_cpus=local_cpus(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
            )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """The job's handler of SIGTERM stays: Ray's own would end the process before the job can say how it ended."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        # Ray's own, which is there while Ray starts. (A blocked signal would stay blocked in Ray's processes.)
        if error.code == signal.SIGTERM and callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def local_cpus() -> int:
    """The CPUs that this process may use; Ray gets at least two, so that reading goes on beside one actor."""
    return max(2, len(os.sched_getaffinity(0)))


@contextmanager
def _stderr_shown_on_failure() -> Iterator[None]:
    """Keeps what native code writes to stderr, and shows it only if the block fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
