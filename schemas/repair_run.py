"""The configs of the jobs that put an output right: failed rows again, damage found and set aside."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.record import ErrorClass
from schemas.run import check_output_scheme, named_uri


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
