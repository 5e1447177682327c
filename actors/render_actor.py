"""The GPU actor of the pool: work units in, records out. Frames stay in here."""

import logging
import os
import platform
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from actors import logs, metrics
from actors.actor_config import ActorConfig
from actors.assets import AssetLoader, RowAssets
from actors.attempts import AttemptLog, OwnAttempts
from actors.batch_renderer import BatchRenderer
from actors.commits import CommitStore
from actors.device_errors import as_row_error, is_device_broken
from actors.publisher import PublishedVideo, Publisher
from actors.records import Record, failed_record, finished_record, identity_comment
from actors.renderer import RenderedVideo, Renderer
from actors.safety import load_safety_checker
from actors.scorer import Scorer
from actors.storage import Storage
from actors.timeline import Timeline
from actors.watchdog import Deadline
from schemas.identity import media_suffix
from schemas.planned import PlannedRow, results_table, unit_rows
from schemas.record import TIMING_NAMES, ErrorClass, RowError
from schemas.run import InfrastructureError

logger = logging.getLogger(__name__)

_FETCH_THREADS = 4
_PUBLISH_THREADS = 2  # one video encodes while another uploads
_MAX_UNPUBLISHED_BATCHES = 3  # bounds the frames held in memory
_LAST_UPLOADS_S = 60.0  # what finished rows get to be committed in before their process ends itself


@dataclass
class _Job:
    """One row on its way through the actor, with what was found and made for it so far."""

    row: PlannedRow
    assets: RowAssets = field(default_factory=RowAssets)
    video: RenderedVideo | None = None
    published: PublishedVideo | None = None  # set early if an earlier run published but did not commit it
    scores: dict[str, Any] = field(default_factory=dict)
    error: RowError | None = None
    record: Record | None = None  # set early if a process that died committed the row
    timings: dict[str, float] = field(default_factory=dict)


class RenderActor:
    """Once per process: loads the model. Per unit: fetches, renders, scores, publishes and commits its rows.

    Two units may be in flight (two threads of one actor): a lock around the device lets one denoise while the
    other fetches; encoding and uploading run in threads of their own.
    """

    def __init__(self, config: ActorConfig):
        self._config = config
        self._exit: Callable[[int], object] = os._exit
        self._load_error: Exception | None = None
        try:
            self._load()
        except Exception as error:  # noqa: BLE001 - the first unit tells it
            # An actor that fails while it is made again after a death is lost to its pool, which waits for it.
            self._load_error = error

    def _load(self) -> None:
        config = self._config
        logs.start(config.log_format, config.provenance.run_id)
        torch.set_num_threads(config.threads)
        storage = Storage(config.limits, config.storage_patience_s)
        model_dir = storage.local_copy(config.model)
        self._node = platform.node()
        self._device_lock = threading.Lock()
        self._renderer = Renderer(
            model_dir, dtype=config.provenance.dtype, device=config.device, speed=config.speed
        )
        self._scorer = (
            Scorer(self._renderer.pipeline, config.provenance.model_fingerprint) if config.scores else None
        )
        self._safety = load_safety_checker(storage, config.safety, config.device)
        self._assets = AssetLoader(storage, config.limits)
        self._publisher = Publisher(storage, config.output)
        self._commits = CommitStore(storage, config.output)
        self._attempts = OwnAttempts(
            AttemptLog(storage, config.output),
            config.begun,
            {"run_id": config.provenance.run_id, "session": config.session, "alone": config.alone},
        )
        self._fetchers = metrics.QueuePool("fetch", _FETCH_THREADS)
        self._publishers = metrics.QueuePool("publish", _PUBLISH_THREADS)
        self._timeline = Timeline(storage, config)
        self._batches = BatchRenderer(self._renderer, self._timeline, self._end_if_device_broke)
        metrics.actor_is_ready(config.provenance.run_id)

    def __call__(self, units: pa.Table) -> pa.Table:
        """The outcome of each work unit (`UNIT_SCHEMA` in, `RESULT_SCHEMA` out), a failure of the whole run too."""
        return results_table(
            self._outcome(unit_id, unit_rows(rows))
            for unit_id, rows in zip(units["unit_id"].to_pylist(), units["rows"].to_pylist(), strict=True)
        )

    def _outcome(self, unit_id: int, rows: Sequence[PlannedRow]) -> dict[str, Any]:
        # As a value: Ray Data drops a unit that raises, as it drops those whose process died.
        try:
            records = list(self.render_rows(rows))
            return {"unit_id": unit_id, "records": records, "left": len(rows) - len(records)}
        except InfrastructureError as error:
            return {"unit_id": unit_id, "infrastructure_error": str(error)}
        except Exception:  # noqa: BLE001 - the driver raises it
            return {"unit_id": unit_id, "internal_error": traceback.format_exc()}

    def render_rows(self, rows: Sequence[PlannedRow]) -> Iterator[dict[str, Any]]:
        """The record of each row, once it is committed; of none that the run's time is over for.

        Raises:
            InfrastructureError: the output's store does not take what was rendered.
        """
        if self._load_error is not None:
            raise self._load_error
        if self._is_over():
            return
        if self._config.alone:
            self._attempts.begin(rows)  # before anything of theirs is touched
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
            self._timeline.save()

    def _is_over(self) -> bool:
        return time.time() >= self._config.stop_at

    def _fetch_all(self, rows: Sequence[PlannedRow]) -> list[Future[_Job]]:
        return [self._fetchers.submit(self._fetch, row) for row in rows]

    def _fetch(self, row: PlannedRow) -> _Job:
        started = time.perf_counter()
        job = _Job(row)
        try:
            job.record = self._committed(row)
            if job.record is not None:
                return job
            job.assets = RowAssets(
                [self._assets.style_image(asset) for asset in row.style_images],
                self._assets.depth_video(row.depth_video) if row.depth_video else None,
            )
            job.published = self._publisher.find(row.row_key, row.settings)
            if job.published is not None:
                job.video = RenderedVideo(self._publisher.read_frames(job.published))
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001 - ends as the row's record
            job.error = as_row_error(error, job.row)
        job.timings["fetch_s"] = time.perf_counter() - started
        self._timeline.ended([row], {"fetch_s": job.timings["fetch_s"]})
        return job

    def _committed(self, row: PlannedRow) -> Record | None:
        """The row's record, if a process of this run that died afterwards committed it."""
        if not self._config.again:
            return None
        return self._commits.read_of_run(row.record_id, row.row_key, self._config.provenance.run_id)

    def _render_batch(self, jobs: Sequence[_Job]) -> list[Future[Record]]:
        """Renders what needs rendering, scores, and hands all jobs to the publishing threads."""
        to_render = [job for job in jobs if (job.error, job.record, job.video) == (None, None, None)]
        # Held over both: else a finished video would wait for its scores until another unit has denoised.
        with self._device_lock, metrics.device_busy():
            if self._is_over():
                return []
            if not self._config.alone:
                self._attempts.begin([job.row for job in to_render])
            with Deadline(self._config.render_timeout_s, self._hung):
                outcomes = self._batches.render(
                    [job.row for job in to_render], [job.assets for job in to_render]
                )
                for job, outcome in zip(to_render, outcomes, strict=True):
                    if isinstance(outcome, RowError):
                        job.error = outcome
                    else:
                        job.video = outcome
                for job in jobs:
                    self._score(job)
                    self._check(job)
        return [self._publishers.submit(self._finish, job) for job in jobs]

    def _score(self, job: _Job) -> None:
        if self._scorer is None or job.video is None:
            return
        started = time.perf_counter()
        try:
            job.scores = self._scorer.score(
                job.video.frames_THWC, job.row.prompt, job.assets.images
            ).as_columns()
        except Exception as error:  # noqa: BLE001 - ends as the row's record
            self._end_if_device_broke(error)
            job.error = as_row_error(error, job.row)
        job.timings["score_s"] = time.perf_counter() - started
        self._timeline.ended([job.row], {"score_s": job.timings["score_s"]})

    def _check(self, job: _Job) -> None:
        if self._safety is None or job.video is None or job.error is not None:
            return
        try:
            job.scores |= self._safety.check(job.video.frames_THWC).as_columns()
        except Exception as error:  # noqa: BLE001 - ends as the row's record
            self._end_if_device_broke(error)
            job.error = as_row_error(error, job.row)

    def _finish(self, job: _Job) -> Record:
        """Publishes and commits one row; its failures become its record."""
        if job.record is not None:
            self._attempts.end(job.row)
            return job.record
        try:
            record = self._publish(job)
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001 - ends as the row's record
            record = failed_record(
                job.row, self._config.provenance, as_row_error(error, job.row), **self._place(job)
            )
        self._commits.write(record)
        self._attempts.end(job.row)
        return record

    def _publish(self, job: _Job) -> Record:
        if job.error is not None:
            raise job.error
        assert job.video is not None
        row, settings = job.row, job.row.settings
        video = job.published or self._publisher.publish(
            row.row_key,
            job.video.frames_THWC,
            fps=settings.fps,
            crf=settings.crf,
            suffix=media_suffix(settings.mode, settings.image_format),
            jpeg_quality=settings.jpeg_quality,
            comment=identity_comment(row, self._config.provenance),
        )
        published = {"encode_s": video.encode_s, "upload_s": video.upload_s}
        self._timeline.ended([row], published)
        timings = job.timings | job.video.timings | published
        return finished_record(
            row,
            self._config.provenance,
            video_uri=video.uri,
            sha256=video.sha256,
            size_bytes=video.size_bytes,
            duration_s=video.duration_s,
            style_image_sha256=[image.sha256 for image in job.assets.images],
            depth_video_sha256=job.assets.depth.sha256 if job.assets.depth else None,
            fusion_scales=job.video.fusion_scales,
            timings={name: timings.get(name) for name in TIMING_NAMES},
            **job.scores,
            **self._place(job),
        )

    def _place(self, job: _Job) -> dict[str, Any]:
        attempts = self._attempts.count(job.row)
        return {"node": self._node, "device": self._renderer.device_name, "attempts": attempts}

    def _end_if_device_broke(self, error: Exception) -> None:
        """Ends the process, which is replaced, if nothing in it will succeed any more."""
        if is_device_broken(error):
            first_line = str(error).strip().splitlines()[0]
            self._end_process(RowError(ErrorClass.DEVICE_FAILED, f"the device failed: {first_line}"))

    def _hung(self) -> None:
        allowed = f"{self._config.render_timeout_s:g} s allowed"
        message = f"the row's batch was on the device for more than the {allowed}"
        self._end_process(RowError(ErrorClass.RENDER_TIMEOUT, message))

    def _end_process(self, reason: RowError) -> None:
        """Ends this process as a crash would, but with what is finished committed and the reason told."""
        logger.error("this process ends: %s", reason.message)
        uploads = threading.Thread(target=self._publishers.shutdown, daemon=True)
        uploads.start()
        uploads.join(_LAST_UPLOADS_S)
        try:
            self._attempts.explain(reason)
        finally:
            self._exit(1)
