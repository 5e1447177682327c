"""The settings of a manifest row: its own, else the run's, else the model's; and what cannot be rendered so."""

from collections.abc import Iterator
from typing import Any

from pipeline.model_info import ModelInfo
from schemas.manifest_row import ManifestRow
from schemas.record import ErrorClass, RowError, Status
from schemas.run import RenderRun
from schemas.settings import DEFAULTS, SETTING_NAMES, RenderSettings, resolve_settings

_MAX_KEPT = 1_000
_MAX_LCM_STEPS = 50  # what weights are distilled for; the scheduler knows no more
_OF_ROWS = frozenset(name for name in SETTING_NAMES if name in ManifestRow.model_fields)
# What an image does not have is the same for all images, so that a flag that is meant for videos renames none.
_OF_IMAGES = {"num_frames": 1, "fps": DEFAULTS["fps"], "crf": DEFAULTS["crf"]}
_OF_VIDEOS = {name: DEFAULTS[name] for name in ("image_format", "jpeg_quality")}
_OF_PNGS = {"jpeg_quality": DEFAULTS["jpeg_quality"]}
_WITHOUT_DEPTH = {"depth_normalization": DEFAULTS["depth_normalization"]}


def changed_by(row: ManifestRow) -> dict[str, Any]:
    """The settings that a row itself changes from the frozen defaults, whatever the run or the model adds."""
    return {name: value for name, value in _given_by(row).items() if value != DEFAULTS[name]}


def _given_by(row: ManifestRow) -> dict[str, Any]:
    """The settings of the row itself."""
    given = {name: getattr(row, name) for name in row.model_fields_set & _OF_ROWS}
    return {name: value for name, value in given.items() if value is not None}


def too_many_steps(settings: RenderSettings) -> str | None:
    """What is wrong with the number of steps for this scheduler, if anything."""
    steps = settings.num_inference_steps
    if settings.scheduler != "lcm" or steps <= _MAX_LCM_STEPS:
        return None
    return f"num_inference_steps = {steps}: the scheduler 'lcm' has at most {_MAX_LCM_STEPS}"


class RowSettings:
    """Resolves the settings of one run's rows. Manifests repeat the same few, so those seen are kept."""

    def __init__(self, run: RenderRun, model: ModelInfo):
        self._overrides = run.setting_overrides()
        self._model = model
        self._broadcasts = run.speed.attention_broadcast is not None
        self._sweeps_steps = not run.sweep.axes.keys().isdisjoint({"scheduler", "num_inference_steps"})
        self._kept: dict[frozenset[tuple[str, Any]], tuple[RenderSettings, str]] = {}

    def of(self, row: ManifestRow) -> RenderSettings:
        """The row's settings; of a sweep, the caller checks every combination (see `too_many_steps`).

        Raises:
            RowError: this model cannot render the row.
        """
        own = _given_by(row)
        key = frozenset([("with_depth", row.depth_video_uri is not None), *own.items()])
        if key not in self._kept:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            settings = self._resolve(own, with_depth=row.depth_video_uri is not None)
            self._kept[key] = settings, "; ".join(self._problems(row, settings))
        settings, problems = self._kept[key]
        if row.depth_video_uri and not self._model.depth_adapter:
            raise RowError(
                ErrorClass.DEPTH_UNSUPPORTED,
                f"depth_video_uri = {row.depth_video_uri!r}: the model has no depth adapter "
                "(jobs.convert --depth-adapter adds one)",
                Status.INVALID,
            )
        if problems:
            raise RowError(ErrorClass.INVALID_ROW, problems, Status.INVALID)
        return settings

    def _resolve(self, own: dict[str, Any], *, with_depth: bool) -> RenderSettings:
        mode = str(
            own.get("mode") or self._overrides.get("mode") or self._model.defaults.get("mode", "video")
        )
        settings = resolve_settings(own, self._overrides, self._model.defaults_for(mode), {"mode": mode})
        same: dict[str, Any] = {} if with_depth else _WITHOUT_DEPTH
        same = same | (_OF_IMAGES if mode == "image" else _OF_VIDEOS)
        if mode == "image" or (settings.frame_window or 0) >= settings.num_frames:
            same |= {"frame_window": None}  # there is nothing to divide
        return settings.model_copy(update=same | _OF_PNGS if settings.image_format == "png" else same)

    def _problems(self, row: ManifestRow, settings: RenderSettings) -> Iterator[str]:
        multiple = self._model.pixel_multiple
        for name in ("height", "width"):
            if (value := getattr(settings, name)) % multiple:
                yield f"{name} = {value}: must be a multiple of {multiple} for this model"
        if settings.mode == "image" and row.num_frames not in (None, 1):
            yield f"num_frames = {row.num_frames}: an image has 1"
        if self._model.max_frames is not None and settings.num_frames > self._model.max_frames:
            yield f"num_frames = {settings.num_frames}: this model has at most {self._model.max_frames}"
        if not self._model.is_stylecrafter:
            yield from self._missing_in_engine(settings)
        if not self._sweeps_steps and (problem := too_many_steps(settings)):
            yield problem
        if settings.frame_window is not None and self._broadcasts:
            yield f"frame_window = {settings.frame_window}: not possible together with speed.attention_broadcast"
        if settings.guidance_start > settings.guidance_end:
            start, end = settings.guidance_start, settings.guidance_end
            yield f"guidance_start = {start:g}: must not be above guidance_end = {end:g}"
        if settings.style_scale_texture != 1 and not self._model.texture_layers:
            yield f"style_scale_texture = {settings.style_scale_texture:g}: this model has coarse layers only"
        if settings.conditioning_fps is not None and not self._model.fps_embedding:
            yield f"conditioning_fps = {settings.conditioning_fps:g}: this model has no fps embedding"

    def _missing_in_engine(self, settings: RenderSettings) -> Iterator[str]:
        if settings.mode == "image":
            yield f"mode = 'image': the engine {self._model.engine!r} renders videos only"
        if settings.frame_window is not None:
            yield f"frame_window = {settings.frame_window}: the engine {self._model.engine!r} has no windows"
        for name in ("style_scale_structure", "style_scale_texture"):
            if (value := getattr(settings, name)) != 1:
                yield f"{name} = {value:g}: the engine {self._model.engine!r} has no groups of layers"
