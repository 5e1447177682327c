"""Parameter counts per group at full size, on the meta device."""

import pytest
import torch

from stylecrafter import StyleCrafterPipeline
from stylecrafter.architecture import scheduler
from stylecrafter.depth import new_depth_adapter
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import PUBLISHED_MERGES, tokenizer_from_merges
from stylecrafter.training import STAGES, TrainingModel, TrainingOptions

SIZES = {
    "unet.spatial": 1_144_485_956 - 278_575_232,
    "unet.temporal": 278_575_232,
    "adapter.style_transformer": 60_358_400,
    "adapter.style_kv": 25_584_000,
    "adapter.scale_predictor": 25_245_761,
    "vae": 83_653_863,
    "text_encoder": 354_032_640,
    "image_encoder": 632_076_800,
}
TRAINED = {
    "base": ("unet.spatial", "unet.temporal"),
    "style": ("adapter.style_transformer", "adapter.style_kv", "adapter.scale_predictor"),
    "temporal": ("unet.temporal",),
    "joint": (
        "unet.temporal",
        "adapter.style_transformer",
        "adapter.style_kv",
        "adapter.scale_predictor",
    ),
}


@pytest.fixture(scope="module")
def full_size(parts, params) -> StyleCrafterPipeline:
    """The published model without data."""
    return StyleCrafterPipeline(
        **{name: part.model for name, part in parts.items()},
        tokenizer=tokenizer_from_merges(PUBLISHED_MERGES, 49_408),
        feature_extractor=StyleImageProcessor(),
        scheduler=scheduler(params),
    )


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "depth"])
def test_counts(full_size, stage):
    options = TrainingOptions(copy_text_projections=stage in ("style", "joint"))
    groups = TrainingModel(full_size, stage, options).parameter_groups()
    assert {group.name: group.total for group in groups} == SIZES
    trained = {group.name: group.trainable for group in groups if group.trainable}
    assert trained == {name: SIZES[name] for name in TRAINED[stage]}
    adapter = sum(group.total for group in groups if group.name.startswith("adapter."))
    assert adapter == 111_188_161


def test_text_encoder_trains_without_its_unused_end(full_size):
    options = TrainingOptions(train_text_encoder=True)
    groups = {g.name: g for g in TrainingModel(full_size, "base", options).parameter_groups()}
    assert groups["text_encoder"].trainable == 340_387_840


def test_the_depth_stage_trains_the_depth_adapter_alone(full_size):
    with torch.device("meta"):
        adapter = new_depth_adapter(full_size.unet.config, full_size.vae_scale_factor)
    pipeline = StyleCrafterPipeline(**full_size.components | {"depth_adapter": adapter})
    groups = TrainingModel(pipeline, "depth", TrainingOptions()).parameter_groups()
    assert {g.name: g.trainable for g in groups if g.trainable} == {"depth_adapter": 77_000_640}
    assert {g.name: g.total for g in groups if g.name != "depth_adapter"} == SIZES
