"""The config of `jobs.train_manifest`."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.run import check_output_scheme, named_uri


class TrainManifestRun(BaseModel):
    """Everything `jobs.train_manifest` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_sections: ClassVar[dict[str, str]] = {"caption_from_name": "what is in a row"}
    help_metavars: ClassVar[dict[str, str]] = {"folder": "DIR_OR_URI", "output": "M.parquet"}

    folder: str = Field(description="pictures and videos, in subfolders too: a local folder or s3:// prefix")
    output: str = Field(
        description="the training manifest to write (an older one is replaced): local or s3://"
    )
    caption_from_name: bool = Field(
        False, description="a file that has no caption gets its name as caption: a_red_fox.png, 'a red fox'"
    )
    style_ids: Literal["from-folders", "none"] = Field(
        "from-folders",
        description="a file's style: the first subfolder that it lies in, if any, or none "
        "(a style_id in metadata.jsonl or metadata.csv comes first)",
    )
    destyle: bool = Field(
        False,
        description="remove phrases that name a style from captions now; the training jobs do it anyway, "
        "unless told otherwise",
    )

    @field_validator("folder")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        return named_uri(value)

    @model_validator(mode="after")
    def _usable_places(self) -> "TrainManifestRun":
        if not self.output.endswith(".parquet"):
            raise ValueError(f"--output {self.output!r}: must end in .parquet")
        check_output_scheme(self.output)
        return self
