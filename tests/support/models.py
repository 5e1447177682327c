"""A small model and small pictures that tests of several rooms use."""

from pathlib import Path

import numpy as np
from PIL import Image

from examples.untrained_model import build_untrained_pipeline
from stylecrafter.depth import new_depth_adapter


def write_tiny_model(directory: Path) -> None:
    """A model directory whose videos take a fraction of a second."""
    pipeline = build_untrained_pipeline(seed=1, channels=(32, 64), layers_per_block=1)
    pipeline.generation_config |= {"height": 32, "width": 48, "num_frames": 4, "num_inference_steps": 2}
    pipeline.save_pretrained(directory)


def write_depth_model(directory: Path) -> None:
    """The same with a depth adapter, and sizes of its own for images."""
    pipeline = build_untrained_pipeline(seed=1, channels=(32, 64), layers_per_block=1)
    pipeline.register_modules(
        depth_adapter=new_depth_adapter(pipeline.unet.config, pipeline.vae_scale_factor)
    )
    pipeline.generation_config |= {"height": 32, "width": 48, "num_frames": 4, "num_inference_steps": 2}
    pipeline.generation_config["image"] = {"height": 48, "width": 32, "text_guidance_scale": 6.0}
    pipeline.save_pretrained(directory)


def write_pictures(directory: Path) -> None:
    """Three style pictures that differ, and one file that is no picture."""
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        noise[..., index] //= 4
        Image.fromarray(noise).save(directory / f"{index}.png")
    (directory / "broken.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")


def write_smallest_model(directory: Path) -> None:
    """A model directory for training: a step takes some hundredths of a second."""
    pipeline = build_untrained_pipeline(seed=1, channels=(32, 32), layers_per_block=1)
    pipeline.generation_config |= {"height": 32, "width": 32, "num_frames": 4, "num_inference_steps": 2}
    pipeline.save_pretrained(directory)
