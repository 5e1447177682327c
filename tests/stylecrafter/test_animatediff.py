"""The second engine against diffusers' own pipeline, on small random networks."""

import pytest
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler
from PIL import Image
from safetensors.torch import load_file, save_file

from stylecrafter.animatediff import AnimateDiffIPAdapterPipeline
from stylecrafter.checkpoint_files import ConversionError
from tests.support.animatediff import EMBEDDING, SIDE, WIDTH, assemble_parts, write_parts

FRAMES = 4
PROMPTS = ("a star over the sea", "a moon")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    write_parts(root)
    return root


@pytest.fixture(scope="module")
def model_dir(parts, tmp_path_factory):
    output = tmp_path_factory.mktemp("model") / "directory"
    assemble_parts(parts, output)
    return output


@pytest.fixture(scope="module")
def engine(model_dir):
    pipeline = AnimateDiffIPAdapterPipeline.from_pretrained(model_dir)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _pictures(count):
    return [Image.new("RGB", (40, 50), (80 * i, 200 - 60 * i, 120)) for i in range(count)]


def _denoise(engine, prompts=PROMPTS, references=None, **changes):
    references = references or [[picture] for picture in _pictures(len(prompts))]
    text, uncond = engine.encode_prompt(list(prompts)), engine.encode_prompt([""] * len(prompts))
    style = torch.cat([engine.encode_style(pictures) for pictures in references])
    settings = {"num_frames": FRAMES, "height": SIDE, "width": SIDE, "num_inference_steps": 3}
    generators = [torch.Generator().manual_seed(5 + i) for i in range(len(prompts))]
    return engine.denoise(text, uncond, style, generators=generators, **settings | changes)


def _assert_same(found, expected, within=1e-5):
    """Up to rounding, which guidance amplifies: relative L2."""
    assert (found - expected).norm() <= within * expected.norm()


def test_one_guidance_is_that_of_diffusers(engine, monkeypatch):
    monkeypatch.setattr(engine.tokenizer, "model_max_length", 77)  # as published tokenizers have it
    theirs = AnimateDiffPipeline(
        vae=engine.vae,
        text_encoder=engine.text_encoder,
        tokenizer=engine.tokenizer,
        unet=engine.unet,
        motion_adapter=None,
        scheduler=DDIMScheduler.from_config(engine.scheduler.config),
        image_encoder=engine.image_encoder,
    )
    theirs.set_progress_bar_config(disable=True)
    theirs.set_ip_adapter_scale(0.7)
    style_11D = engine.encode_style(_pictures(1))
    expected = theirs(
        PROMPTS[0],
        negative_prompt="",
        num_frames=FRAMES,
        height=SIDE,
        width=SIDE,
        num_inference_steps=3,
        guidance_scale=5.0,
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(style_11D), style_11D])],
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).frames
    found = _denoise(engine, PROMPTS[:1], text_guidance_scale=5.0, style_guidance_scale=5.0, style_scale=0.7)
    _assert_same(found, expected)


def test_equal_scales_in_the_papers_form_need_no_third_branch(engine):
    dual = _denoise(engine, text_guidance_scale=3.0, style_guidance_scale=[3.0, 3.00001])
    single = _denoise(engine, text_guidance_scale=3.0, style_guidance_scale=3.0)
    _assert_same(single, dual, within=1e-3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_row_does_not_depend_on_the_rows_beside_it(engine, eta):
    together = _denoise(engine, eta=eta, style_scale=[0.5, 1.0], style_guidance_scale=2.0)
    alone = _denoise(engine, PROMPTS[:1], eta=eta, style_scale=0.5, style_guidance_scale=2.0)
    _assert_same(together[:1], alone)


def test_branches_together_are_branches_one_by_one(engine):
    settings = {"style_guidance_scale": 2.0}
    together = _denoise(engine, batch_guidance=True, **settings)
    _assert_same(together, _denoise(engine, batch_guidance=False, **settings))


def test_style_has_an_effect_and_scale_0_has_none(engine):
    first, second = _pictures(2)
    settings = {"prompts": PROMPTS[:1], "text_guidance_scale": 1.0}
    styled = [_denoise(engine, references=[[picture]], **settings) for picture in (first, second)]
    plain = [
        _denoise(engine, references=[[picture]], style_scale=0.0, **settings) for picture in (first, second)
    ]
    assert (styled[0] - styled[1]).abs().max() > 1e-4
    assert torch.equal(*plain)


def test_references_are_a_weighted_mean(engine):
    first, second = _pictures(2)
    mixed = engine.encode_style([first, second], [3.0, 1.0])
    expected = 0.75 * engine.encode_style(first) + 0.25 * engine.encode_style(second)
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("sampler", ["dpm++", "euler", "unipc"])
def test_other_samplers_run(engine, sampler):
    latents = _denoise(engine, sampler=sampler)
    assert latents.shape == (2, 4, FRAMES, SIDE // 2, SIDE // 2)
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"style_scale": {"structure": 1.0}}, "no groups of layers"),
        ({"depth_features": [torch.zeros(1)]}, "depth"),
        ({"conditioning_fps": 8.0}, "conditioning_fps"),
        ({"mode": "image", "num_frames": 1}, "mode 'image'"),
        ({"height": 30}, "height is 30"),
        ({"style_guidance_scale": [1.0, 2.0, 3.0]}, "style_guidance_scale has 3 values"),
    ],
)
def test_what_the_engine_has_not_is_refused_by_name(engine, changes, name):
    with pytest.raises(ValueError, match=name):
        _denoise(engine, **changes)


def test_frames_come_out_as_pictures(engine):
    frames = engine.decode_latents(_denoise(engine))
    assert frames.shape == (2, FRAMES, SIDE, SIDE, 3)
    assert frames.dtype == "uint8"


def test_a_loaded_engine_is_not_saved_without_its_adapter(engine, tmp_path):
    with pytest.raises(ValueError, match="copy the model directory"):
        engine.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (
            {"image_proj.proj.weight": torch.zeros(4 * WIDTH, EMBEDDING + 8)},
            "reads embeddings of 32 channels",
        ),
        ({"ip_adapter.99.to_k_ip.weight": torch.zeros(8, WIDTH)}, "attention layers"),
        (None, "lacks tensors"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, tmp_path, broken, sentence):
    weights = load_file(parts / "ip_adapter.safetensors") | broken if broken else {"other": torch.zeros(1)}
    save_file(weights, tmp_path / "bad.safetensors")
    with pytest.raises(ConversionError, match=sentence):
        assemble_parts(parts, tmp_path / "out", ip_adapter=tmp_path / "bad.safetensors")
    assert not (tmp_path / "out").exists()


def test_a_missing_part_is_named(parts, tmp_path):
    with pytest.raises(ConversionError, match="motion_adapter"):
        assemble_parts(parts, tmp_path / "out", motion_adapter=tmp_path / "none")
