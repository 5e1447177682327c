"""The GPU actor of the pool: work units in, records out. Frames stay in here."""

import logging
import platform
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from actors.actor_config import ActorConfig
from actors.assets import AssetLoader, StyleImage
from actors.commits import CommitStore
from actors.publisher import PublishedVideo, Publisher
from actors.records import Record, failed_record, finished_record
from actors.renderer import RenderedVideo, Renderer
from actors.scorer import Scorer
from actors.storage import Storage
from schemas.planned import PlannedRow, unit_rows
from schemas.record import TIMING_NAMES, ErrorClass, RowError, records_table
from schemas.run import InfrastructureError

logger = logging.getLogger(__name__)

_FETCH_THREADS = 4
_PUBLISH_THREADS = 2  # one video encodes while another uploads
_MAX_UNPUBLISHED_BATCHES = 3  # bounds the frames held in memory


@dataclass
class _Job:
    """One row on its way through the actor, with what was found and made for it so far."""

    row: PlannedRow
    images: list[StyleImage] = field(default_factory=list)
    video: RenderedVideo | None = None
    published: PublishedVideo | None = None  # set early if an earlier run published but did not commit it
    scores: dict[str, Any] = field(default_factory=dict)
    error: RowError | None = None
    timings: dict[str, float] = field(default_factory=dict)


class RenderActor:
    """Once per process: loads the model. Per unit: fetches, renders, scores, publishes and commits its rows.

    Two units may be in flight (two threads of one actor): a lock around the device lets one denoise while the
    other fetches; encoding and uploading run in threads of their own.
    """

    def __init__(self, config: ActorConfig):
        torch.set_num_threads(config.threads)
        storage = Storage(config.limits)
        model_dir = storage.local_copy(config.model)
        self._config = config
        self._node = platform.node()
        self._device_lock = threading.Lock()
        self._renderer = Renderer(model_dir, dtype=config.provenance.dtype, device=config.device)
        self._scorer = (
            Scorer(self._renderer.pipeline, config.provenance.model_fingerprint) if config.scores else None
        )
        self._assets = AssetLoader(storage, config.limits)
        self._publisher = Publisher(storage, config.output)
        self._commits = CommitStore(storage, config.output)
        self._fetchers = ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="fetch")
        self._publishers = ThreadPoolExecutor(_PUBLISH_THREADS, thread_name_prefix="publish")

    def __call__(self, units: pa.Table) -> pa.Table:
        """The records of a batch of work units (`UNIT_SCHEMA` in, `RECORD_SCHEMA` out)."""
        rows = [row for rows in units["rows"].to_pylist() for row in unit_rows(rows)]
        return records_table(list(self.render_rows(rows)))

    def render_rows(self, rows: Sequence[PlannedRow]) -> Iterator[dict[str, Any]]:
        """The record of each row, once it is committed.

        Raises:
            InfrastructureError: the output's store does not take what was rendered.
        """
        size = self._config.batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        unpublished: deque[Future[Record]] = deque()
        fetching = self._fetch_all(batches[0])
        try:
            for following in [*batches[1:], []]:
                jobs = [future.result() for future in fetching]
                fetching = self._fetch_all(following)  # downloads while this batch denoises
                unpublished += self._render_batch(jobs)
                while len(unpublished) > _MAX_UNPUBLISHED_BATCHES * size:
                    yield unpublished.popleft().result()
            yield from (future.result() for future in unpublished)
        finally:
            # What is rendered gets its chance to be committed, also when the run is about to end.
            wait(unpublished)

    def _fetch_all(self, rows: Sequence[PlannedRow]) -> list[Future[_Job]]:
        return [self._fetchers.submit(self._fetch, row) for row in rows]

    def _fetch(self, row: PlannedRow) -> _Job:
        started = time.perf_counter()
        job = _Job(row)
        try:
            job.images = [self._assets.style_image(asset) for asset in row.style_images]
            job.published = self._publisher.find(row.row_key, row.settings)
            if job.published is not None:
                job.video = RenderedVideo(self._publisher.read_frames(job.published))
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001 - ends as the row's record
            job.error = _as_row_error(error)
        job.timings["fetch_s"] = time.perf_counter() - started
        return job

    def _render_batch(self, jobs: Sequence[_Job]) -> list[Future[Record]]:
        """Renders what needs rendering, scores, and hands all jobs to the publishing threads."""
        to_render = [job for job in jobs if job.error is None and job.video is None]
        # Held over both: else a finished video would wait for its scores until another unit has denoised.
        with self._device_lock:
            for job, outcome in zip(to_render, self._render(to_render), strict=True):
                if isinstance(outcome, RowError):
                    job.error = outcome
                else:
                    job.video = outcome
            for job in jobs:
                self._score(job)
        return [self._publishers.submit(self._finish, job) for job in jobs]

    def _render(self, jobs: Sequence[_Job]) -> list[RenderedVideo | RowError]:
        """Renders a batch. A batch that fails is halved until the failure is one row's own."""
        if not jobs:
            return []
        try:
            return self._renderer.render([job.row for job in jobs], [job.images for job in jobs])
        except Exception as error:  # noqa: BLE001 - ends as the rows' records
            if len(jobs) == 1:
                return [_as_row_error(error)]
        # Outside the handler, so that the traceback no longer holds the failed batch's memory.
        if self._config.device == "cuda":
            torch.cuda.empty_cache()
        middle = len(jobs) // 2
        return self._render(jobs[:middle]) + self._render(jobs[middle:])

    def _score(self, job: _Job) -> None:
        if self._scorer is None or job.video is None:
            return
        started = time.perf_counter()
        try:
            job.scores = self._scorer.score(job.video.frames_THWC, job.row.prompt, job.images).as_columns()
        except Exception as error:  # noqa: BLE001 - ends as the row's record
            job.error = _as_row_error(error)
        job.timings["score_s"] = time.perf_counter() - started

    def _finish(self, job: _Job) -> Record:
        """Publishes and commits one row; its failures become its record."""
        try:
            record = self._publish(job)
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001 - ends as the row's record
            record = failed_record(job.row, self._config.provenance, _as_row_error(error), **self._place())
        self._commits.write(record)
        return record

    def _publish(self, job: _Job) -> Record:
        if job.error is not None:
            raise job.error
        assert job.video is not None
        row, settings = job.row, job.row.settings
        video = job.published or self._publisher.publish(
            row.row_key, job.video.frames_THWC, fps=settings.fps, crf=settings.crf
        )
        timings = job.timings | job.video.timings | {"encode_s": video.encode_s, "upload_s": video.upload_s}
        return finished_record(
            row,
            self._config.provenance,
            video_uri=video.uri,
            sha256=video.sha256,
            size_bytes=video.size_bytes,
            duration_s=video.duration_s,
            style_image_sha256=[image.sha256 for image in job.images],
            fusion_scales=job.video.fusion_scales,
            timings={name: timings.get(name) for name in TIMING_NAMES},
            **job.scores,
            **self._place(),
        )

    def _place(self) -> dict[str, Any]:
        return {"node": self._node, "device": self._renderer.device_name}


def _as_row_error(error: Exception) -> RowError:
    """A failure inside one row's work as that row's error; the traceback goes to the worker's log."""
    if isinstance(error, RowError):
        return error
    logger.error("a row failed", exc_info=error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return RowError(ErrorClass.OUT_OF_MEMORY, f"out of memory with a batch of one: {error}")
    return RowError(ErrorClass.RENDER_FAILED, f"{type(error).__name__}: {error}")
