"""Reading published weight files without running anything that is in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

DEEPSPEED_PREFIX = "_forward_module."
MOST_PROBLEMS_SHOWN = 20


class ConversionError(ValueError):
    """Published files that cannot become a model directory; the message names file, key and shapes."""


def problems_error(problems: list[str]) -> ConversionError:
    """One error for many problems: the first ones in full, the number of all."""
    shown = problems[:MOST_PROBLEMS_SHOWN]
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    return ConversionError(f"{len(problems)} problem(s) in the weight files:\n  " + "\n  ".join(shown))


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Flat tensors of a .safetensors file or a torch checkpoint, mapped into memory, not read.

    Wrappers are taken off: `{"state_dict": ...}`, DeepSpeed's `{"module": ...}` with its key prefix, and
    dictionaries in dictionaries, whose keys are joined with dots. What is not a tensor is left out.

    Raises:
        ConversionError: no such file, not a weight file, or one that holds more than tensors and plain
            Python values (it names the class or function that loading would have called).
    """
    path = Path(path)
    if not path.is_file():
        raise ConversionError(f"{path}: no such file")
    content = load_file(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, Mapping):
        raise ConversionError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors")
    tensors = _flatten(_unwrap(content, path))
    if not tensors:
        raise ConversionError(f"{path}: holds no tensors")
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        # Only the zip format can be mapped; the older one is read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)|`(\S+)` to add", str(error))
        name = next(filter(None, found.groups())) if found else None
        reason = f"it refers to {name}, which is code, not weights" if name else str(error).split("\n")[0]
        raise ConversionError(f"{path}: refused, {reason}") from error
    except (RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise ConversionError(f"{path}: not a readable checkpoint ({error})") from error


def _unwrap(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    if isinstance(content.get("state_dict"), Mapping):
        return content["state_dict"]
    if not isinstance(content.get("module"), Mapping):
        return content
    module = content["module"]
    other = [key for key in module if not key.startswith(DEEPSPEED_PREFIX)]
    if other:
        raise ConversionError(
            f"{path}: key {other[0]!r} under 'module' lacks the prefix {DEEPSPEED_PREFIX!r}"
        )
    return {key.removeprefix(DEEPSPEED_PREFIX): value for key, value in module.items()}


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            tensors |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            tensors[f"{prefix}{key}"] = value
    return tensors


@dataclass(frozen=True)
class Located:
    """A published tensor, the file it lies in and its full name there."""

    tensor: torch.Tensor
    file: Path
    name: str


@dataclass(frozen=True)
class PublishedFiles:
    """The published files: their paths and their flat tensors, both by role.

    Roles are checkpoint (model.ckpt), adapter, open_clip and, for video, temporal.
    """

    paths: dict[str, Path]
    tensors: dict[str, dict[str, torch.Tensor]]

    @classmethod
    def read(cls, **paths: str | Path | None) -> PublishedFiles:
        """Map the files of the given roles; None is a role left out."""
        given = {role: Path(path) for role, path in paths.items() if path is not None}
        return cls(given, {role: read_weights(path) for role, path in given.items()})

    def under(self, role: str, prefix: str = "", without: str | None = None) -> dict[str, Located]:
        """Tensors of one file whose names start with `prefix` (taken off) but not with `without`."""
        return {
            name.removeprefix(prefix): Located(tensor, self.paths[role], name)
            for name, tensor in self.tensors.get(role, {}).items()
            if name.startswith(prefix) and not (without and name.startswith(without))
        }
