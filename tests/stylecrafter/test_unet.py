"""The UNet and the adapter as modules: training, initialisation, and what they refuse."""

import pytest
import torch

from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.unet import ATTENTION_DOWN, ATTENTION_UP, PLAIN_DOWN, PLAIN_UP, StyleCrafterUNet

BATCH, FRAMES, SIDE, CONTEXT = 2, 3, 8, 16


@pytest.fixture
def unet() -> StyleCrafterUNet:
    """Three levels, the lowest without attention, two layers each: not the golden model's form."""
    torch.manual_seed(0)
    return StyleCrafterUNet(
        down_block_types=(ATTENTION_DOWN, ATTENTION_DOWN, PLAIN_DOWN),
        up_block_types=(PLAIN_UP, ATTENTION_UP, ATTENTION_UP),
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        norm_num_groups=4,
        cross_attention_dim=CONTEXT,
        attention_head_dim=4,
        temporal_length=2,
    )


@pytest.fixture
def adapter(unet) -> StyleAdapter:
    torch.manual_seed(0)
    return StyleAdapter(
        image_dim=24,
        context_dim=CONTEXT,
        num_style_tokens=5,
        num_heads=4,
        scale_num_heads=4,
        layer_channels=unet.style_layer_channels,
    )


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(BATCH, 4, FRAMES, SIDE, SIDE, generator=generator)
    return latents, torch.tensor([3, 700]), torch.randn(BATCH, 7, CONTEXT, generator=generator)


def test_layers_follow_the_order_down_middle_up(unet):
    assert unet.style_layer_channels == (8, 8, 16, 16, 16, 16, 16, 16, 8, 8, 8)


def test_no_temporal_convolutions(unet):
    assert not [name for name, _ in unet.named_parameters() if "temp_convs" in name]


def test_checkpointing_gives_the_same_gradients(unet, adapter, inputs):
    tokens = torch.randn(BATCH, 9, 24, generator=torch.Generator().manual_seed(1))

    def gradients():
        unet.zero_grad()
        adapter.zero_grad()
        unet(*inputs, adapter(tokens, inputs[2])).sample.square().mean().backward()
        return [p.grad.clone() for p in (*unet.parameters(), *adapter.parameters()) if p.grad is not None]

    plain = gradients()
    unet.enable_gradient_checkpointing()
    recomputed = gradients()
    assert len(plain) == len(recomputed) == len([*unet.parameters(), *adapter.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, recomputed, strict=True))


def test_image_mode_leaves_the_temporal_layers_out(unet, inputs):
    with torch.no_grad():
        before = unet(*inputs, image_mode=True).sample
        for transformer in unet.temporal_transformers():
            for parameter in transformer.parameters():
                parameter.add_(1)
        assert torch.equal(unet(*inputs, image_mode=True).sample, before)


@torch.no_grad()
def test_rows_without_style_beside_rows_with_it(unet, adapter, inputs):
    latents, timesteps, text = inputs
    style = adapter(torch.randn(1, 9, 24), text[:1])
    mixed = unet(latents, timesteps, text, style.with_plain_rows(1)).sample
    styled = unet(latents[:1], timesteps[:1], text[:1], style).sample
    plain = unet(latents[1:], timesteps[1:], text[1:]).sample
    assert torch.allclose(mixed, torch.cat([styled, plain]), atol=1e-5)


def test_style_projections_start_as_the_texts(unet, adapter):
    adapter.copy_text_projections(unet)
    attention = next(unet.spatial_transformers()).transformer_blocks[0].attn2
    assert torch.equal(adapter.layers[0].to_k.weight, attention.to_k.weight)
    assert torch.equal(adapter.layers[0].to_v.weight, attention.to_v.weight)


def test_save_and_load(unet, adapter, inputs, tmp_path):
    for model in (unet, adapter):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        loaded = type(model).from_pretrained(folder).state_dict()
        for name, value in model.state_dict().items():
            assert torch.equal(loaded[name], value)
    loaded = StyleCrafterUNet.from_pretrained(tmp_path / "StyleCrafterUNet")
    with torch.no_grad():
        assert torch.equal(loaded(*inputs).sample, unet.eval()(*inputs).sample)


def test_latent_sizes_that_do_not_halve_are_refused(unet, inputs):
    latents, timesteps, text = inputs
    with pytest.raises(ValueError, match="latent size is 6x8; height and width must be multiples of 4"):
        unet(latents[..., :6, :], timesteps, text)


def test_misfitting_style_inputs_are_refused(adapter):
    style = torch.zeros(BATCH, 5, CONTEXT)
    with pytest.raises(ValueError, match=r"fusion scales have shape \(2, 3, 1\); expected \(2, 11, 1\)"):
        adapter.condition(style, torch.zeros(BATCH, 3, 1))
    with pytest.raises(ValueError, match=r"style_scale has shape \(3,\)"):
        adapter.condition(style, style_scale=torch.ones(3))
