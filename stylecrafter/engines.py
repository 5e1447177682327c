"""The engines that a model directory may ask for; its `generation_config.json` names one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylecrafter.animatediff import AnimateDiffIPAdapterPipeline
    from stylecrafter.pipeline_stylecrafter import StyleCrafterPipeline

    RenderPipeline = StyleCrafterPipeline | AnimateDiffIPAdapterPipeline
else:
    RenderPipeline = Any

DEFAULT = "stylecrafter"
# As names: who plans a run knows the engines without importing any.
_CLASSES = {
    DEFAULT: ("stylecrafter.pipeline_stylecrafter", "StyleCrafterPipeline"),
    "animatediff_ip_adapter": ("stylecrafter.animatediff", "AnimateDiffIPAdapterPipeline"),
}
ENGINES = tuple(_CLASSES)


def load_pipeline(path: str | Path, **kwargs: Any) -> RenderPipeline:
    """The pipeline of a model directory, by the engine that it names; `kwargs` as in diffusers.

    Raises:
        ValueError: there is no model directory, or its engine is not known.
    """
    from stylecrafter.model_directory import load_generation_config  # imports torch

    if not Path(path).is_dir():
        raise ValueError(f"path is {str(path)!r}; it must be a local model directory")
    engine = load_generation_config(path).get("engine", DEFAULT)
    if engine not in _CLASSES:
        raise ValueError(
            f"engine of {str(path)!r} is {engine!r}; allowed are {', '.join(map(repr, ENGINES))}"
        )
    module, name = _CLASSES[engine]
    pipeline: RenderPipeline = getattr(import_module(module), name).from_pretrained(path, **kwargs)
    return pipeline
