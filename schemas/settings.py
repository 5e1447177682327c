"""What shapes one video besides its prompt and references: the settings, resolved to concrete values."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["video", "image"]
GuidanceForm = Literal["published", "paper"]
Scheduler = Literal["ddim", "dpm++", "unipc", "euler", "lcm"]
DepthNormalization = Literal["clip", "frame"]
ImageFormat = Literal["png", "jpeg"]

# Bounds that no sensible render exceeds; they keep a typo from asking for a terabyte of latents.
FrameCount = Annotated[int, Field(ge=1, le=512)]
PixelSize = Annotated[int, Field(ge=16, le=4096)]
FrameWindow = Annotated[int, Field(ge=2, le=512)]
FramesPerSecond = Annotated[int, Field(ge=1, le=120)]
StepCount = Annotated[int, Field(ge=1, le=1000)]
GuidanceScale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
StyleScale = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
StyleWeight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
JpegQuality = Annotated[int, Field(ge=1, le=100)]
ConditioningRate = Annotated[float, Field(gt=0, le=240, allow_inf_nan=False)]


class RenderSettings(BaseModel):
    """Settings of one video. The defaults are the published ones and frozen: row keys leave them out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "video"
    num_frames: FrameCount = 16
    height: PixelSize = 320
    width: PixelSize = 512
    fps: FramesPerSecond = 10
    num_inference_steps: StepCount = 50
    text_guidance_scale: GuidanceScale = 15.0
    style_guidance_scale: GuidanceScale = 7.5
    style_scale: StyleScale = 1.0
    negative_prompt: str = ""
    eta: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    guidance: GuidanceForm = "published"
    crf: Annotated[int, Field(ge=0, le=51)] = 10
    # Since then; each default means what was done before there was the setting.
    style_weights: tuple[StyleWeight, ...] | None = None  # one per reference; None: all 1
    style_mix: Share | None = (
        None  # of the second of two references, mixed with the first; None: read together
    )
    style_scale_structure: StyleScale = 1.0  # factors of style_scale by group of layers
    style_scale_texture: StyleScale = 1.0
    scheduler: Scheduler = "ddim"
    guidance_start: Share = 0.0  # share of the steps at which guidance begins and ends
    guidance_end: Share = 1.0
    conditioning_fps: ConditioningRate | None = None  # of models with fps embedding; None: the model's own
    depth_normalization: DepthNormalization = "clip"
    image_format: ImageFormat = "png"  # of what image mode writes
    jpeg_quality: JpegQuality = 95
    frame_window: FrameWindow | None = None  # of the temporal layers, in longer videos; None: all frames

    def changed_from_v1(self) -> dict[str, Any]:
        """The settings that differ from the frozen v1 defaults."""
        defaults = _defaults(type(self))
        # By its dictionary: iterating over a model takes five times as long, and a plan does it once a row.
        return {name: value for name, value in self.__dict__.items() if value != defaults[name]}


@lru_cache
def _defaults(settings: type[RenderSettings]) -> dict[str, Any]:
    return {name: field.default for name, field in settings.model_fields.items()}


SETTING_NAMES = tuple(RenderSettings.model_fields)
V1_SETTING_NAMES = SETTING_NAMES[: SETTING_NAMES.index("crf") + 1]
DEFAULTS = _defaults(RenderSettings)


def resolve_settings(*layers: Mapping[str, Any]) -> RenderSettings:
    """Settings from the first layer that gives each a value (row, then run config, then model directory)."""
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values.update({name: layer[name] for name in SETTING_NAMES if layer.get(name) is not None})
    return RenderSettings(**values)
