"""The config of each job: typed, frozen, validated at construction; the same from YAML, CLI and Python."""

from enum import IntEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.record import ErrorClass
from schemas.settings import (
    SETTING_NAMES,
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
        "mode": "what a video looks like (a manifest row's own value wins)",
        "actors": "how it is computed",
        "max_failed_fraction": "what is accepted and what it costs",
    }
    # What stands for the value in --help where its type says too little.
    help_metavars: ClassVar[dict[str, str]] = {
        "manifest": "URI",
        "model": "URI",
        "output": "URI",
        "run_id": "NAME",
        "price_per_gpu_hour": "DOLLARS",
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
        None, ge=0, allow_inf_nan=False, description="US dollars, for the plan's cost"
    )
    storage_patience_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="how long an outage of the object store is waited for, seconds; then the run ends, resumable",
    )
    limits: FetchLimits = FetchLimits()

    @field_validator("manifest", "model", "output")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        return named_uri(value)

    @model_validator(mode="after")
    def _output_scheme(self) -> "RenderRun":
        check_output_scheme(self.output)
        return self

    def setting_overrides(self) -> dict[str, object]:
        """The settings that this run gives to every row that does not bring its own."""
        given = self.model_dump(exclude_none=True)
        return {name: given[name] for name in SETTING_NAMES if name in given}


class RetryRun(BaseModel):
    """Everything `jobs.retry` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {"output": "URI", "row_id": "ID"}

    output: str = Field(
        description="the output of jobs.render whose rows are tried again; its config is used"
    )
    status: tuple[Literal["failed", "quarantined"], ...] = Field(
        ("failed", "quarantined"), min_length=1, description="statuses to try again"
    )
    error_class: tuple[ErrorClass, ...] = Field((), description="only rows that failed in these ways")
    row_id: tuple[str, ...] = Field((), description="only these rows")
    dry_run: bool = Field(False, description="only say which rows would be tried again")

    @field_validator("output")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        return named_uri(value)

    @model_validator(mode="after")
    def _output_scheme(self) -> "RetryRun":
        check_output_scheme(self.output)
        return self


class ReconcileRun(BaseModel):
    """Everything `jobs.reconcile` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_sections: ClassVar[dict[str, str]] = {"manifest": "what is compared, and what is done about it"}
    help_metavars: ClassVar[dict[str, str]] = {"output": "URI", "manifest": "URI"}

    output: str = Field(description="the output of jobs.render: a local folder or s3:// prefix")
    manifest: str | None = Field(None, description="Parquet manifest (default: that of the last run)")
    check: Literal["listing", "content", "decode"] = Field(
        "content",
        description="listing: names and sizes; content: every commit is read and every MP4 hashed; "
        "decode: every MP4 is decoded too",
    )
    repair: bool = Field(
        False,
        description="set damaged commits and MP4s aside below run/damaged/, so that the next run makes their rows "
        "again, and publish the records anew",
    )

    @field_validator("output")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        return named_uri(value)

    @model_validator(mode="after")
    def _output_scheme(self) -> "ReconcileRun":
        check_output_scheme(self.output)
        return self


class ManifestRun(BaseModel):
    """Everything `jobs.manifest` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    help_sections: ClassVar[dict[str, str]] = {
        "source": "either a list of rows",
        "prompts": "or every prompt with every style",
        "style_prefix": "for both",
    }
    help_metavars: ClassVar[dict[str, str]] = {
        "output": "M.parquet",
        "source": "FILE",
        "prompts": "FILE.txt",
        "styles": "DIR_OR_URI",
        "style_prefix": "URI",
    }

    output: str = Field(description="the manifest to write (an older one is replaced): local or s3://")
    source: str | None = Field(
        None,
        alias="from",
        description="a .csv, .jsonl or .json file with the manifest's columns, or the published evaluation JSON "
        "(prompt, style_path); in CSV several references stand in one cell, separated by ';'",
    )
    prompts: str | None = Field(None, description="one prompt a line")
    styles: str | None = Field(
        None, description="folder of style pictures; a subfolder is one style of several references"
    )
    style_prefix: str | None = Field(
        None,
        description="what relative style paths are relative to in the manifest, such as s3://bucket/styles "
        "(default: the folder that they were found in)",
    )
    limit: int | None = Field(None, ge=1, description="write only the first N rows")

    @model_validator(mode="after")
    def _one_source(self) -> "ManifestRun":
        if self.source is not None and (self.prompts is not None or self.styles is not None):
            raise ValueError("--from and --prompts with --styles exclude each other")
        if self.source is None and (self.prompts is None or self.styles is None):
            raise ValueError("give either --from, or both --prompts and --styles")
        return self

    @model_validator(mode="after")
    def _parquet_output(self) -> "ManifestRun":
        if not self.output.endswith(".parquet"):
            raise ValueError(f"--output {self.output!r}: must end in .parquet")
        check_output_scheme(self.output)
        return self
