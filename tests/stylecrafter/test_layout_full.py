"""The full-size model: every published key has a place, and the parameter counts are the published ones."""

import torch

from stylecrafter.architecture import generation_config
from stylecrafter.conversion_plan import plan_problems, skipped_keys
from stylecrafter.key_maps import is_temporal, unet_modules


def test_every_key_fits(files, parts):
    assert plan_problems(files, list(parts.values())) == []


def test_only_the_schedule_and_clips_temperature_are_skipped(files, parts):
    skipped = skipped_keys(files, list(parts.values()))
    names = [name for names in skipped.values() for name in names]
    left = [name for name in names if "." in name and not name.endswith("logit_scale")]
    assert left == []


def test_order_of_the_style_layers(layout, parts):
    modules = unet_modules(parts["unet"].model.config)
    ours = [published for name, published in modules.items() if ".attentions." in name]
    assert [f"{name}.transformer_blocks.0.attn2" for name in ours] == layout["style_layers"]


def test_parameter_counts(layout, parts):
    counts = layout["parameter_counts"]
    sizes = {name: _size(part.model) for name, part in parts.items()}
    assert sizes["unet"] == counts["unet (model.diffusion_model, without processors)"] == 1_144_485_956
    assert sizes["style_adapter"] == counts["adapter total (adapter_v1.pth)"] == 111_188_161
    assert sizes["vae"] == counts["vae total"]
    assert sizes["image_encoder"] == counts["clip vision (visual.*)"]
    # Without CLIP's temperature.
    assert sizes["text_encoder"] == counts["clip text (cond_stage_model, all 24 layers)"] - 1
    temporal = sum(v.numel() for k, v in parts["unet"].model.state_dict().items() if is_temporal(k))
    assert temporal == counts["  of which temporal transformers (temporal_v1_1.pth)"]


def test_heads(parts):
    assert parts["text_encoder"].model.config.num_attention_heads == 16
    assert parts["image_encoder"].model.config.num_attention_heads == 16


def test_native_size(params):
    settings = generation_config(params)
    assert (settings["height"], settings["width"], settings["num_frames"]) == (320, 512, 16)
    assert settings["image"]["height"] == 512


def _size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
