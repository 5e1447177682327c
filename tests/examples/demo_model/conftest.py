"""Tiny stand-ins for what the demo model's measuring needs: judges, an independent CLIP, a trained model."""

import json

import pytest
import torch

from examples.demo_model.judges import NETWORKS, VALUES, Judges, new_network
from examples.encoders.train_clip import build_clip, parser, save_clip
from examples.untrained_model import build_untrained_pipeline


@pytest.fixture(scope="session")
def random_judges(tmp_path_factory):
    """The folder of judges that guess."""
    folder = tmp_path_factory.mktemp("judges")
    torch.manual_seed(0)
    Judges({name: new_network(name) for name in NETWORKS}).save(folder)
    figures = {name: {"n": 10, "accuracy": 0.5, "low": 0.2, "high": 0.8} for name in VALUES}
    figures["motion"] |= {"accuracy_backwards": 0.5, "accuracy_standing": 0.5}
    (folder / "metrics.json").write_text(json.dumps({"figures": figures}))
    return folder


@pytest.fixture(scope="session")
def random_clip(tmp_path_factory):
    """The folder of a CLIP that has learned nothing, without tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    sizes = ["--vision-width", "32", "--vision-layers", "1", "--text-width", "32", "--text-layers", "2"]
    options = parser().parse_args(["--output", str(folder), "--projection", "16", *sizes])
    save_clip(build_clip(options), None, options.size, folder)
    return folder


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A model directory of the demo's frame size that says it is trained."""
    folder = tmp_path_factory.mktemp("small") / "model"
    pipeline = build_untrained_pipeline(seed=1, channels=(32, 32), layers_per_block=1)
    pipeline.generation_config |= {
        "trained": True,
        "height": 64,
        "width": 64,
        "num_frames": 4,
        "num_inference_steps": 2,
        "image": {"height": 64, "width": 64, "num_frames": 1, "text_guidance_scale": 6.0},
    }
    pipeline.save_pretrained(folder)
    return folder
