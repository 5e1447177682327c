"""Batches that may fail: halved until the failure is one row's own, and with memory saved where one does not fit."""

import logging
from collections.abc import Callable, Sequence

import torch

from actors.assets import RowAssets
from actors.device_errors import as_row_error, is_out_of_memory
from actors.renderer import RenderedVideo, Renderer, Saving
from actors.timeline import Timeline
from schemas.planned import Bucket, PlannedRow
from schemas.record import RowError

logger = logging.getLogger(__name__)


class BatchRenderer:
    """Not thread-safe: the actor holds its lock around the device.

    Args:
        end_if_device_broke: ends the process if an error means that nothing in it will succeed any more.
    """

    def __init__(
        self, renderer: Renderer, timeline: Timeline, end_if_device_broke: Callable[[Exception], None]
    ):
        self._renderer = renderer
        self._timeline = timeline
        self._end_if_device_broke = end_if_device_broke
        self._saving_of: dict[Bucket, Saving] = {}  # what was found to be needed

    def render(
        self, rows: Sequence[PlannedRow], assets: Sequence[RowAssets]
    ) -> list[RenderedVideo | RowError]:
        """One outcome per row of one bucket.

        A row that does not fit alone is tried with more and more done to save memory, and so are later ones
        like it.
        """
        if not rows:
            return []
        bucket = rows[0].bucket
        saving = self._saving_of.get(bucket, Saving.NONE)
        try:
            with self._renderer.saving_memory(saving):
                outcomes = self._renderer.render(rows, assets)
            self._timeline.rendered(rows, outcomes)
            return outcomes
        except Exception as error:  # noqa: BLE001 - ends as the rows' records
            self._end_if_device_broke(error)
            if len(rows) == 1 and (saving == max(Saving) or not is_out_of_memory(error)):
                return [as_row_error(error, rows[0])]
        # Outside the handler, so that the traceback no longer holds the failed batch's memory.
        if self._renderer.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(rows) == 1:
            self._saving_of[bucket] = Saving(saving + 1)
            logger.warning("a video of %s does not fit: trying with %s", bucket, Saving(saving + 1).name)
            return self.render(rows, assets)
        middle = len(rows) // 2
        return self.render(rows[:middle], assets[:middle]) + self.render(rows[middle:], assets[middle:])
