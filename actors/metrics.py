"""Every metric of ours on Ray's Prometheus endpoint, where its name has the prefix `ray_`.

What finished rows took is counted by the driver, from the records: an actor that dies takes nothing uncounted with
it. Actors count what only they can see. Outside Ray all of this does nothing. Ray rebuilds a histogram's `_sum` from
its buckets: exact seconds are in the counters, the histogram is for quantiles.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from schemas.record import TIMING_NAMES

_BUCKETS_S = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]

ROWS = Counter("stylecrafter_rows_total", "Rows whose record came back from an actor.", ("run_id", "status"))
STAGE_SECONDS = Counter("stylecrafter_stage_seconds_total", "Seconds per stage.", ("run_id", "stage"))
STAGE_DURATION = Histogram(
    "stylecrafter_stage_duration_seconds", "Seconds of one row in a stage.", _BUCKETS_S, ("run_id", "stage")
)
VIDEO_BYTES = Counter("stylecrafter_video_bytes_total", "Bytes of the MP4s of finished rows.", ("run_id",))
QUEUE_ROWS = Gauge(
    "stylecrafter_queue_rows",
    "Rows that are not through: render (of the run), fetch and publish (of one actor).",
    ("run_id", "queue"),
)
ACTORS = Gauge("stylecrafter_actors", "Render actors with a model loaded.", ("run_id",))
DEVICE_BUSY = Counter(
    "stylecrafter_device_busy_seconds_total", "Seconds that actors rendered or scored.", ("run_id",)
)
CACHE_REQUESTS = Counter(
    "stylecrafter_cache_requests_total", "Requests to the caches of actors.", ("run_id", "cache", "result")
)
METRICS = (
    ROWS,
    STAGE_SECONDS,
    STAGE_DURATION,
    VIDEO_BYTES,
    QUEUE_ROWS,
    ACTORS,
    DEVICE_BUSY,
    CACHE_REQUESTS,
)


def count_for(run_id: str) -> None:
    """From here on this process counts for that run."""
    for metric in METRICS:
        metric.set_default_tags({"run_id": run_id})


count_for("")


def actor_is_ready(run_id: str) -> None:
    """This process has a model loaded and renders for that run."""
    count_for(run_id)
    ACTORS.set(1)


def row_finished(record: dict[str, Any]) -> None:
    """A row's outcome, and what it took."""
    ROWS.inc(tags={"status": str(record["status"])})
    for name in TIMING_NAMES:
        if seconds := (record["timings"] or {}).get(name):
            stage = {"stage": name.removesuffix("_s")}
            STAGE_SECONDS.inc(seconds, stage)
            STAGE_DURATION.observe(seconds, stage)
    if size_bytes := record["size_bytes"]:
        VIDEO_BYTES.inc(size_bytes)


def in_queue(queue: str, rows: int) -> None:
    """How many rows are in a queue now."""
    QUEUE_ROWS.set(rows, {"queue": queue})


def cache_request(cache: str, *, hit: bool) -> None:
    """Somebody asked a cache for something that was, or was not, in it."""
    CACHE_REQUESTS.inc(tags={"cache": cache, "result": "hit" if hit else "miss"})


@contextmanager
def device_busy() -> Iterator[None]:
    """The device of this actor works in the block."""
    started = time.perf_counter()
    try:
        yield
    finally:
        DEVICE_BUSY.inc(time.perf_counter() - started)


class QueuePool(ThreadPoolExecutor):
    """Threads for rows; how many rows wait for them or are with them is the queue `name`."""

    def __init__(self, name: str, threads: int):
        super().__init__(threads, thread_name_prefix=name)
        self._name = name
        self._open = set[Future[Any]]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._open.add(future)
        in_queue(self._name, len(self._open))
        future.add_done_callback(self._done)
        return future

    def _done(self, future: Future[Any]) -> None:
        self._open.discard(future)
        in_queue(self._name, len(self._open))
