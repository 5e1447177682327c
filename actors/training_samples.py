"""Micro-batch indices to micro-batches: order, fetch, decode, crop, and what stands in for what cannot be read."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from PIL import Image

from actors.micro_batch import MicroBatch, to_table
from actors.storage import Storage
from actors.training_media import TrainingMedia
from actors.training_order import REFERENCE, TARGET, TrainingOrder
from actors.training_rows import TrainingRow, TrainingRows, read_training_rows
from schemas.data_plan import DataPlan
from schemas.record import RowError
from schemas.run import UsageError
from schemas.training import Kind
from stylecrafter.augment import REFERENCE_ENLARGEMENT, centre_crop, reference_crop
from stylecrafter.captions import remove_style_phrases

# Shapes: B samples, T frames, H, W pixels, C = 3 channels; uint8 RGB unless said otherwise.

logger = logging.getLogger(__name__)

# So many rows in a row that cannot be read are no accident of some files.
_MAX_TRIES = 32


@dataclass(frozen=True)
class _Sample:
    target_THWC: np.ndarray
    reference_HWC: np.ndarray | None  # already cropped
    caption: str
    depth_THWC: np.ndarray | None = None


class TrainingSamples:
    """Makes the micro-batches of a plan, any of them in any order. One per process; knows nothing of Ray.

    Images have style references. Videos have them only if every video of the manifests has a style_id: then
    it is styled video; else it is real video, which has no style to refer to (stage 2).

    What goes wrong with single rows is in `MicroBatch.problems`.
    """

    def __init__(self, plan: DataPlan):
        self._plan = plan
        self._storage = Storage(plan.limits, plan.patience_s)
        # Read with the first micro-batch: an actor whose constructor fails loses the reason.
        self._opened: tuple[TrainingRows, TrainingOrder, TrainingMedia] | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """The micro-batches of each row's range (`first`, `stop`, `step`), as `micro_batch.from_table` reads them."""
        ranges = (range(row["first"], row["stop"], row["step"]) for row in block.to_pylist())
        return to_table([self.micro_batch(index) for indices in ranges for index in indices])

    def micro_batch(self, index: int) -> MicroBatch:
        """One micro-batch.

        Raises:
            ManifestError: a manifest is broken, or has no usable row of a kind that the plan needs.
            UsageError: one row after the other cannot be read.
            InfrastructureError: the storage failed.
        """
        _, order, _ = self._open()
        kind = order.kind(index)
        positions_B = order.positions(index)
        problems: list[str] = []
        samples = [self._sample(kind, int(position), problems) for position in positions_B]
        return MicroBatch(
            index=index,
            kind=kind,
            positions_B=positions_B,
            target_BTHWC=np.stack([sample.target_THWC for sample in samples]),
            reference_B3HW=self._reference_pixels([sample.reference_HWC for sample in samples]),
            captions=[sample.caption for sample in samples],
            depth_BTHWC=(
                np.stack([sample.depth_THWC for sample in samples if sample.depth_THWC is not None])
                if self._plan.depth
                else None
            ),
            problems=problems,
        )

    def close(self) -> None:
        """Ends the picture decoder's process."""
        if self._opened is not None:
            self._opened[2].close()

    def _open(self) -> tuple[TrainingRows, TrainingOrder, TrainingMedia]:
        if self._opened is None:
            plan = self._plan
            rows = read_training_rows(self._storage, plan.manifests, needs_depth=plan.depth)
            check_kinds(plan, rows)
            sizes: dict[Kind, int] = {"image": plan.image_batch, "video": plan.video_batch}
            order = TrainingOrder(plan.seed, plan.exact_image_share, sizes, rows.counts)
            short_side = max(plan.height, plan.width)
            if plan.references and rows.all_videos_styled:
                short_side = max(
                    short_side, round(plan.reference_pixels.reference_size * REFERENCE_ENLARGEMENT)
                )
            media = TrainingMedia(self._storage, plan.limits, short_side, plan.cache_bytes)
            self._opened = rows, order, media
        return self._opened

    def _sample(self, kind: Kind, position: int, problems: list[str]) -> _Sample:
        """The sample of a position; what could not be read is told in `problems`."""
        rows, order, _ = self._open()
        failed: list[str] = []
        for index in islice(order.candidates(kind, position), _MAX_TRIES):
            try:
                sample = self._read(kind, index, position, failed)
            except RowError as error:
                failed.append(error.message)
                continue
            stand_in = rows.row(kind, index).uri
            problems += [
                f"{kind} at position {position}: {message}; {stand_in} is used" for message in failed
            ]
            return sample
        raise UsageError(
            f"{kind} at position {position}: none of {len(failed)} rows in a row can be read; the last: {failed[-1]}"
        )

    def _read(self, kind: Kind, index: int, position: int, failed: list[str]) -> _Sample:
        """One row as the sample of a position: the position alone decides the random numbers."""
        rows, order, _ = self._open()
        plan, row = self._plan, rows.row(kind, index)
        pixels_THWC = self._pixels(kind, row, position)
        caption = remove_style_phrases(row.caption) if plan.destyle_captions else row.caption
        reference_HWC = None
        if plan.references and (kind == "image" or rows.all_videos_styled):
            random = order.random(REFERENCE, kind, position)
            reference_HWC = self._reference(kind, index, pixels_THWC, random, failed)
        depth_THWC = None
        if plan.depth:
            depth_THWC = centre_crop(self._pixels(kind, row.depth_row(), position), plan.height, plan.width)
        return _Sample(centre_crop(pixels_THWC, plan.height, plan.width), reference_HWC, caption, depth_THWC)

    def _pixels(self, kind: Kind, row: TrainingRow, position: int) -> np.ndarray:
        """Frames of a picture, or of the window that the position gives: the same for a video and its depth."""
        _, order, media = self._open()
        if kind == "image":
            return media.picture(row)[None]
        random = order.random(TARGET, kind, position)
        return media.clip(row, self._plan.num_frames, self._plan.frame_stride, random)

    def _reference(
        self, kind: Kind, index: int, pixels_THWC: np.ndarray, random: np.random.Generator, failed: list[str]
    ) -> np.ndarray:
        # The same numbers are drawn whatever is switched on, so that ablations are paired.
        share, choice, frame = random.random(3)
        picture_HWC = None
        if share < self._plan.other_reference_share:
            picture_HWC = self._other_picture(kind, index, choice, frame, failed)
        if picture_HWC is None:
            picture_HWC = pixels_THWC[int(frame * len(pixels_THWC))]
        size = self._plan.reference_pixels.reference_size
        if self._plan.augment_references:
            return reference_crop(picture_HWC, size, random)
        return centre_crop(picture_HWC, size, size)

    def _other_picture(
        self, kind: Kind, index: int, choice: float, frame: float, failed: list[str]
    ) -> np.ndarray | None:
        """Another picture of the row's style, else a frame of another video of it, else none."""
        rows, _, media = self._open()
        wanted: Kind
        for wanted in ("image", "video"):
            others = rows.of_the_same_style(kind, index, wanted)
            if len(others):
                other: TrainingRow = rows.row(wanted, int(others[int(choice * len(others))]))
                try:
                    if wanted == "image":
                        return media.picture(other)
                    return media.frame(other, frame)
                except RowError as error:
                    failed.append(f"as reference: {error.message}")
                    return None
        return None

    def _reference_pixels(self, references: Sequence[np.ndarray | None]) -> np.ndarray | None:
        """References as the vision tower takes them, float32 [B, 3, H, W]."""
        found = [reference for reference in references if reference is not None]
        if not found:
            return None
        assert len(found) == len(references)
        import torch  # seconds to import, and not needed without references

        from stylecrafter.style_encoder import StyleImageProcessor

        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)  # the training workers need the others
        processor = StyleImageProcessor(**self._plan.reference_pixels.model_dump())
        return processor.style([Image.fromarray(reference) for reference in found]).numpy()


def check_kinds(plan: DataPlan, rows: TrainingRows) -> None:
    """Refuses a plan that needs a kind of which there is nothing.

    Raises:
        UsageError: names the share and what there is.
    """
    for kind in plan.kinds:
        if not rows.counts[kind]:
            there = ", ".join(f"{count} {name}s" for name, count in rows.counts.items())
            raise UsageError(
                f"image_share = {plan.image_share:g} needs {kind}s, but the manifests have {there} that can be used"
            )
