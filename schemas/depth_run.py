"""The config of the job that reads depth from videos."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.run import FetchLimits, check_output_scheme, named_uri


class ExtractDepthRun(BaseModel):
    """Everything `jobs.extract_depth` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {"videos": "URI", "depth_model": "URI", "output": "URI"}

    videos: str = Field(description="a video, or a folder or s3:// prefix of them")
    depth_model: str = Field(description="folder or s3:// URI of a transformers depth estimation model")
    output: str = Field(description="where NAME.npy of each NAME.mp4 goes: a local folder or s3:// prefix")
    invert: bool = Field(
        False, description="the model gives distances, larger farther away (default: larger is nearer)"
    )
    short_side: int = Field(
        384, ge=32, le=2048, description="larger videos are scaled down to it, and so is their depth; pixels"
    )
    batch_size: int = Field(8, ge=1, le=256, description="frames looked at together")
    limits: FetchLimits = FetchLimits()

    @field_validator("videos", "depth_model", "output")
    @classmethod
    def _named(cls, value: str) -> str:
        return named_uri(value)

    @field_validator("output")
    @classmethod
    def _writable(cls, value: str) -> str:
        check_output_scheme(value)
        return value
