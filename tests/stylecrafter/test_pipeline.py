"""The pipeline as a whole: save and load, batches, defaults, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from stylecrafter import StyleCrafterPipeline
from stylecrafter.model_directory import compute_fingerprint, read_fingerprint
from stylecrafter.style_encoder import image_tokens

SMALL = {"num_frames": 2, "height": 16, "width": 24, "num_inference_steps": 2}
BATCH_LIMIT = 1e-5


@pytest.fixture
def rows(pipeline, references):
    """Three rows with one, three and two references: prompts and references."""
    return ["a dog", "a red house on a hill", "waves"], [references[:1], references, references[1:]]


@pytest.fixture
def denoise(pipeline, rows):
    """denoise(indices, settings): latents of these rows together, each with its own seed."""

    def run(indices, **settings):
        prompts, references = rows
        text = pipeline.encode_prompt([prompts[i] for i in indices])
        uncond = pipeline.encode_prompt([""] * len(indices))
        style = torch.cat([pipeline.encode_style(references[i]) for i in indices])
        scales = pipeline.predict_fusion_scales(style, text)
        generators = [torch.Generator().manual_seed(100 + i) for i in indices]
        return pipeline.denoise(text, uncond, style, scales, generators=generators, **SMALL | settings)

    return run


def test_save_and_load_changes_nothing(pipeline, model_path, tmp_path, references):
    pipeline.save_pretrained(tmp_path / "copy")
    loaded = StyleCrafterPipeline.from_pretrained(tmp_path / "copy")
    frames = [p("a dog", references[0], seed=3, **SMALL).frames for p in (pipeline, loaded)]
    assert np.array_equal(*frames)
    assert loaded.generation_config == pipeline.generation_config
    assert read_fingerprint(tmp_path / "copy") == read_fingerprint(model_path)


def test_fingerprint_ignores_shards_and_notices_weights(pipeline, model_path, tmp_path):
    pipeline.save_pretrained(tmp_path / "sharded", max_shard_size="1MB")
    assert len(list((tmp_path / "sharded" / "unet").glob("*.safetensors"))) > 1
    fingerprint = read_fingerprint(model_path)
    assert compute_fingerprint(tmp_path / "sharded") == fingerprint
    config = tmp_path / "sharded" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    assert compute_fingerprint(tmp_path / "sharded") != fingerprint


def test_fingerprint_ignores_options_that_came_later(model_path, tmp_path):
    shutil.copytree(model_path, tmp_path / "old")
    config = tmp_path / "old" / "unet" / "config.json"
    content = json.loads(config.read_text())
    for name in ("relative_position", "temporal_conv", "fps_cond"):
        del content[name]
    config.write_text(json.dumps(content))
    assert compute_fingerprint(tmp_path / "old") == read_fingerprint(model_path)


@pytest.mark.parametrize("batch_guidance", [False, True])
def test_a_row_does_not_depend_on_its_batch(denoise, check, batch_guidance):
    together = denoise([0, 1, 2], batch_guidance=batch_guidance)
    for index in range(3):
        check(together[index : index + 1], denoise([index]), BATCH_LIMIT)


def test_noise_of_a_row_is_bitwise_independent_of_its_batch(denoise):
    first_latents = {}

    def note(name):
        return lambda done, total, latents: first_latents.setdefault(name, latents)

    # With a text scale of 1 and style off, the first step differs by rounding only; noise dominates it.
    settings = {"text_guidance_scale": 1.0, "style_scale": 0.0, "num_inference_steps": 1}
    denoise([0, 1], callback=note("pair"), **settings)
    denoise([1], callback=note("alone"), **settings)
    assert torch.allclose(first_latents["pair"][1:], first_latents["alone"], atol=1e-5)


def test_scales_are_per_row(denoise, check):
    scales = {
        "text_guidance_scale": [15.0, 4.0],
        "style_guidance_scale": [7.5, 0.0],
        "style_scale": [1.0, 0.3],
    }
    together = denoise([0, 1], **scales)
    check(together[:1], denoise([0]), BATCH_LIMIT)
    alone = denoise([1], text_guidance_scale=4.0, style_guidance_scale=0.0, style_scale=0.3)
    check(together[1:], alone, BATCH_LIMIT)


def test_call_is_its_stages(pipeline, denoise, rows):
    prompts, references = rows
    generators = [torch.Generator().manual_seed(100 + i) for i in range(3)]
    frames = pipeline(prompts, references, generators=generators, **SMALL).frames
    assert frames.shape == (3, 2, 16, 24, 3)
    assert np.array_equal(frames, pipeline.decode_latents(denoise([0, 1, 2])))


def test_output_types(pipeline):
    latents = pipeline("a dog", output_type="latent", **SMALL).frames
    assert latents.shape == (1, 4, 2, 8, 12)
    pictures = pipeline("a dog", output_type="pil", **SMALL).frames
    assert [len(row) for row in pictures] == [2]
    assert pictures[0][0].size == (24, 16)


def test_text_alone_uses_single_guidance(pipeline, check):
    plain = pipeline("a dog", output_type="latent", style_guidance_scale=None, **SMALL).frames
    check(pipeline("a dog", output_type="latent", **SMALL).frames, plain, 1e-7)


def test_image_mode_defaults_come_from_the_model(pipeline, references, monkeypatch):
    monkeypatch.setitem(pipeline.generation_config["image"], "height", 32)
    monkeypatch.setitem(pipeline.generation_config["image"], "width", 24)
    image = pipeline("a dog", references[0], mode="image", num_inference_steps=1).frames
    assert image.shape == (1, 1, 32, 24, 3)


def test_seed_decides_the_video(pipeline):
    frames = [pipeline("a dog", seed=seed, **SMALL).frames for seed in (1, 1, 2)]
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


def test_callback_may_stop(denoise):
    def stop(done, total, latents):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise([0], callback=stop)


def test_denoise_leaves_the_scheduler_alone(pipeline, denoise):
    before = pipeline.scheduler.timesteps.clone()
    denoise([0])
    assert torch.equal(pipeline.scheduler.timesteps, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 18}, "height is 18; allowed are positive multiples of 4"),
        ({"width": 0}, "width is 0"),
        ({"num_frames": 0}, "num_frames is 0; allowed in video mode: 1 or more"),
        ({"mode": "image"}, "num_frames is 2; allowed in image mode: 1"),
        ({"mode": "film"}, "mode is 'film'; allowed are 'video', 'image'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; allowed are 1 to 1000"),
        ({"num_inference_steps": 1001}, "num_inference_steps is 1001"),
        ({"eta": 1.5}, "eta is 1.5; allowed are 0 to 1"),
        ({"guidance": "mine"}, "guidance is 'mine'; allowed are 'published', 'paper'"),
        ({"text_guidance_scale": [1.0, 2.0, 3.0]}, "text_guidance_scale has 3 values"),
        ({"style_guidance_scale": float("nan")}, "style_guidance_scale is .*nan"),
        ({"style_scale": float("inf")}, "style_scale is .*inf"),
    ],
)
def test_bad_settings_are_named(denoise, settings, message):
    with pytest.raises(ValueError, match=message):
        denoise([0], **settings)


def test_rows_must_agree(pipeline):
    text = pipeline.encode_prompt(["a", "b"])
    one = [torch.Generator()]
    with pytest.raises(ValueError, match="generators has 1 rows; the prompts have 2"):
        pipeline.denoise(text, text, generators=one, **SMALL)
    with pytest.raises(ValueError, match="uncond has 1 rows"):
        pipeline.denoise(text, text[:1], generators=one * 2, **SMALL)


def test_bad_calls_are_named(pipeline):
    with pytest.raises(ValueError, match="output_type is 'mp4'"):
        pipeline("a dog", output_type="mp4")
    with pytest.raises(ValueError, match="style_images has 1 rows; the prompts have 2"):
        pipeline(["a", "b"], [[Image.new("RGB", (8, 8))]])
    with pytest.raises(ValueError, match="style references are empty"):
        pipeline("a dog", [])


def test_only_local_directories_are_loaded():
    with pytest.raises(ValueError, match="path is 'someone/some-model'; it must be a local model directory"):
        StyleCrafterPipeline.from_pretrained("someone/some-model")


@torch.no_grad()
def test_rounding_of_image_tokens_is_a_setting_of_the_model(model_path, references, tmp_path):
    StyleCrafterPipeline.from_pretrained(model_path, round_image_tokens=True).save_pretrained(tmp_path)
    pipeline = StyleCrafterPipeline.from_pretrained(tmp_path)
    pixels = pipeline.feature_extractor.style(references[:1])
    rounded = image_tokens(pipeline.image_encoder, pixels, round_to_half=True)
    assert torch.equal(pipeline.encode_style(references[0]), pipeline.style_adapter.encode(rounded))


def test_half_precision_weights(model_path, references):
    pipeline = StyleCrafterPipeline.from_pretrained(model_path, dtype=torch.float16)
    assert pipeline.encode_prompt("a dog").dtype == torch.float16
    tokens = pipeline.encode_style(references)
    assert tokens.dtype == torch.float16
    assert torch.isfinite(tokens).all()
