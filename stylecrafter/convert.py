"""Published StyleCrafter files to a model directory.

All keys and shapes are checked before anything is written; then one component at a time is read,
written and dropped, so that memory stays far below the size of the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylecrafter.architecture import generation_config, scheduler
from stylecrafter.checkpoint_files import ConversionError, PublishedFiles, problems_error
from stylecrafter.conversion_plan import Part, plan_parts, plan_problems, skipped_keys
from stylecrafter.model_directory import NEW_ADAPTER, write_model_files
from stylecrafter.pipeline_stylecrafter import StyleCrafterPipeline
from stylecrafter.published_params import PublishedParams, published_params
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import PUBLISHED_MERGES, OpenClipTokenizer, tokenizer_from_merges

__all__ = ["ConversionError", "ConversionReport", "convert"]

_SKIPPED_SHOWN = 20


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read and left out.

    Attributes:
        output: the model directory.
        architecture_from: where hyperparameters came from, first come first.
        components: component -> (number of tensors, files they came from).
        skipped: file -> keys that inference does not use.
        new_adapter: no adapter was given, so that the style adapter is a new one, which nobody has trained.
    """

    output: Path
    architecture_from: tuple[str, ...]
    components: dict[str, tuple[int, tuple[Path, ...]]]
    skipped: dict[str, list[str]]
    new_adapter: bool = False

    def describe(self) -> str:
        """The report for a person."""
        lines = ["architecture from " + ", ".join(self.architecture_from)]
        for name, (count, files) in self.components.items():
            if name == "style_adapter" and self.new_adapter:
                lines.append(
                    f"{name}: {count} new tensors; style keys and values are copies of the text's in "
                    f"{', '.join(map(str, files))}, the rest is drawn from a fixed seed"
                )
            else:
                lines.append(f"{name}: {count} tensors from {', '.join(map(str, files))}")
        for file, keys in self.skipped.items():
            shown = ", ".join(keys[:_SKIPPED_SHOWN]) + (", ..." if len(keys) > _SKIPPED_SHOWN else "")
            lines.append(f"not needed for inference, {len(keys)} keys of {file}: {shown}")
        lines.append(f"wrote {self.output}")
        if self.new_adapter:
            lines.append(
                "the style adapter is UNTRAINED: jobs.train_style trains it; until then render with style_scale 0"
            )
        return "\n".join(lines)


def convert(
    checkpoint: str | Path,
    adapter: str | Path | None,
    temporal: str | Path | None,
    open_clip: str | Path,
    output: str | Path,
    *,
    depth_adapter: str | Path | None = None,
    architecture: str | Path | None = None,
    open_clip_config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    generation: Mapping[str, Any] | None = None,
) -> ConversionReport:
    """Write a model directory that `StyleCrafterPipeline.from_pretrained` loads.

    Args:
        checkpoint: model.ckpt, of VideoCrafter1 or VideoCrafter2.
        adapter: adapter_v1.pth; None makes a new, untrained adapter, the same one each time. Its style keys
            and values are copies of the text's; its hyperparameters are the published ones where
            `architecture` does not say otherwise.
        temporal: temporal_v1_1.pth; None keeps the temporal weights of model.ckpt.
        open_clip: open_clip_pytorch_model.bin.
        output: directory to make; it must not exist, or be empty.
        depth_adapter: T2I-Adapter weights for depth guidance; None makes a model without.
        architecture: published inference config (YAML or JSON); default: `config_video.json` beside the
            checkpoint, else tensor shapes.
        open_clip_config: OpenCLIP model config (JSON); default: `open_clip_config.json` beside its
            weights, else tensor shapes (with ViT-H/14's heads).
        tokenizer: tokenizer directory or `bpe_simple_vocab_16e6.txt.gz`; default: the CLIP
            vocabulary that comes with this package.
        dtype: of the written weights.
        generation: generation settings that replace the derived ones.

    Raises:
        ConversionError: files that are missing, refused, or do not fit the architecture.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConversionError(f"output {output} exists and is not an empty directory")
    files = PublishedFiles.read(
        checkpoint=checkpoint,
        adapter=adapter,
        temporal=temporal,
        open_clip=open_clip,
        depth_adapter=depth_adapter,
    )
    params = published_params(
        files,
        Path(architecture) if architecture else _sibling(checkpoint, "config_video.json"),
        Path(open_clip_config) if open_clip_config else _sibling(open_clip, "open_clip_config.json"),
    )
    parts = plan_parts(files, params)
    if problems := plan_problems(files, parts):
        raise problems_error(problems)
    settings = generation_config(params) | dict(generation or {})
    if adapter is None:
        settings |= NEW_ADAPTER
    _write(output, parts, params, settings, _tokenizer(tokenizer, params), dtype)
    return ConversionReport(
        output=output,
        architecture_from=params.origin,
        components={part.name: (len(part.key_map), part.files) for part in parts},
        skipped=skipped_keys(files, parts),
        new_adapter=adapter is None,
    )


def _sibling(path: str | Path, name: str) -> Path | None:
    candidate = Path(path).parent / name
    return candidate if candidate.is_file() else None


def _tokenizer(source: str | Path | None, params: PublishedParams) -> OpenClipTokenizer:
    text = params.clip["text_cfg"]
    source = Path(source) if source else PUBLISHED_MERGES
    if not source.exists():
        raise ConversionError(
            f"tokenizer {source} does not exist; pass a tokenizer directory or bpe_simple_vocab_16e6.txt.gz"
        )
    if source.is_dir():
        return OpenClipTokenizer.from_pretrained(source, text_vocab_size=text["vocab_size"])
    return tokenizer_from_merges(source, text["vocab_size"], text["context_length"])


def _write(
    output: Path,
    parts: list[Part],
    params: PublishedParams,
    settings: Mapping[str, Any],
    tokenizer: OpenClipTokenizer,
    dtype: torch.dtype,
) -> None:
    """Write beside the output and rename at the end: a broken-off conversion leaves no half model."""
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    others: dict[str, Any] = {
        "tokenizer": tokenizer,
        "feature_extractor": StyleImageProcessor(size=params.clip["vision_cfg"]["image_size"]),
        "scheduler": scheduler(params),
    }
    for part in parts:
        part.save(partial, dtype)
    for name, component in others.items():
        component.save_pretrained(partial / name)
    models = {part.name: part.model for part in parts}
    StyleCrafterPipeline(**models, **others).save_config(partial)
    write_model_files(partial, settings)
    if output.exists():
        output.rmdir()
    partial.rename(output)
