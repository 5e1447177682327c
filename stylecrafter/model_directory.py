"""What a model directory holds besides diffusers' files: generation settings, model card, fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

GENERATION_CONFIG = "generation_config.json"
FINGERPRINT = "fingerprint"
MODEL_CARD = "README.md"

PUBLISHED_GENERATION: dict[str, Any] = {
    "engine": "stylecrafter",
    "trained": True,
    "height": 320,
    "width": 512,
    "num_frames": 16,
    "fps": 10,
    "num_inference_steps": 50,
    "text_guidance_scale": 15.0,
    "style_guidance_scale": 7.5,
    "style_scale": 1.0,
    "eta": 1.0,
    "guidance": "published",
    "image": {"height": 512, "width": 512, "num_frames": 1, "text_guidance_scale": 6.0},
}
"""Settings of the released model (official scripts); sizes in pixels, fps in frames per second."""

NEW_ADAPTER: dict[str, Any] = {"trained": False, "new_adapter": True}
"""What the settings say of a base model whose style adapter nobody has trained yet."""

# Written by the libraries, different from one version to the next, and without effect on the result.
_VOLATILE_KEYS = frozenset(
    {
        "_diffusers_version",
        "_name_or_path",
        "dtype",
        "is_local",
        "local_files_only",
        "torch_dtype",
        "transformers_version",
        "version",
    }
)

# Settings that came after the first model directories, with the value that means the same as their absence.
_LATER_DEFAULTS = {
    "fusion": "adaptive",
    "relative_position": True,
    "temporal_conv": False,
    "fps_cond": False,
}


def load_generation_config(path: str | Path) -> dict[str, Any]:
    """Generation settings of a model directory; keys as in `PUBLISHED_GENERATION`.

    Raises:
        FileNotFoundError: the directory has none.
    """
    return json.loads((Path(path) / GENERATION_CONFIG).read_text())


def generation_settings(config: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """The settings of one mode: "video", or "image" with what `config["image"]` changes.

    Raises:
        ValueError: another mode.
    """
    if mode not in ("video", "image"):
        raise ValueError(f"mode is {mode!r}; allowed are 'video', 'image'")
    settings = {name: value for name, value in config.items() if name != "image"}
    return settings | config.get("image", {}) if mode == "image" else settings


def read_fingerprint(path: str | Path) -> str:
    """The fingerprint written when the model was saved (64 hexadecimal digits).

    Raises:
        FileNotFoundError: the directory has none.
    """
    return (Path(path) / FINGERPRINT).read_text().strip()


def write_model_files(path: str | Path, generation_config: Mapping[str, Any]) -> None:
    """Add generation settings, model card and fingerprint to a directory of saved components."""
    directory = Path(path)
    (directory / GENERATION_CONFIG).write_text(json.dumps(generation_config, indent=2) + "\n")
    (directory / MODEL_CARD).write_text(_model_card(generation_config))
    (directory / FINGERPRINT).write_text(compute_fingerprint(directory) + "\n")


def compute_fingerprint(path: str | Path) -> str:
    """Hash of all tensors and component configs of a model directory, hexadecimal SHA-256.

    It depends on what a model computes: not on how tensors are spread over files, on the order of
    files, or on generation settings. Tensors are read one at a time.

    Raises:
        FileNotFoundError: the directory holds no weights.
    """
    directory = Path(path)
    tensors = sorted(_tensors(directory))
    if not tensors:
        raise FileNotFoundError(f"no *.safetensors under {directory}")
    digest = hashlib.sha256()
    for name, canonical in sorted(_configs(directory)):
        digest.update(f"{name}\0{canonical}\0".encode())
    with ExitStack() as stack:
        opened = {
            file: stack.enter_context(safe_open(file, framework="pt"))
            for file in {file for *_, file in tensors}
        }
        for component, name, file in tensors:
            tensor = opened[file].get_tensor(name).contiguous()
            digest.update(f"{component}\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
            digest.update(memoryview(tensor.flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def _tensors(directory: Path) -> Iterator[tuple[str, str, Path]]:
    """(component, tensor name, file) of everything saved."""
    for file in directory.glob("*/*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - a safetensors file is no dictionary
                yield file.parent.name, name, file


def _configs(directory: Path) -> Iterator[tuple[str, str]]:
    """(component/file, canonical JSON) of the component configs."""
    for file in directory.glob("*/*.json"):
        if not file.name.endswith(".index.json"):
            content = _without_volatile(json.loads(file.read_text()))
            yield f"{file.parent.name}/{file.name}", json.dumps(content, sort_keys=True)


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_volatile(item)
            for key, item in value.items()
            if key not in _VOLATILE_KEYS and (key not in _LATER_DEFAULTS or item != _LATER_DEFAULTS[key])
        }
    return value


def _model_card(config: Mapping[str, Any]) -> str:
    if config.get("new_adapter"):
        weights = (
            "The style adapter is new and **untrained**, everything else is a base model's: `python -m "
            "jobs.train_style` trains the adapter. Until then render from text alone (`style_scale` 0)."
        )
    elif config["trained"]:
        weights = "Weights of a trained model."
    else:
        weights = "Untrained weights: for tests, not for pictures."
    settings = "\n".join(f"| {name} | {value} |" for name, value in config.items())
    return f"""---
library_name: stylecrafter
pipeline_tag: text-to-video
---
# StyleCrafter model directory

{weights} Architecture: StyleCrafter (arXiv 2312.00330) on VideoCrafter, in diffusers layout.

```python
from stylecrafter import StyleCrafterPipeline

pipeline = StyleCrafterPipeline.from_pretrained("path/to/this/directory")
frames = pipeline("A field of sunflowers", style_images=[reference]).frames
```

| setting | value |
|---|---|
{settings}

`fingerprint` is the hash of all tensors and component configs.
"""
