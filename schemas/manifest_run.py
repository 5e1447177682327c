"""The config of the job that builds manifests."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.run import check_output_scheme


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
