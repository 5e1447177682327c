"""Weights per reference, style weights per group of layers, and mixtures of two styles."""

import pytest
import torch

from stylecrafter.unet_layout import STRUCTURE, TEXTURE, depth_feature_places, style_layer_groups
from stylecrafter.validation import style_weights

SMALL = {"num_frames": 2, "height": 16, "width": 24, "num_inference_steps": 1, "output_type": "latent"}
LIMIT = 1e-5


# ---- References ----------------------------------------------------------------------------------


def test_a_weight_counts_the_reference_so_often(pipeline, references, check):
    first, second, third = references
    weighted = pipeline.encode_style([first, second, third], [2, 1, 0])
    check(weighted, pipeline.encode_style([first, first, second]), LIMIT)


def test_equal_weights_of_one_are_the_published_tokens(pipeline, references):
    assert torch.equal(pipeline.encode_style(references, [1, 1, 1]), pipeline.encode_style(references))


def test_weights_between_lead_from_one_reference_to_the_other(pipeline, references):
    first, second = references[:2]
    ends = [pipeline.encode_style(x) for x in (first, second)]
    distances = []
    for weight in (0.05, 1.0, 20.0):
        tokens = pipeline.encode_style([first, second], [1.0, weight])
        distances.append([(tokens - end).norm().item() for end in ends])
    assert distances[0][0] < distances[1][0] < distances[2][0]
    assert distances[0][1] > distances[1][1] > distances[2][1]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"reference weights are 1; expected one per reference \(3\)"),
        ([1.0, -1.0, 1.0], "allowed are finite numbers of 0 or more, not all 0"),
        ([0.0, 0.0, 0.0], "not all 0"),
        ([1.0, float("nan"), 1.0], "finite"),
    ],
)
def test_bad_weights_are_named(pipeline, references, weights, message):
    with pytest.raises(ValueError, match=message):
        pipeline.encode_style(references, weights)


# ---- Groups of layers ----------------------------------------------------------------------------


def test_groups_of_the_full_model(parts):
    groups = style_layer_groups(parts["unet"].model.config)
    assert groups == (TEXTURE,) * 4 + (STRUCTURE,) * 6 + (TEXTURE,) * 6
    channels = parts["unet"].model.style_layer_channels
    assert {width for width, group in zip(channels, groups, strict=True) if group == STRUCTURE} == {1280}
    assert depth_feature_places(parts["unet"].model.config) == ((320, 1), (640, 2), (1280, 4), (1280, 8))


def test_groups_of_small_models(pipeline):
    groups = style_layer_groups(pipeline.unet.config)
    assert len(groups) == len(pipeline.unet.style_layer_channels)
    assert groups == (TEXTURE, *(STRUCTURE,) * 4, *(TEXTURE,) * 2)


def test_weights_of_groups_and_rows():
    groups = (TEXTURE, STRUCTURE, TEXTURE)
    assert style_weights(0.5, 2, groups).tolist() == [[0.5] * 3] * 2
    assert style_weights({STRUCTURE: [0.0, 2.0]}, 2, groups).tolist() == [[1, 0, 1], [1, 2, 1]]
    with pytest.raises(
        ValueError, match=r"style_scale names the groups \['colour'\]; allowed are 'structure'"
    ):
        style_weights({"colour": 1.0}, 1, groups)
    with pytest.raises(ValueError, match=r"style_scale\['texture'\] has 3 values"):
        style_weights({TEXTURE: [1.0, 2.0, 3.0]}, 2, groups)


def test_equal_groups_are_one_scale(pipeline, references):
    both, one = (
        pipeline("a dog", references[0], style_scale=scale, **SMALL).frames
        for scale in ({STRUCTURE: 0.5, TEXTURE: 0.5}, 0.5)
    )
    assert torch.equal(both, one)


def test_a_group_of_weight_zero_has_no_style(pipeline, golden):
    style, scales = golden["style.tokens"][:1], golden["style.scale"][:1]
    groups = style_layer_groups(pipeline.unet.config)
    weights = style_weights({STRUCTURE: 0.0}, 1, groups)
    condition = pipeline.style_adapter.condition(style, scales, weights)
    gates = [layer.gate_B.item() for layer in condition.layers]
    full = [layer.gate_B.item() for layer in pipeline.style_adapter.condition(style, scales).layers]
    assert gates == [0.0 if group == STRUCTURE else gate for group, gate in zip(groups, full, strict=True)]


# ---- Mixtures ------------------------------------------------------------------------------------


def test_mixtures(pipeline, references, check):
    first, second = references[:2]

    def render(*arguments, **settings):
        return pipeline("a dog", *arguments, seed=1, **SMALL | settings).frames

    check(render(first, mix_images=second, mix_share=0.0), render(first), LIMIT)
    check(render(first, mix_images=second, mix_share=1.0), render(second), LIMIT)
    middle = render(first, mix_images=second)
    check(middle, render(second, mix_images=first), LIMIT)
    assert not torch.allclose(middle, render(first), atol=1e-4)


def test_a_sweep_in_one_batch(pipeline, references, check):
    first, second = references[:2]
    shares = [0.0, 0.25, 1.0]
    generators = [torch.Generator().manual_seed(1) for _ in shares]
    sweep = pipeline(
        ["a dog"] * 3, first, mix_images=second, mix_share=shares, generators=generators, **SMALL
    ).frames
    alone = pipeline("a dog", first, mix_images=second, mix_share=0.25, seed=1, **SMALL).frames
    check(sweep[1:2], alone, LIMIT)


def test_weights_of_rows_in_a_call(pipeline, references, check):
    pictures = references[:2]
    rows = pipeline(["a", "b"], pictures, reference_weights=[[1, 0], [0, 1]], **SMALL).frames
    check(rows[:1], pipeline("a", pictures[0], **SMALL).frames, LIMIT)
    check(rows[1:], pipeline("b", pictures[1], seed=1, **SMALL).frames, LIMIT)
    shared = pipeline(["a", "b"], pictures, reference_weights=[1, 0], **SMALL).frames
    check(shared[:1], rows[:1], LIMIT)


def test_bad_mixtures_are_named(pipeline, references):
    with pytest.raises(ValueError, match=r"mix_share is \[1.5\]; allowed are 0 to 1"):
        pipeline("a", references[0], mix_images=references[1], mix_share=1.5, **SMALL)
    with pytest.raises(ValueError, match="style_images are None"):
        pipeline("a", mix_images=references[1], **SMALL)
    with pytest.raises(ValueError, match="reference_weights has 1 rows; the prompts have 2"):
        pipeline(["a", "b"], references, reference_weights=[[1, 1, 1]], **SMALL)


def test_papers_guidance_of_images(pipeline, references, check):
    """Its dual form with the same branches; the published code guides images once."""
    settings = SMALL | {"mode": "image", "num_frames": 1}
    published = pipeline("a", references[0], style_guidance_scale=3.0, **settings).frames
    check(pipeline("a", references[0], style_guidance_scale=None, **settings).frames, published, LIMIT)
    paper = pipeline("a", references[0], guidance="paper", style_guidance_scale=5.0, **settings).frames
    assert not torch.allclose(paper, published, atol=1e-3)
    # With equal scales the text-only branch cancels.
    equal = {"text_guidance_scale": 6.0, "style_guidance_scale": 6.0}
    paper = pipeline("a", references[0], guidance="paper", **equal, **settings).frames
    check(paper, pipeline("a", references[0], text_guidance_scale=6.0, **settings).frames, LIMIT)
