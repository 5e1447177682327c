"""VideoCrafter2 bases: temporal convolutions, fps embedding and the scaled noise schedule, against the published code."""

import gzip
import json

import pytest
import torch
from diffusers import DDIMScheduler

from stylecrafter import StyleCrafterPipeline
from stylecrafter.checkpoint_files import PublishedFiles
from stylecrafter.conversion_plan import plan_parts, plan_problems
from stylecrafter.convert import ConversionError, convert
from stylecrafter.key_maps import is_temporal
from stylecrafter.noise_schedule import ScaledDDIMScheduler
from stylecrafter.published_params import published_params
from stylecrafter.sampling import prepare_scheduler
from stylecrafter.unet import StyleCrafterUNet
from tests.support.golden import DATA, TINY, TINY_VC2, complete_files, convert_golden, golden_numbers

UNET_LIMIT, TABLE_LIMIT, TRAJECTORY_LIMIT = 3e-5, 1e-6, 1e-4
LAYER_LIMIT = 1e-5
STEPS = 5


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> StyleCrafterPipeline:
    return convert_golden(TINY_VC2, tmp_path_factory.mktemp("vc2"))


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return golden_numbers(TINY_VC2)


@pytest.fixture
def predict(pipeline, golden):
    """predict(x, options): prediction for the first rows of the golden timesteps and contexts."""

    def run(x, style=None, text=None, **options):
        text = golden["unet.context"][: len(x)] if text is None else text
        return pipeline.unet(x, golden["unet.t"][: len(x)], text, style, **options).sample

    return run


@pytest.fixture
def condition(pipeline, golden):
    def make(scaled=True, style_scale=1.0):
        scales = golden["style.scale"] if scaled else None
        return pipeline.style_adapter.condition(golden["style.tokens"], scales, style_scale)

    return make


# ---- UNet ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fps"),
    [("fps8", 8), ("fps24", 24), ("fps_default", None), ("fps_rows_8_28", torch.tensor([8, 28]))],
)
def test_fps(predict, golden, check, name, fps):
    check(predict(golden["unet.x"], fps=fps), golden[f"unet.eps_{name}"], UNET_LIMIT)


def test_empty_prompt_one_frame_and_long(predict, golden, check):
    empty = golden["unet.context"][2:].expand(2, -1, -1)
    check(predict(golden["unet.x"], text=empty, fps=8), golden["unet.eps_uncond_fps8"], UNET_LIMIT)
    check(predict(golden["unet.x"][:, :, :1], fps=8), golden["unet.eps_t1_fps8"], UNET_LIMIT)
    check(predict(golden["unet.x_long"], fps=8), golden["unet.eps_long_fps8"], UNET_LIMIT)


def test_style(predict, condition, golden, check):
    x = golden["unet.x"]
    check(predict(x, condition(), fps=8), golden["style.eps_fps8"], UNET_LIMIT)
    check(predict(x, condition()), golden["style.eps_fps_default"], UNET_LIMIT)
    check(predict(x, condition(scaled=False), fps=8), golden["style.eps_fps8_noscale"], UNET_LIMIT)
    check(predict(x, condition(style_scale=0.5), fps=8), golden["style.eps_fps8_w05"], UNET_LIMIT)


@pytest.mark.parametrize(
    ("name", "fps"),
    [("text_fps8", 8), ("text_fps24", 24), ("style_fps8", 8), ("style_fps_default", None)],
)
def test_image_mode_keeps_the_fps(predict, condition, golden, check, name, fps):
    style = condition() if name.startswith("style") else None
    actual = predict(golden["image.x"], style, fps=fps, image_mode=True)
    check(actual, golden[f"image.eps_{name}"], UNET_LIMIT)


def test_temporal_convolution(pipeline, golden, check):
    layer = pipeline.unet.down_blocks[0].temp_convs[0]
    name = "unet.act.input_blocks.1.0.temporal_conv"
    x = golden[f"{name}.input"]
    check(layer.conv1(x), golden[f"{name}.conv1"], 2e-6)
    frames = x[0].transpose(0, 1)
    output = layer(frames, num_frames=len(frames)).transpose(0, 1)[None]
    check(output, golden[f"{name}.output"], LAYER_LIMIT)


def test_fps_embedding(pipeline, golden, check):
    sinusoid = pipeline.unet.time_proj(golden["fps_embedding.fps"])
    check(sinusoid, golden["fps_embedding.sinusoid"], TABLE_LIMIT)
    check(pipeline.unet.fps_embedding(sinusoid), golden["fps_embedding.out"], LAYER_LIMIT)


def test_scale_predictor(pipeline, golden, check):
    predicted = pipeline.predict_fusion_scales(golden["style.tokens"], golden["unet.context"][:2])
    check(predicted, golden["style.scale"], LAYER_LIMIT)


# ---- Schedule ------------------------------------------------------------------------------------


def test_scale_table_and_noising(pipeline, golden, check):
    scheduler = pipeline.scheduler
    assert isinstance(scheduler, ScaledDDIMScheduler)
    check(scheduler.signal_scales, golden["schedule.scale_arr"][:1000], TABLE_LIMIT)
    noised = ("q_sample.x0", "q_sample.noise", "q_sample.t")
    check(scheduler.add_noise(*map(golden.get, noised)), golden["q_sample.xt"], TABLE_LIMIT)
    of_1024 = ScaledDDIMScheduler.from_config(scheduler.config, signal_scale=0.3)
    check(of_1024.signal_scales, golden["schedule.scale_arr_b03_fixed"], TABLE_LIMIT)
    check(of_1024.add_noise(*map(golden.get, noised)), golden["q_sample.xt_b03_fixed"], TABLE_LIMIT)


@pytest.mark.parametrize("steps", [5, 30, 50])
def test_sampler_tables(pipeline, golden, check, steps):
    scheduler = prepare_scheduler(pipeline.scheduler, steps)
    timesteps = scheduler.timesteps.flip(0)
    assert torch.equal(timesteps, golden[f"ddim.{steps}.timesteps"])
    check(scheduler.signal_scales[timesteps], golden[f"ddim.{steps}.scale"], TABLE_LIMIT)


def test_plain_schedule_is_the_scaled_one_times_a_factor(pipeline):
    scheduler = pipeline.scheduler
    betas, factor = scheduler.without_scale()
    alphas = (1 - betas).cumprod(0)
    assert (betas > 0).all()
    signal = scheduler.alphas_cumprod.double().sqrt() * scheduler.signal_scales
    assert torch.allclose(alphas.sqrt() * factor, signal)
    assert torch.allclose((1 - alphas).sqrt() * factor, (1 - scheduler.alphas_cumprod.double()).sqrt())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signal_scale": 0.0}, "signal_scale is 0.0; allowed are numbers above 0 up to 1"),
        ({"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'"),
    ],
)
def test_impossible_schedules_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ScaledDDIMScheduler(**change)


# ---- Trajectories --------------------------------------------------------------------------------


@pytest.fixture
def denoise(pipeline, golden):
    """denoise(context, seed, settings): latents in the size of the golden trajectories."""

    def run(context, seed, style=None, pipeline=pipeline, shape=(8, 8, 12), **settings):
        text, uncond = golden["unet.context"][context : context + 1], golden["unet.context"][2:]
        scales = None if style is None else pipeline.predict_fusion_scales(style, text)
        frames, height, width = shape
        factor = pipeline.vae_scale_factor
        return pipeline.denoise(
            text,
            uncond,
            style,
            scales,
            generators=[torch.Generator().manual_seed(seed)],
            num_frames=frames,
            height=height * factor,
            width=width * factor,
            num_inference_steps=STEPS,
            **settings,
        )

    return run


# Seeds of the golden noise (golden_meta.json).
SEED, STYLE_SEED, IMAGE_SEED = 4341, 4371, 4381
VIDEOCRAFTER = {"text_guidance_scale": 12.0, "conditioning_fps": 28}


def test_noise_is_the_golden_one(golden):
    generator = torch.Generator().manual_seed(SEED)
    assert torch.equal(torch.randn(golden["traj.x_T"].shape, generator=generator), golden["traj.x_T"])


@pytest.mark.parametrize("batch_guidance", [False, True])
def test_trajectory(denoise, golden, check, batch_guidance):
    steps = []
    latents = denoise(
        0, SEED, **VIDEOCRAFTER, batch_guidance=batch_guidance, callback=lambda *step: steps.append(step[2])
    )
    for step, expected in zip(steps, golden["traj.x"][1:], strict=True):
        check(step, expected, TRAJECTORY_LIMIT)
    check(latents, golden["traj.sample"], TRAJECTORY_LIMIT)
    check(denoise(0, SEED, **VIDEOCRAFTER, eta=0.0), golden["traj_eta0.sample"], TRAJECTORY_LIMIT)


def test_a_plain_scheduler_is_the_sampler_without_scale(denoise, pipeline, golden, check):
    plain = StyleCrafterPipeline(
        **pipeline.components | {"scheduler": DDIMScheduler.from_config(pipeline.scheduler.config)}
    )
    latents = denoise(0, SEED, pipeline=plain, **VIDEOCRAFTER)
    check(latents, golden["traj_use_scale_false.sample"], TRAJECTORY_LIMIT)
    styled = denoise(0, STYLE_SEED, golden["style.tokens"][:1], pipeline=plain, conditioning_fps=8)
    check(styled, golden["style_traj_official_unscaled.sample"], TRAJECTORY_LIMIT)


def test_style_trajectory(denoise, golden, check):
    latents = denoise(0, STYLE_SEED, golden["style.tokens"][:1], conditioning_fps=8)
    check(latents, golden["style_traj_scaled.sample"], TRAJECTORY_LIMIT)


def test_image_trajectory(denoise, golden, check):
    latents = denoise(
        1,
        IMAGE_SEED,
        golden["style.tokens"][1:],
        mode="image",
        shape=(1, 12, 8),
        text_guidance_scale=6.0,
    )
    check(latents, golden["image_traj.sample"], TRAJECTORY_LIMIT)


# ---- Conversion ----------------------------------------------------------------------------------


def test_generation_settings_name_the_rate(pipeline):
    assert pipeline.generation_config["conditioning_fps"] == 16
    assert pipeline.generation_config["fps"] == 10  # of the file


def test_shapes_tell_the_architecture(pipeline, tmp_path):
    files = complete_files(TINY_VC2, tmp_path)
    content = PublishedFiles.read(**{k: v for k, v in files.items() if k != "architecture"})
    params = published_params(content, None, None)
    config = pipeline.unet.config
    assert params.unet["num_head_channels"] == config.attention_head_dim
    assert (params.unet["temporal_conv"], params.unet["fps_cond"]) == (True, True)
    assert params.unet["use_relative_position"] is False
    assert params.diffusion == {"use_scale": True, "scale_b": 0.7}


def test_temporal_weights_of_videocrafter1_are_refused(tmp_path):
    files = complete_files(TINY_VC2, tmp_path) | {"temporal": TINY / "temporal_v1_1.pth"}
    with pytest.raises(ConversionError, match="relative_position_k"):
        convert(**files, output=tmp_path / "model")


@pytest.fixture(scope="module")
def full_layout() -> dict:
    return json.loads(gzip.decompress((DATA / "layout_full_vc2.json.gz").read_bytes()))


def test_every_key_of_the_full_size_model_fits(files, full_layout):
    shapes = {key: x for key, x in files.tensors["checkpoint"].items() if key not in full_layout["removed"]}
    added = {key: torch.empty(shape, device="meta") for key, shape in full_layout["added"].items()}
    tensors = {role: files.tensors[role] for role in ("adapter", "open_clip")} | {
        "checkpoint": shapes | added
    }
    content = PublishedFiles({role: files.paths[role] for role in tensors}, tensors)
    parts = plan_parts(content, published_params(content, None, None))
    assert plan_problems(content, parts) == []
    (unet,) = (part for part in parts if part.name == "unet")
    assert unet.unused() == []
    counts = full_layout["parameter_counts"]
    sizes = {name: parameter.numel() for name, parameter in unet.model.named_parameters()}
    assert sum(sizes.values()) == counts["unet"] == 1_413_284_420
    temporal = sum(size for name, size in sizes.items() if is_temporal(name))
    assert temporal == counts["temporal_convs"] + counts["temporal_transformers"]


def test_an_fps_is_refused_without_its_embedding(model_path, golden):
    unet = StyleCrafterUNet.from_pretrained(model_path, subfolder="unet")
    with pytest.raises(ValueError, match="fps is 24; this model has no fps embedding"):
        unet(torch.zeros(1, 4, 1, 8, 8), 1, golden["unet.context"][:1], fps=24)


@pytest.mark.parametrize("rate", [0, -8, [8, 0]])
def test_impossible_rates_are_refused(denoise, rate):
    with pytest.raises(ValueError, match="conditioning_fps"):
        denoise(0, SEED, conditioning_fps=rate)
