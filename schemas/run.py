"""What every job's config stands on, and the config of a render: typed, frozen, validated at construction."""

from enum import IntEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from schemas.presets import PRESETS, Preset
from schemas.safety import SafetySettings
from schemas.settings import (
    SETTING_NAMES,
    ConditioningRate,
    DepthNormalization,
    FrameCount,
    FramesPerSecond,
    FrameWindow,
    GuidanceForm,
    GuidanceScale,
    ImageFormat,
    JpegQuality,
    Mode,
    PixelSize,
    Scheduler,
    Share,
    StepCount,
    StyleScale,
)
from schemas.speed import SpeedSettings
from schemas.sweep import Sweep

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
InputScheme = Literal["file", "s3", "http", "https"]
INPUT_SCHEMES: tuple[InputScheme, ...] = ("file", "s3", "http", "https")
OUTPUT_SCHEMES = ("file", "s3")


class ExitCode(IntEnum):
    """What a job's exit status says; scripts depend on these."""

    DONE = 0
    DONE_WITH_FAILED_ROWS = 1
    USAGE = 2  # a wrong flag, a bad config, a refused plan
    INFRASTRUCTURE = 3  # storage down, no permission, a model that does not load, the circuit breaker
    STOPPED = 4  # stopped early on purpose, resumable
    INTERNAL = 70


class UsageError(ValueError):
    """What was asked cannot be done as asked (a wrong value, a refused plan): exit code 2."""


class InfrastructureError(RuntimeError):
    """What the run stands on failed (storage, network, permissions, hardware): exit code 3."""


class FetchLimits(BaseModel):
    """Bounds on what a manifest's URIs may cost or reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_schemes: tuple[InputScheme, ...] = Field(
        INPUT_SCHEMES, description="URI schemes that manifest rows may use"
    )
    input_roots: tuple[str, ...] = Field(
        (),
        description="URI prefixes that manifest rows may read; none given: any, except private http addresses",
    )
    fetch_timeout_s: Seconds = Field(60.0, description="longest time one asset may take to download")
    fetch_retries: int = Field(4, ge=0, le=20, description="retries of a transient storage error")
    max_image_bytes: int = Field(64 * 2**20, ge=1, description="largest style image file")
    max_image_pixels: int = Field(64_000_000, ge=1, description="largest decoded style image")
    decode_timeout_s: Seconds = Field(20.0, description="longest time one decode may take")
    decode_memory_bytes: int = Field(2 * 2**30, ge=2**28, description="memory of the decoding subprocess")
    max_video_bytes: int = Field(512 * 2**20, ge=1, description="largest video file, or folder of frames")
    max_video_pixels: int = Field(8192 * 4320, ge=1, description="largest frame of a video")
    max_video_frames: int = Field(
        1024,
        ge=1,
        description="frames of a video decoded at once; of a longer training clip only the window is",
    )
    video_timeout_s: Seconds = Field(60.0, description="longest time a video may take to decode")


def check_output_scheme(output: str) -> None:
    """Refuses an output that nothing can be written to.

    Raises:
        ValueError: names the scheme and what is allowed.
    """
    scheme = output.split("://", 1)[0] if "://" in output else "file"
    if scheme not in OUTPUT_SCHEMES:
        raise ValueError(f"output = {output!r}: scheme {scheme!r} is not one of {', '.join(OUTPUT_SCHEMES)}")


def named_uri(value: str) -> str:
    """A URI or path without its last slash.

    Raises:
        ValueError: it is blank, or names no bucket or folder.
    """
    if not value.strip():
        raise ValueError("must not be empty")
    if value.split("://", 1)[-1].strip("/") == "" and value != "/":
        raise ValueError(f"{value!r} names no bucket or folder")
    return value.rstrip("/") or value


class RenderRun(BaseModel):
    """Everything `jobs.render` and `jobs.plan` need to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # The first field of each group of options in --help, and the group's title.
    help_sections: ClassVar[dict[str, str]] = {
        "run_id": "the run",
        "preset": "what a video looks like (a manifest row's own value wins)",
        "actors": "how it is computed",
        "max_failed_fraction": "what is accepted and what it costs",
        "log_format": "what is told of it",
    }
    # What stands for the value in --help where its type says too little.
    help_metavars: ClassVar[dict[str, str]] = {
        "manifest": "URI",
        "model": "URI",
        "output": "URI",
        "run_id": "NAME",
        "price_per_gpu_hour": "DOLLARS",
        "max_cost": "DOLLARS",
        "max_hours": "HOURS",
        "stop_at": "TIME",
    }

    manifest: str = Field(description="Parquet manifest: a file, a folder or a glob, local or s3://")
    model: str = Field(description="model directory: a local path or s3:// URI")
    output: str = Field(
        description="where videos, commits, records and run/ go: a local folder or s3:// prefix"
    )
    run_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="name of this run (default: dated)"
    )

    seed: int = Field(0, ge=0, lt=2**63, description="run seed; every row's seed is derived from it")
    limit: int | None = Field(None, ge=1, description="use only the first N manifest rows")
    preset: Preset = Field(
        "quality",
        description="quality: as the model's own settings say; fast: fewer steps of another sampler, less guidance; "
        "a flag of its own wins",
    )
    mode: Mode | None = Field(None, description="video or image (default: the model's)")
    num_frames: FrameCount | None = Field(None, description="frames per video (default: the model's)")
    height: PixelSize | None = Field(None, description="pixels (default: the model's)")
    width: PixelSize | None = Field(None, description="pixels (default: the model's)")
    fps: FramesPerSecond | None = Field(
        None, description="frames per second of the MP4 (default: the model's)"
    )
    num_inference_steps: StepCount | None = Field(None, description="denoising steps (default: the model's)")
    text_guidance_scale: GuidanceScale | None = Field(
        None, description="text guidance (default: the model's)"
    )
    style_guidance_scale: GuidanceScale | None = Field(
        None, description="style guidance (default: the model's)"
    )
    style_scale: StyleScale | None = Field(
        None, description="weight of the style attention (default: the model's)"
    )
    negative_prompt: str | None = Field(None, max_length=4096, description="text of the unconditional branch")
    guidance: GuidanceForm | None = Field(
        None, description="guidance formula: the published code's or the paper's"
    )
    eta: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="DDIM eta (default: the model's)"
    )
    crf: Annotated[int, Field(ge=0, le=51)] | None = Field(None, description="H.264 quality, lower is better")
    style_scale_structure: StyleScale | None = Field(
        None, description="factor of style_scale in the coarse layers, which decide shapes"
    )
    style_scale_texture: StyleScale | None = Field(
        None, description="factor of style_scale in all other layers"
    )
    scheduler: Scheduler | None = Field(None, description="sampler (default: the model's, else ddim)")
    guidance_start: Share | None = Field(
        None, description="share of the steps from which on there is guidance"
    )
    guidance_end: Share | None = Field(None, description="share of the steps up to which there is guidance")
    conditioning_fps: ConditioningRate | None = Field(
        None, description="frame rate that the motion is meant for, of models with fps embedding"
    )
    depth_normalization: DepthNormalization | None = Field(
        None, description="minimum and maximum of a depth video: over the clip, or of each frame as published"
    )
    frame_window: FrameWindow | None = Field(
        None, description="frames that the temporal layers see at a time, for videos longer than trained"
    )
    image_format: ImageFormat | None = Field(
        None, description="of image mode (default: the model's, else png)"
    )
    jpeg_quality: JpegQuality | None = Field(
        None, description="of JPEG images, higher is better (default: 95)"
    )
    render_epoch: int = Field(0, ge=0, description="raise it to render everything again")

    actors: int = Field(
        0,
        ge=0,
        le=10_000,
        description="render actors, one model each (0: one per GPU; without one per CPU core, at most 4)",
    )
    batch_size: int = Field(1, ge=1, le=64, description="videos denoised together")
    unit_rows: int = Field(0, ge=0, le=10_000, description="rows per work unit (0: chosen from cost)")
    cpus_per_actor: float = Field(
        0, ge=0, le=1024, description="CPU cores an actor reserves (0: chosen from the machine)"
    )
    gpus_per_actor: float = Field(
        1, ge=0, le=1, description="GPU share an actor reserves where there is a GPU"
    )
    wait_for_gpus: int = Field(
        0,
        ge=0,
        le=10_000,
        description="GPUs that a cluster which starts nodes on demand is asked for before anything is rendered",
    )
    wait_for_gpus_s: Seconds = Field(
        1800.0,
        description="longest time that they are waited for; then those that came are used, with none the run ends",
    )
    dtype: Dtype = Field("auto", description="auto: float32 on CPU, bfloat16 on GPU")
    render_timeout_s: Seconds | None = Field(
        None,
        description="longest time that one batch may take on its device; then its process is replaced "
        "(default: 20 times the plan's estimate, at least 1800)",
    )
    scores: bool = Field(True, description="compute CLIP-Text, CLIP-Style and CLIP-Temp")
    max_failed_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="exit 0 while at most this share of rows failed; from 0.5 on, as many may also fail in one way",
    )
    price_per_gpu_hour: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="US dollars, for the plan's cost and what is spent; without GPUs, of an actor",
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="US dollars that this run may spend; then it ends, resumable (exit code 4)",
    )
    max_hours: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="hours that this run may go on; then it ends, resumable"
    )
    stop_at: AwareDatetime | None = Field(
        None, description="when it ends, resumable: date and time with offset, 2026-03-01T06:00+01:00"
    )
    storage_patience_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="how long an outage of the object store is waited for, seconds; then the run ends, resumable",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="json: all that is said is one JSON object a line on stderr"
    )
    profile: bool = Field(
        False, description="write a timeline of each actor to _profile/ in the output; it opens in Perfetto"
    )
    limits: FetchLimits = FetchLimits()
    speed: SpeedSettings = Field(SpeedSettings(), validate_default=True)
    safety: SafetySettings = SafetySettings()
    sweep: Sweep = Sweep()

    @field_validator("manifest", "model", "output")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        return named_uri(value)

    @field_validator("speed", mode="before")
    @classmethod
    def _speed_of_preset(cls, given: Any, info: ValidationInfo) -> Any:
        own = given.model_dump(exclude_unset=True) if isinstance(given, SpeedSettings) else given
        preset = info.data.get("preset")
        return {**PRESETS[preset].speed, **own} if preset and isinstance(own, dict) else given

    @model_validator(mode="after")
    def _output_scheme(self) -> "RenderRun":
        check_output_scheme(self.output)
        return self

    @model_validator(mode="after")
    def _priced(self) -> "RenderRun":
        if self.max_cost is not None and not self.price_per_gpu_hour:
            raise ValueError(f"max_cost = {self.max_cost:g}: give --price-per-gpu-hour, above 0, too")
        return self

    @model_validator(mode="after")
    def _gpus_are_used(self) -> "RenderRun":
        if self.wait_for_gpus and not self.gpus_per_actor:
            raise ValueError(f"wait_for_gpus = {self.wait_for_gpus}: with gpus_per_actor = 0 none is used")
        return self

    @model_validator(mode="after")
    def _swept_or_set(self) -> "RenderRun":
        for name in self._own_settings().keys() & self.sweep.axes:
            raise ValueError(f"{name} = {getattr(self, name)}: it is in sweep too; give one of the two")
        return self

    def setting_overrides(self) -> dict[str, object]:
        """The settings that this run, else its preset, gives to every row that does not bring its own."""
        return {**PRESETS[self.preset].settings, **self._own_settings()}

    def with_preset(self) -> "RenderRun":
        """The same run with its preset written out, so that other presets some day change no finished run."""
        given = self.setting_overrides().items()
        return self.model_copy(update={name: value for name, value in given if name not in self.sweep.axes})

    def _own_settings(self) -> dict[str, object]:
        given = self.model_dump(exclude_none=True)
        return {name: given[name] for name in SETTING_NAMES if name in given}
