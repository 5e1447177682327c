"""The configs of the jobs that look at what was rendered."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.run import RenderRun, check_output_scheme, named_uri


class ReportRun(BaseModel):
    """Everything `jobs.report` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {"output": "URI"}

    output: str = Field(description="the output of jobs.render: a local folder or s3:// prefix")
    max_rows: int = Field(
        10_000,
        ge=1,
        le=50_000,
        description="rows that the page lists; of more, the failed, slowest and worst scored, and an even choice",
    )

    @field_validator("output")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        return named_uri(value)

    @model_validator(mode="after")
    def _output_scheme(self) -> "ReportRun":
        check_output_scheme(self.output)
        return self


class EvaluateRun(RenderRun):
    """Everything `jobs.evaluate` needs to know: the render, if there is to be one, and how it is judged."""

    help_sections: ClassVar[dict[str, str]] = {
        "manifest": "what is evaluated",
        **RenderRun.help_sections,
        "finished": "how it is evaluated",
    }
    help_metavars: ClassVar[dict[str, str]] = {
        **RenderRun.help_metavars,
        "compare": "OUTPUT",
        "clip": "DIR",
        "dino": "DIR",
        "flow": "DIR",
    }

    manifest: str = Field(
        "", description="Parquet manifest of the test set, rendered first as jobs.render does"
    )
    model: str = Field("", description="model directory: a local path or s3:// URI")
    output: str = Field("", description="where it is rendered to, or was: a local folder or s3:// prefix")

    finished: bool = Field(False, description="evaluate what the output holds; render nothing")
    compare: tuple[str, ...] = Field(
        (), description="two evaluated outputs: the differences of the same rows, second minus first"
    )
    clip: str | None = Field(
        None,
        description="CLIP of all scores: a model directory of ours or of transformers, local or s3:// "
        "(default: the towers of the model that rendered; the paper: CLIP-ViT-H-14-laion2B-s32B-b79K)",
    )
    dino: str | None = Field(None, description="DINO directory of transformers, for DINO-Style")
    flow: str | None = Field(
        None, description="directory with RAFT as flow.pt2, for the warping error (docs/evaluation.md)"
    )
    resamples: int = Field(2_000, ge=100, le=100_000, description="bootstrap resamples of each interval")

    @model_validator(mode="after")
    def _one_task(self) -> "EvaluateRun":
        if self.compare:
            if len(self.compare) != 2:
                raise ValueError(f"--compare takes two outputs, not {len(self.compare)}")
            if self.manifest or self.output or self.finished:
                raise ValueError("--compare excludes --manifest, --output and --finished")
        elif not self.output:
            raise ValueError(
                "give --output with --manifest and --model, or with --finished, or --compare A B"
            )
        elif self.finished and self.manifest:
            raise ValueError("--finished renders nothing: it excludes --manifest")
        elif not self.finished and not (self.manifest and self.model):
            raise ValueError(
                "rendering needs --manifest and --model; for what is rendered already, --finished"
            )
        return self

    def render_run(self) -> RenderRun:
        """The render that comes first."""
        return RenderRun.model_validate(self.model_dump(include=set(RenderRun.model_fields)))


class StudyRun(BaseModel):
    """Everything `jobs.study` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {"study": "URI", "outputs": "OUTPUT", "collect": "VOTES.json"}

    study: str = Field(description="folder of the study: study.html for the raters, key.json for you")
    outputs: tuple[str, ...] = Field((), description="two or more outputs of jobs.render with the same rows")
    pairs: int = Field(40, ge=1, le=1000, description="pairs of videos that a rater sees")
    seed: int = Field(0, ge=0, lt=2**63, description="which rows are shown, and which run stands where")
    collect: tuple[str, ...] = Field((), description="the raters' votes: JSON files, or a folder of them")
    resamples: int = Field(2_000, ge=100, le=100_000, description="bootstrap resamples of each interval")

    @model_validator(mode="after")
    def _one_task(self) -> "StudyRun":
        check_output_scheme(self.study)
        if bool(self.outputs) == bool(self.collect):
            raise ValueError("give either --outputs, to make the study, or --collect, to count its votes")
        if self.outputs and (len(self.outputs) < 2 or len(set(self.outputs)) < len(self.outputs)):
            raise ValueError("--outputs takes two or more different outputs")
        return self


class ExportRun(BaseModel):
    """Everything `jobs.export` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {"output": "URI", "webdataset": "URI", "huggingface": "URI"}

    output: str = Field(description="the output of jobs.render: a local folder or s3:// prefix")
    webdataset: str | None = Field(None, description="write WebDataset shards (.tar) here: local or s3://")
    huggingface: str | None = Field(
        None,
        description="write a folder that load_dataset of Hugging Face datasets reads here: local or s3://",
    )
    shard_bytes: int = Field(2**30, ge=2**20, description="size at which a WebDataset shard is full")

    @model_validator(mode="after")
    def _one_target(self) -> "ExportRun":
        if (self.webdataset is None) == (self.huggingface is None):
            raise ValueError("give either --webdataset or --huggingface")
        check_output_scheme(self.webdataset or self.huggingface or "")
        return self
