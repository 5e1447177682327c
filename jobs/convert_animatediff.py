"""AnimateDiff and IP-Adapter weights to a model directory of the second engine, to compare on the same rows.

python -m jobs.convert_animatediff --base SD15_DIR --motion-adapter MOTION_DIR \
    --ip-adapter ip-adapter_sd15.safetensors --image-encoder IMAGE_ENCODER_DIR --output MODEL_DIR
"""

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs._cli import load_config, run_job
from schemas.run import ExitCode, UsageError


class ConvertAnimateDiffRun(BaseModel):
    """Everything `jobs.convert_animatediff` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path = Field(description="directory of a Stable Diffusion 1.x pipeline in diffusers layout")
    motion_adapter: Path = Field(description="directory of a diffusers MotionAdapter")
    ip_adapter: Path = Field(description="weights of an IP-Adapter for the base, .safetensors or .bin")
    image_encoder: Path = Field(description="directory of the CLIP vision tower of the IP-Adapter")
    output: Path = Field(description="model directory to make")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="of the written weights")
    trained: bool = Field(True, description="whether the weights were trained; the model card says so")


def main() -> int:
    run = load_config(
        ConvertAnimateDiffRun, sys.argv[1:], prog="python -m jobs.convert_animatediff", description=__doc__
    )
    # Imported late: --help and a wrong flag should not wait for torch.
    import torch

    from stylecrafter.animatediff_convert import assemble
    from stylecrafter.checkpoint_files import ConversionError

    try:
        assemble(**run.model_dump() | {"dtype": getattr(torch, run.dtype)})
    except ConversionError as error:
        raise UsageError(str(error)) from error
    print(f"wrote {run.output}")
    return ExitCode.DONE


if __name__ == "__main__":
    run_job(main)
