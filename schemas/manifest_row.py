"""What a manifest row may hold: the fields of a row and the values that each takes."""

import re
import unicodedata
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from schemas.settings import (
    ConditioningRate,
    DepthNormalization,
    FrameCount,
    FramesPerSecond,
    FrameWindow,
    GuidanceScale,
    Mode,
    PixelSize,
    Scheduler,
    Share,
    StepCount,
    StyleScale,
    StyleWeight,
)

MAX_PROMPT_CHARS = 4_096
MAX_URI_CHARS = 2_048
MAX_ROW_ID_CHARS = 256
MAX_REFERENCES = 16
# Tabs and line breaks are text; other control characters are accidents or tricks.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _no_control_characters(text: str) -> str:
    if found := _CONTROL_CHARACTER.search(text):
        raise ValueError(
            f"control character U+{ord(found[0]):04X} at position {found.start()} is not allowed"
        )
    return text


def nfc(text: str) -> str:
    """The form in which names are hashed, so that ids that look equal are equal. Not for URIs: a key is its bytes."""
    return unicodedata.normalize("NFC", text)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# Lengths are checked first, so that a text of a megabyte costs nothing more.
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS), AfterValidator(_no_control_characters)]
Uri = Annotated[
    str,
    Field(max_length=MAX_URI_CHARS),
    AfterValidator(_no_control_characters),
    AfterValidator(_not_blank),
]
RowId = Annotated[
    str,
    Field(max_length=MAX_ROW_ID_CHARS),
    AfterValidator(_no_control_characters),
    AfterValidator(_not_blank),
    AfterValidator(nfc),
]
References = Annotated[
    list[Uri], BeforeValidator(_one_as_list), Field(min_length=1, max_length=MAX_REFERENCES)
]
StyleWeights = Annotated[
    tuple[StyleWeight, ...],
    Field(min_length=1, max_length=MAX_REFERENCES),
]


class ManifestRow(BaseModel):
    """A row as the user wrote it; a field left out takes the run's, else the model's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[Prompt, AfterValidator(_not_blank)] = Field(description="what the video shows")
    style_image_uri: References = Field(description="the style: one URI or a list; several are one style")
    depth_video_uri: Uri | None = Field(
        None, description="depth to follow: a video, .npy, .npz, picture or folder of frames"
    )
    row_id: RowId | None = Field(None, description="the row's name (default: a hash of its content)")
    negative_prompt: Prompt | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        None, description="its noise (default: derived from the run's seed and the row)"
    )
    num_frames: FrameCount | None = None
    height: PixelSize | None = None
    width: PixelSize | None = None
    fps: FramesPerSecond | None = None
    num_inference_steps: StepCount | None = None
    text_guidance_scale: GuidanceScale | None = None
    style_guidance_scale: GuidanceScale | None = None
    style_scale: StyleScale | None = None
    num_samples: int = Field(1, ge=1, le=10_000, description="videos of this row, each with its own noise")
    priority: int = Field(0, ge=-(2**31), lt=2**31, description="higher first")
    mode: Mode | None = None
    style_weights: StyleWeights | None = Field(
        None, description="how much of each reference's style, one per reference"
    )
    style_mix: Share | None = Field(
        None, description="share of the second of two references, where these are mixed, not read together"
    )
    style_scale_structure: StyleScale | None = None
    style_scale_texture: StyleScale | None = None
    scheduler: Scheduler | None = None
    guidance_start: Share | None = None
    guidance_end: Share | None = None
    conditioning_fps: ConditioningRate | None = None
    depth_normalization: DepthNormalization | None = None
    frame_window: FrameWindow | None = None
    meta: str | None = Field(None, description="the meta_* columns as one JSON object")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        """A column of the wrong type must not become ones and zeros."""
        if bool in map(type, value if isinstance(value, list | tuple) else (value,)):
            raise ValueError("a truth value is not allowed here")
        return value

    @field_validator("style_weights")
    @classmethod
    def _one_weight_per_reference(
        cls, weights: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        """Weights of 1 are what a row without weights has, and must not be another video."""
        count = len(info.data.get("style_image_uri", weights or ()))
        if weights is not None and len(weights) != count:
            raise ValueError(f"must be one per reference, and there are {count}")
        if weights is not None and not any(weights):
            raise ValueError("at least one must be above 0")
        return None if weights is None or all(weight == 1 for weight in weights) else weights

    @field_validator("style_mix")
    @classmethod
    def _two_to_mix(cls, share: float | None, info: ValidationInfo) -> float | None:
        count = len(info.data.get("style_image_uri", "ab"))
        if share is not None and count != 2:
            raise ValueError(f"mixes exactly two references, and there are {count}")
        if share is not None and info.data.get("style_weights") is not None:
            raise ValueError("is not possible together with style_weights")
        return share
