"""StyleCrafter (arXiv 2312.00330) as a library: stylised video from text and reference pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stylecrafter.pipeline_stylecrafter import StyleCrafterPipeline

__all__ = ["StyleCrafterPipeline"]


def __getattr__(name: str) -> object:
    # torch and diffusers take seconds to import; a reader of generation settings needs neither.
    if name == "StyleCrafterPipeline":
        from stylecrafter.pipeline_stylecrafter import StyleCrafterPipeline

        return StyleCrafterPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
