"""A finished training run as a model directory."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from actors.storage import Storage, join
from pipeline.train_model import begin_anew
from schemas.train_run import AdapterRun, TrainRun
from stylecrafter import StyleCrafterPipeline


def model_uri(run: TrainRun) -> str:
    """Where a run's model directory is once it has finished."""
    return join(run.output, "model")


def export_model(run: TrainRun, model_dir: Path, state: dict[str, Any], storage: Storage) -> None:
    """Writes the model that the run started from with the averaged trained weights (without average: the last).

    The fingerprint is uploaded last: a directory without it is not a finished model.
    """
    pipeline = StyleCrafterPipeline.from_pretrained(model_dir, dtype=torch.float32)
    begin_anew(run, pipeline)
    _put(pipeline, state["names"], state["average"] or state["weights"])
    settings = pipeline.generation_config
    if isinstance(run, AdapterRun):
        settings.pop("new_adapter", None)
    settings["trained"] = not settings.get("new_adapter", False)
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        pipeline.save_pretrained(folder)
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        for file in sorted(files, key=lambda file: file.name == "fingerprint"):
            storage.upload(file, join(model_uri(run), str(file.relative_to(folder))))


@torch.no_grad()
def _put(pipeline: StyleCrafterPipeline, names: list[str], values: list[torch.Tensor]) -> None:
    for name, value in zip(names, values, strict=True):
        component, _, parameter = name.partition(".")
        pipeline.components[component].get_parameter(parameter).copy_(value)
