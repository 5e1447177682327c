"""The ablations of the paper: each differs from the published form in the way it says, and renders."""

import numpy as np
import pytest
import torch

from examples.untrained_model import build_untrained_pipeline
from stylecrafter import StyleCrafterPipeline
from stylecrafter.model_directory import compute_fingerprint
from stylecrafter.style_adapter import FUSIONS, StyleAdapter

SMALL = {"num_frames": 2, "height": 16, "width": 32, "num_inference_steps": 2}
LATENTS = (4, 2, 2, 4)


@pytest.fixture(scope="module")
def adaptive() -> StyleCrafterPipeline:
    return build_untrained_pipeline(seed=3, channels=(32, 64), layers_per_block=1)


@pytest.fixture(scope="module")
def of_fusion(adaptive):
    """of_fusion(name): the same weights with this form of fusion."""
    pipelines = {}
    for fusion in FUSIONS:
        components = adaptive.components | {"style_adapter": adaptive.style_adapter.with_fusion(fusion)}
        pipelines[fusion] = StyleCrafterPipeline(**components)
    return pipelines.__getitem__


@pytest.fixture(scope="module")
def inputs(adaptive):
    generator = torch.Generator().manual_seed(0)
    text = adaptive.encode_prompt(["a dog", "a cat"])
    tokens = torch.randn(2, 50, adaptive.style_adapter.config.image_dim, generator=generator)
    return torch.randn(2, *LATENTS, generator=generator), text, tokens


def predict(pipeline, inputs, style_scale=1.0, styled=True):
    latents, text, tokens = inputs
    with torch.no_grad():
        style = pipeline.style_adapter(tokens, text, style_scale) if styled else None
        return pipeline.unet(latents, torch.tensor([5, 500]), text, style).sample


def parts(adapter: StyleAdapter) -> set[str]:
    return {name for name, _ in adapter.named_children()}


def test_each_form_has_the_parameters_it_uses_and_no_others(of_fusion):
    assert parts(of_fusion("adaptive").style_adapter) == {
        "style_transformer",
        "style_proj",
        "scale_transformer",
        "scale_head",
        "layers",
    }
    assert parts(of_fusion("fixed").style_adapter) == {"style_transformer", "style_proj", "layers"}
    assert parts(of_fusion("append").style_adapter) == {"style_transformer", "style_proj"}


def test_forms_share_weights_and_differ_in_what_they_predict(of_fusion, inputs):
    results = [predict(of_fusion(fusion), inputs) for fusion in FUSIONS]
    results.append(predict(of_fusion("adaptive"), inputs, styled=False))
    for index, result in enumerate(results):
        assert all(not torch.allclose(result, other, atol=1e-4) for other in results[index + 1 :])


def test_fixed_is_the_published_form_with_all_scales_zero(of_fusion, inputs):
    adaptive, fixed = of_fusion("adaptive"), of_fusion("fixed")
    latents, text, tokens = inputs
    with torch.no_grad():
        style = adaptive.style_adapter.condition(adaptive.style_adapter.encode(tokens), None, 0.7)
        expected = adaptive.unet(latents, torch.tensor([5, 500]), text, style).sample
    assert torch.equal(predict(fixed, inputs, 0.7), expected)


def test_append_is_text_attention_to_a_longer_text(of_fusion, inputs):
    append = of_fusion("append")
    latents, text, tokens = inputs
    with torch.no_grad():
        longer = torch.cat([text, append.style_adapter.encode(tokens)], dim=1)
        expected = append.unet(latents, torch.tensor([5, 500]), longer).sample
    assert torch.allclose(predict(append, inputs), expected, atol=1e-5)


def test_appended_tokens_at_half_weight_count_half(of_fusion, inputs):
    # Two copies of a token at half weight are one at full weight.
    append = of_fusion("append")
    latents, text, tokens = inputs
    adapter = append.style_adapter
    with torch.no_grad():
        style = adapter.encode(tokens)
        twice = adapter.condition(torch.cat([style, style], dim=1), None, 0.5)
        actual = append.unet(latents, torch.tensor([5, 500]), text, twice).sample
    assert torch.allclose(actual, predict(append, inputs), atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_style_scale_zero_is_text_alone(of_fusion, inputs, fusion):
    pipeline = of_fusion(fusion)
    plain = predict(pipeline, inputs, styled=False)
    assert torch.allclose(predict(pipeline, inputs, 0.0), plain, atol=1e-5)
    mixed = predict(pipeline, inputs, torch.tensor([1.0, 0.0]))
    assert torch.allclose(mixed[1], plain[1], atol=1e-5)
    assert torch.allclose(mixed[0], predict(pipeline, inputs)[0], atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_plain_rows_beside_styled_ones(of_fusion, inputs, fusion):
    pipeline = of_fusion(fusion)
    latents, text, tokens = inputs
    with torch.no_grad():
        style = pipeline.style_adapter(tokens[:1], text[:1]).with_plain_rows(1)
        mixed = pipeline.unet(latents, torch.tensor([5, 500]), text, style).sample
    assert torch.allclose(mixed[:1], predict(pipeline, inputs)[:1], atol=1e-5)
    assert torch.allclose(mixed[1:], predict(pipeline, inputs, styled=False)[1:], atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_dual_guidance_renders_the_same_in_one_batch_and_in_three(of_fusion, inputs, fusion):
    pipeline = of_fusion(fusion)
    _, text, tokens = inputs
    with torch.no_grad():
        style = pipeline.style_adapter.encode(tokens)
    scales = pipeline.predict_fusion_scales(style, text)
    assert scales.shape == (2, len(pipeline.unet.style_layer_channels), 1)
    assert bool((scales == 0).all()) == (fusion != "adaptive")
    latents = [
        pipeline.denoise(
            text,
            text.flip(0),
            style,
            scales,
            generators=[torch.Generator().manual_seed(seed) for seed in range(2)],
            text_guidance_scale=[3.0, 2.0],
            style_guidance_scale=[2.0, 0.0],
            style_scale=[1.0, 0.5],
            batch_guidance=batched,
            **SMALL,
        )
        for batched in (False, True)
    ]
    assert torch.isfinite(latents[0]).all()
    assert torch.allclose(*latents, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_saved_model_keeps_its_fusion(of_fusion, fusion, tmp_path):
    pipeline = of_fusion(fusion)
    pipeline.save_pretrained(tmp_path)
    loaded = StyleCrafterPipeline.from_pretrained(tmp_path)
    assert loaded.style_adapter.config.fusion == fusion
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    reference = pipeline.numpy_to_pil(noise[None] / 255)[0]
    frames = [p("a dog", reference, **SMALL).frames for p in (pipeline, loaded)]
    assert np.array_equal(*frames)


def test_the_published_form_has_the_fingerprint_of_before(adaptive, tmp_path):
    adaptive.save_pretrained(tmp_path)
    fingerprint = compute_fingerprint(tmp_path)
    config = tmp_path / "style_adapter" / "config.json"
    content = config.read_text()
    config.write_text(content.replace('  "fusion": "adaptive",\n', ""))
    assert config.read_text() != content
    assert compute_fingerprint(tmp_path) == fingerprint
    config.write_text(content.replace("adaptive", "fixed"))
    assert compute_fingerprint(tmp_path) != fingerprint


def test_another_fusion_keeps_weights_device_and_mode(adaptive):
    adapter = adaptive.style_adapter
    half = StyleAdapter.from_config(adapter.config).half().eval()
    fixed = half.with_fusion("fixed")
    assert fixed.style_proj.weight.dtype == torch.float16
    assert not fixed.training
    back = adapter.with_fusion("fixed").with_fusion("adaptive")
    for name, value in adapter.state_dict().items():
        kept = torch.equal(back.state_dict()[name], value)
        assert kept or name.startswith("scale_")


def test_appended_style_has_no_projections_to_copy(adaptive):
    append = adaptive.style_adapter.with_fusion("append")
    before = {name: value.clone() for name, value in append.state_dict().items()}
    append.copy_text_projections(adaptive.unet)
    assert all(torch.equal(value, before[name]) for name, value in append.state_dict().items())


def test_bad_fusions_are_named(adaptive):
    with pytest.raises(ValueError, match="fusion is 'none'; allowed are 'adaptive', 'fixed', 'append'"):
        StyleAdapter(fusion="none")
    append = adaptive.style_adapter.with_fusion("append")
    with pytest.raises(ValueError, match="style_scale is below 0; appended style tokens allow 0 or more"):
        append.condition(torch.zeros(1, 8, append.config.context_dim), None, -1.0)
