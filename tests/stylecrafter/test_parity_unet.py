"""The UNet's predictions against the published implementation."""

import pytest
import torch

from stylecrafter import StyleCrafterPipeline
from stylecrafter.convert import convert

UNET_LIMIT = 3e-5


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def condition(pipeline, golden):
    """condition(rows, style_scale, scaled): style of the first golden references for that many rows."""

    def make(rows=2, style_scale=1.0, scaled=True):
        scales = golden["style.scale"][:rows] if scaled else None
        return pipeline.style_adapter.condition(golden["style.tokens"][:rows], scales, style_scale)

    return make


@pytest.fixture
def predict(pipeline, golden):
    """predict(x, style, text): prediction for the first rows of the golden timesteps and prompts."""

    def run(x, style=None, text=None, image_mode=False, unet=pipeline.unet):
        text = golden["text.embedding"][: len(x)] if text is None else text
        return unet(x, golden["unet.t"][: len(x)], text, style, image_mode=image_mode).sample

    return run


def test_style(predict, condition, golden, check):
    check(predict(golden["unet.x"], condition()), golden["unet.eps_style"], UNET_LIMIT)


def test_text_only(predict, golden, check):
    check(predict(golden["unet.x"]), golden["unet.eps_text"], UNET_LIMIT)


def test_empty_prompt(predict, golden, check):
    empty = golden["text.embedding"][2:].expand(2, -1, -1)
    check(predict(golden["unet.x"], text=empty), golden["unet.eps_uncond"], UNET_LIMIT)


def test_without_scale_predictor(predict, condition, golden, check):
    actual = predict(golden["unet.x"], condition(scaled=False))
    check(actual, golden["unet.eps_style_noscale"], UNET_LIMIT)


def test_half_style_scale(predict, condition, golden, check):
    actual = predict(golden["unet.x"], condition(style_scale=0.5))
    check(actual, golden["unet.eps_style_w05"], UNET_LIMIT)


def test_style_scale_of_each_row(predict, condition, golden, check):
    actual = predict(golden["unet.x"], condition(style_scale=torch.tensor([1.0, 0.5])))
    check(actual[:1], golden["unet.eps_style"][:1], UNET_LIMIT)
    check(actual[1:], golden["unet.eps_style_w05"][1:], UNET_LIMIT)


def test_zero_style_scale_is_exactly_text_only(predict, condition, golden):
    assert torch.equal(predict(golden["unet.x"], condition(style_scale=0.0)), predict(golden["unet.x"]))


def test_three_references(predict, pipeline, golden, check):
    style = pipeline.style_adapter.condition(golden["style.multi.tokens"], golden["style.multi.scale"])
    check(predict(golden["unet.x"][:1], style), golden["unet.eps_style_multi"], UNET_LIMIT)


def test_one_frame(predict, condition, golden, check):
    actual = predict(golden["unet.x"][:, :, :1], condition())
    check(actual, golden["unet.eps_style_t1"], UNET_LIMIT)


def test_more_frames_than_relative_positions(predict, condition, golden, check):
    check(predict(golden["unet.x_long"], condition(rows=1)), golden["unet.eps_style_long"], UNET_LIMIT)


def test_temporal_weights_of_the_checkpoint(predict, condition, golden, check, published, tmp_path):
    path = convert(**published | {"temporal": None}, output=tmp_path / "model").output
    unet = StyleCrafterPipeline.from_pretrained(path).unet
    actual = predict(golden["unet.x"], condition(), unet=unet)
    check(actual, golden["unet.eps_style_ckpt_temporal"], UNET_LIMIT)


@pytest.mark.parametrize(
    ("name", "style_scale"), [("eps_text", None), ("eps_style", 1.0), ("eps_style_half_weight", 0.5)]
)
def test_image_mode(predict, condition, golden, check, name, style_scale):
    style = None if style_scale is None else condition(style_scale=style_scale)
    actual = predict(golden["unet2d.x"], style, image_mode=True)
    check(actual, golden[f"unet2d.{name}"], UNET_LIMIT)
