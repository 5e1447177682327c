"""The optional check of what was rendered: a picture classifier that marks records."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class SafetySettings(BaseModel):
    """A safety check: records of videos that a classifier takes exception to are marked, none is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {"model": "URI", "labels": "NAME"}

    model: str | None = Field(
        None, description="folder or s3:// URI of a transformers image classifier (default: no check)"
    )
    labels: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("nsfw",), min_length=1, description="labels of the classifier that are unsafe"
    )
    threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="probability of such a label in any frame from which on a record is marked",
    )
