"""Published weights to a model directory that every other job loads: all of StyleCrafter, or a base to train on.

python -m jobs.convert --checkpoint model.ckpt --adapter adapter_v1.pth --temporal temporal_v1_1.pth \
    --open-clip open_clip_pytorch_model.bin --output MODEL_DIR
python -m jobs.convert --checkpoint model.ckpt --open-clip open_clip_pytorch_model.bin --output BASE_DIR
"""

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs._cli import load_config, run_job
from schemas.run import ExitCode, UsageError


class ConvertRun(BaseModel):
    """Everything `jobs.convert` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path = Field(description="model.ckpt: UNet, VAE and text tower")
    open_clip: Path = Field(description="open_clip_pytorch_model.bin: both CLIP towers")
    output: Path = Field(description="model directory to make")
    adapter: Path | None = Field(
        None, description="adapter_v1.pth: the style adapter (default: a new one, to be trained)"
    )
    temporal: Path | None = Field(
        None, description="temporal_v1_1.pth: temporal layers (default: those of the checkpoint)"
    )
    depth_adapter: Path | None = Field(
        None, description="T2I-Adapter weights for depth guidance (default: a model without)"
    )
    architecture: Path | None = Field(
        None,
        description="published inference config, YAML or JSON (default: config_video.json beside the "
        "checkpoint, else told from tensor shapes)",
    )
    open_clip_config: Path | None = Field(
        None,
        description="OpenCLIP model config (default: open_clip_config.json beside its weights, else told "
        "from tensor shapes)",
    )
    tokenizer: Path | None = Field(
        None,
        description="tokenizer directory or bpe_simple_vocab_16e6.txt.gz (default: the CLIP vocabulary)",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="of the written weights")
    trained: bool = Field(
        True,
        description="whether the weights were trained; the model card says so, and of a new adapter by itself",
    )


def main() -> int:
    run = load_config(ConvertRun, sys.argv[1:], prog="python -m jobs.convert", description=__doc__)
    # Imported late: --help and a wrong flag should not wait for torch.
    import torch

    from stylecrafter.convert import ConversionError, convert

    arguments = run.model_dump() | {"dtype": getattr(torch, run.dtype)}
    generation = {"trained": arguments.pop("trained")}
    try:
        report = convert(**arguments, generation=generation)
    except ConversionError as error:
        raise UsageError(str(error)) from error
    print(report.describe())
    return ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
