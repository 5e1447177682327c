"""The config of each job: typed, frozen, validated at construction; the same from YAML, CLI and Python."""

from enum import IntEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.settings import (
    FrameCount,
    FramesPerSecond,
    GuidanceForm,
    GuidanceScale,
    Mode,
    PixelSize,
    StepCount,
    StyleScale,
)

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
INPUT_SCHEMES = ("file", "s3", "http", "https")
OUTPUT_SCHEMES = ("file", "s3")


class ExitCode(IntEnum):
    """What a job's exit status says; scripts depend on these."""

    DONE = 0
    DONE_WITH_FAILED_ROWS = 1
    USAGE = 2  # a wrong flag, a bad config, a refused plan
    INFRASTRUCTURE = 3  # storage down, no permission, a model that does not load, the circuit breaker
    STOPPED = 4  # stopped early on purpose, resumable
    INTERNAL = 70


class FetchLimits(BaseModel):
    """Bounds on what a manifest's URIs may cost or reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_schemes: tuple[Literal["file", "s3", "http", "https"], ...] = Field(
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


class RenderRun(BaseModel):
    """Everything `jobs.render` and `jobs.plan` need to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: str = Field(description="Parquet manifest: a file, a folder or a glob, local or s3://")
    model: str = Field(description="model directory: a local path or s3:// URI")
    output: str = Field(
        description="where videos, commits, records and run/ go: a local folder or s3:// prefix"
    )
    run_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="name of this run (default: dated)"
    )

    seed: int = Field(0, ge=0, lt=2**63, description="run seed; every row's seed is derived from it")
    limit: int | None = Field(None, ge=1, description="use only the first N manifest rows")
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
    render_epoch: int = Field(0, ge=0, description="raise it to render everything again")

    actors: int = Field(
        0, ge=0, le=10_000, description="render actors, one model each (0: one per GPU, else one)"
    )
    batch_size: int = Field(1, ge=1, le=64, description="videos denoised together")
    unit_rows: int = Field(0, ge=0, le=10_000, description="rows per work unit (0: chosen from cost)")
    cpus_per_actor: float = Field(
        0, ge=0, description="CPU cores an actor reserves (0: chosen from the machine)"
    )
    gpus_per_actor: float = Field(
        1, ge=0, le=1, description="GPU share an actor reserves where there is a GPU"
    )
    dtype: Dtype = Field("auto", description="auto: float32 on CPU, bfloat16 on GPU")
    scores: bool = Field(True, description="compute CLIP-Text, CLIP-Style and CLIP-Temp")
    max_failed_fraction: float = Field(
        0.0, ge=0, le=1, description="exit 0 while at most this share of rows failed"
    )
    price_per_gpu_hour: float | None = Field(None, ge=0, description="US dollars, for the plan's cost")
    limits: FetchLimits = FetchLimits()

    @field_validator("manifest", "model", "output")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value.rstrip("/") if len(value) > 1 else value

    @model_validator(mode="after")
    def _output_scheme(self) -> "RenderRun":
        scheme = self.output.split("://", 1)[0] if "://" in self.output else "file"
        if scheme not in OUTPUT_SCHEMES:
            raise ValueError(
                f"output = {self.output!r}: scheme {scheme!r} is not one of {', '.join(OUTPUT_SCHEMES)}"
            )
        return self

    def setting_overrides(self) -> dict[str, object]:
        """The settings that this run gives to every row that does not bring its own."""
        return self.model_dump(exclude_none=True)
