"""The config of the training jobs: one set of fields, and what each stage adds."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.data_plan import Share
from schemas.run import FetchLimits, check_output_scheme, named_uri
from schemas.settings import FrameCount, PixelSize

Precision = Literal["auto", "float32", "bfloat16"]
Strategy = Literal["ddp", "fsdp"]
Schedule = Literal["cosine", "constant"]
Fusion = Literal["adaptive", "fixed", "append"]
Stage = Literal["base", "style", "temporal", "joint", "depth"]
PUBLISHED = "published"  # as `model` of a dry run: the published architecture, without weights
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# What may change from one start of a run to the next without changing what is trained.
FREE_FIELDS = frozenset(
    {
        "output",
        "checkpoint_every",
        "keep_checkpoints",
        "validate_every",
        "sample_every",
        "samples",
        "sample_steps",
        "log_every",
        "max_failures",
        "cpus_per_worker",
        "readers",
        "cpus_per_reader",
        "block_size",
        "cache_bytes",
        "dry_run",
        "limits",
    }
)


class TrainRun(BaseModel):
    """What every training stage needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: ClassVar[Stage]
    help_sections: ClassVar[dict[str, str]] = {
        "seed": "the run",
        "steps": "the optimisation",
        "image_batch": "what a micro-batch is",
        "min_snr_gamma": "the objective",
        "augment_references": "style",
        "new_adapter": "the adapter",
        "train_text_encoder": "the base",
        "new_depth_adapter": "the depth adapter",
        "workers": "how it is computed",
        "checkpoint_every": "what is written and when",
    }
    help_metavars: ClassVar[dict[str, str]] = {
        "data": "URI",
        "style_data": "URI",
        "validation_data": "URI",
        "model": "URI",
        "output": "URI",
    }

    data: str = Field(description="training manifest (uri, caption, style_id): a file, a folder or a glob")
    model: str = Field(
        description=f"model directory to start from; '{PUBLISHED}' with --dry-run: the published architecture"
    )
    output: str = Field(
        description="where model/, checkpoints and metrics go: a local folder or s3:// prefix"
    )
    validation_data: str | None = Field(
        None, description="manifest of the fixed validation set (default: rows of the training data)"
    )

    seed: int = Field(0, ge=0, lt=2**63, description="of new weights, sample order, augmentation and noise")
    dry_run: bool = Field(False, description="print parameter groups and a memory estimate; train nothing")

    steps: int = Field(1000, ge=1, description="optimiser steps")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="peak learning rate of AdamW")
    weight_decay: Weight = Field(1e-2, description="of AdamW")
    warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up")
    schedule: Schedule = Field("cosine", description="learning rate after the warm-up")
    max_grad_norm: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="gradients are clipped to this norm"
    )
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="of the averaged weights that are kept (0: the last weights)"
    )
    accumulation: int = Field(1, ge=1, le=1024, description="micro-batches per worker and optimiser step")

    image_batch: int = Field(4, ge=1, le=4096, description="images of an image micro-batch")
    video_batch: int = Field(1, ge=1, le=4096, description="videos of a video micro-batch")
    image_share: Share = Field(1.0, description="share of the micro-batches that hold images")
    height: PixelSize | None = Field(None, description="pixels (default: the model's)")
    width: PixelSize | None = Field(None, description="pixels (default: the model's)")
    num_frames: FrameCount | None = Field(None, description="frames of a video (default: the model's)")
    frame_stride: int = Field(1, ge=1, le=64, description="frames of the file from one frame to the next")

    min_snr_gamma: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="min-SNR weighting (default: none)"
    )
    noise_offset: Weight = Field(0.0, description="standard deviation of a channel's common noise")
    shared_noise: float = Field(
        0.0, ge=0, lt=1, description="share of the noise's variance that a clip's frames have in common"
    )
    high_noise_share: Share = Field(
        0.0, description="share of rows whose timestep is from the noisiest quarter"
    )
    drop_text: Share = Field(0.1, description="share of rows with the empty prompt")
    destyle_captions: bool = Field(True, description="remove phrases that name a style from captions")

    workers: int = Field(1, ge=1, le=10_000, description="training workers: one per GPU, or CPU processes")
    strategy: Strategy = Field("ddp", description="how several workers share the model")
    precision: Precision = Field("auto", description="auto: float32 on CPU, bfloat16 autocast on GPU")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    cpus_per_worker: float = Field(0, ge=0, le=1024, description="CPU cores a worker reserves (0: chosen)")
    readers: int = Field(1, ge=1, le=256, description="decoding processes of each worker")
    cpus_per_reader: float = Field(0.1, gt=0, le=64, description="CPU share that a reader reserves")
    block_size: int = Field(
        0,
        ge=0,
        le=1024,
        description="micro-batches that a reader makes at a time (0: chosen from their size)",
    )
    cache_bytes: int = Field(256 * 2**20, ge=0, description="decoded media that each reader keeps")
    max_failures: int = Field(3, ge=0, description="worker failures from which the run recovers by itself")

    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics")
    validate_every: int = Field(200, ge=1, description="steps between validation losses")
    validation_rows: int = Field(16, ge=0, le=10_000, description="rows of the validation set of each kind")
    sample_every: int = Field(0, ge=0, description="steps between sample grids (0: at the end only)")
    samples: int = Field(4, ge=0, le=64, description="rows of a sample grid (0: none)")
    sample_steps: int = Field(25, ge=1, le=1000, description="denoising steps of a sample")
    limits: FetchLimits = FetchLimits()

    @field_validator("data", "model", "output")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        return named_uri(value)

    @model_validator(mode="after")
    def _fits(self) -> "TrainRun":
        check_output_scheme(self.output)
        if self.model == PUBLISHED and not self.dry_run:
            raise ValueError(
                f"--model {PUBLISHED} is the architecture without weights; it needs --dry-run, or name a model directory"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps}: must be less than steps = {self.steps}, or nothing is trained "
                "at the full rate"
            )
        return self

    @property
    def manifests(self) -> tuple[str, ...]:
        """Where the rows come from."""
        return (self.data,)

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches of one optimiser step, over all workers."""
        return self.workers * self.accumulation

    def identity(self) -> dict[str, object]:
        """What a continued run must have in common with its beginning."""
        own = {"stage": self.stage, **self.model_dump(mode="json", exclude=set(FREE_FIELDS))}
        # Two workers with one micro-batch each make the same step as one worker with two.
        micro_batches = self.micro_batches_per_step
        del own["workers"], own["accumulation"]
        return own | {"micro_batches_per_step": micro_batches}


class TrainBaseRun(TrainRun):
    """Everything `jobs.train_base` needs to know."""

    stage: ClassVar[Stage] = "base"

    image_share: Share = Field(0.0, description="share of the micro-batches that hold images")
    train_text_encoder: bool = Field(False, description="the text encoder learns too")
    new_unet: bool = Field(False, description="begin with new weights instead of the model's")
    prediction_type: Literal["epsilon", "v_prediction"] | None = Field(
        None, description="what the UNet is to predict (default: the model's)"
    )


class TrainDepthRun(TrainRun):
    """Everything `jobs.train_depth` needs to know."""

    stage: ClassVar[Stage] = "depth"

    image_share: Share = Field(0.0, description="share of the micro-batches that hold images")
    new_depth_adapter: bool = Field(
        True, description="begin with a new depth adapter (off: go on with the model's)"
    )


class StyledRun(TrainRun):
    """What the stages with style references need besides."""

    drop_style: Share = Field(0.1, description="share of rows without style")
    augment_references: bool = Field(
        True, description="references are larger random crops of the picture (off: ablation)"
    )
    other_reference_share: Share = Field(
        0.0, description="share of references that are another picture of the same style_id"
    )


class AdapterRun(StyledRun):
    """What the stages that train the adapter need besides."""

    new_adapter: bool = Field(
        True,
        description="begin with a new adapter, style K/V copied from the text's (off: go on with the model's)",
    )
    fusion: Fusion = Field(
        "adaptive",
        description="how style is added: as published, without scale predictor, or as more text tokens",
    )
    scale_penalty: Weight = Field(0.0, description="weight of the squared fusion scales in the loss")

    @model_validator(mode="after")
    def _new_adapter_for_another_fusion(self) -> "AdapterRun":
        if self.fusion != "adaptive" and not self.new_adapter:
            raise ValueError(f"fusion = {self.fusion}: needs a new adapter, remove --no-new-adapter")
        if self.fusion != "adaptive" and self.scale_penalty:
            raise ValueError(
                f"scale_penalty = {self.scale_penalty:g}: only adaptive fusion predicts scales, remove it or "
                f"--fusion {self.fusion}"
            )
        return self


class TrainStyleRun(AdapterRun):
    """Everything `jobs.train_style` needs to know."""

    stage: ClassVar[Stage] = "style"

    @model_validator(mode="after")
    def _images_only(self) -> "TrainStyleRun":
        if self.image_share != 1:
            raise ValueError(f"image_share = {self.image_share:g}: stage 1 trains on images alone, must be 1")
        return self


class _MixedData(TrainRun):
    style_data: str = Field(description="training manifest of the styled pictures that are mixed in")
    image_share: Share = Field(0.2, description="share of the micro-batches that hold styled images")
    image_batch: int = Field(16, ge=1, le=4096, description="images of an image micro-batch")

    @property
    def manifests(self) -> tuple[str, ...]:
        return (self.data, self.style_data)


class TrainTemporalRun(_MixedData, StyledRun):
    """Everything `jobs.train_temporal` needs to know."""

    stage: ClassVar[Stage] = "temporal"


class TrainJointRun(_MixedData, AdapterRun):
    """Everything `jobs.train_joint` needs to know: both stages at once, an ablation of the paper."""

    stage: ClassVar[Stage] = "joint"
