"""What a stream of training data is made of: everything but who reads which part of it."""

from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.run import FetchLimits, Seconds
from schemas.settings import FrameCount, PixelSize
from schemas.training import KINDS, Kind

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_SHARE_DENOMINATOR = 1_000_000
# A block costs Ray about 10 ms of CPU, a micro-batch of small clips 1 to 2 (`pipeline.train_data`).
_BLOCK_BYTES = 8 * 2**20
_MAX_BLOCK_SIZE = 16


class ReferencePixels(BaseModel):
    """How the model sees a reference: the arguments of its `StyleImageProcessor`.

    `ReferencePixels.model_validate(pipeline.feature_extractor, from_attributes=True)` copies a model's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)

    size: int = Field(224, ge=1, description="side of the vision tower's input, pixels")
    reference_size: int = Field(512, ge=1, description="side of the picture before that, pixels")
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


class DataPlan(BaseModel):
    """A stream of micro-batches, as a pure function of this and the micro-batch's index.

    Equal values of the first two groups, and equal data, give equal micro-batches; the third group may change
    from one start to the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # what is read
    manifests: tuple[str, ...] = Field(min_length=1, description="training manifests: files, folders, globs")
    seed: int = Field(0, ge=0, lt=2**63, description="of order and augmentation")
    limits: FetchLimits = FetchLimits()

    # what a micro-batch is
    image_batch: int = Field(1, ge=1, le=4096, description="samples of an image micro-batch")
    video_batch: int = Field(1, ge=1, le=4096, description="samples of a video micro-batch")
    image_share: Share = Field(1.0, description="share of the micro-batches that hold images")
    height: PixelSize = Field(description="of targets, pixels")
    width: PixelSize = Field(description="of targets, pixels")
    num_frames: FrameCount = Field(16, description="of a video sample")
    frame_stride: int = Field(1, ge=1, le=64, description="frames of the file from one frame to the next")
    references: bool = Field(True, description="samples have style references (the base stage needs none)")
    depth: bool = Field(False, description="samples have depth; rows without depth_uri cannot be used")
    reference_pixels: ReferencePixels = ReferencePixels()
    augment_references: bool = Field(
        True, description="references are larger random crops; false: they are cropped like the target"
    )
    other_reference_share: Share = Field(
        0.0, description="probability that the reference is another picture of the same style_id"
    )
    destyle_captions: bool = Field(False, description="remove phrases that name a style from captions")

    # how it is computed
    readers: int = Field(1, ge=1, le=256, description="processes that decode for one training worker")
    cpus_per_reader: float = Field(0.1, gt=0, le=64, description="CPU share that a reader reserves")
    block_size: int = Field(
        0,
        ge=0,
        le=1024,
        description="micro-batches that a reader makes at a time (0: chosen from their size)",
    )
    prefetch_blocks: int = Field(2, ge=1, le=64, description="blocks fetched ahead of the training worker")
    prefetch_bytes: int = Field(
        128 * 2**20, ge=2**20, description="object store memory that one worker's stream aims to stay below"
    )
    cache_bytes: int = Field(256 * 2**20, ge=0, description="decoded media that each reader keeps")
    start_timeout_s: Seconds = Field(300.0, description="longest time until the readers run")
    patience_s: float = Field(120.0, ge=0, description="outage of the storage that a run survives")

    @field_validator("manifests")
    @classmethod
    def _not_blank(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if blank := [uri for uri in value if not uri.strip()]:
            raise ValueError(f"{blank[0]!r} names no manifest")
        return value

    @model_validator(mode="after")
    def _ambiguous_switches(self) -> "DataPlan":
        if self.other_reference_share and not self.references:
            raise ValueError(
                f"other_reference_share = {self.other_reference_share} has no effect with references = false"
            )
        return self

    @property
    def exact_image_share(self) -> Fraction:
        """`image_share` as the decimal that was written: floats would let rounding move a micro-batch."""
        return Fraction(self.image_share).limit_denominator(_SHARE_DENOMINATOR)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the stream holds."""
        share = self.exact_image_share
        return tuple(kind for kind in KINDS if (share > 0 if kind == "image" else share < 1))

    @property
    def micro_batches_per_block(self) -> int:
        """`block_size`, else as many as amortise Ray's cost per block without holding much memory."""
        frame_bytes = self.height * self.width * 3
        reference_bytes = 3 * 4 * self.reference_pixels.size**2 if self.references else 0
        frame_bytes += frame_bytes if self.depth else 0
        images = self.image_batch * (frame_bytes + reference_bytes)
        videos = self.video_batch * (frame_bytes * self.num_frames + reference_bytes)
        largest = max(images if kind == "image" else videos for kind in self.kinds)
        return self.block_size or min(max(_BLOCK_BYTES // largest, 1), _MAX_BLOCK_SIZE)

    @property
    def cpus(self) -> float:
        """CPU share that one training worker's readers reserve beside the worker itself."""
        return self.readers * self.cpus_per_reader
