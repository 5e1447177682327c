"""Samplers besides the published one, guidance intervals, and the switches that trade speed for exactness."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from stylecrafter import StyleCrafterPipeline
from stylecrafter.noise_schedule import ScaledDDIMScheduler
from stylecrafter.sampling import SAMPLERS, draw_noise, prepare_sampler, sample
from stylecrafter.speed import SpeedOptions, apply_speed_options
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.unet import ATTENTION_DOWN, ATTENTION_UP, StyleCrafterUNet

SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
SMALL = {"num_frames": 2, "height": 16, "width": 24, "num_inference_steps": 3, "output_type": "latent"}
OTHERS = [name for name in SAMPLERS if name != "ddim"]
SHAPE = (4, 2, 4, 4)
ROUNDING = 1e-5


def generators(rows: int = 2) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(row) for row in range(rows)]


class Gaussian:
    """The exact model of data drawn from N(mean, deviation^2), of the noise, the velocity, or for consistency."""

    mean, deviation = 2.0, 0.5

    def __init__(self, scheduler: DDIMScheduler, consistent: bool = False):
        alphas = scheduler.alphas_cumprod
        scales = getattr(scheduler, "signal_scales", torch.ones_like(alphas))
        self.signal, self.noise = alphas.sqrt() * scales, (1 - alphas).sqrt()
        self.prediction = scheduler.config.prediction_type
        self.consistent = consistent

    def flow(self, x: torch.Tensor, timestep: float) -> torch.Tensor:
        """Where the probability flow from x ends."""
        signal, noise = self.signal[round(timestep)], self.noise[round(timestep)]
        width = ((signal * self.deviation) ** 2 + noise**2).sqrt()
        return self.mean + self.deviation * (x - signal * self.mean) / width

    def __call__(self, x: torch.Tensor, timestep: float, guided: bool) -> torch.Tensor:
        signal, noise = self.signal[round(timestep)], self.noise[round(timestep)]
        variance = (signal * self.deviation) ** 2 + noise**2
        clean = self.mean + signal * self.deviation**2 * (x - signal * self.mean) / variance
        if self.consistent:
            clean = self.flow(x, timestep)
        epsilon = (x - signal * clean) / noise
        return epsilon if self.prediction == "epsilon" else signal * epsilon - noise * clean


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(**SCHEDULE),
        DDIMScheduler(**SCHEDULE, prediction_type="v_prediction"),
        ScaledDDIMScheduler(),
    ],
    ids=["epsilon", "velocity", "scaled"],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_reach_the_data(scheduler, name):
    rows, shape = 64, (1, 1, 4, 4)
    taken = generators(rows)
    noise = draw_noise(taken, shape)
    model = Gaussian(scheduler, consistent=name == "lcm")
    found = sample(model, prepare_sampler(scheduler, name, 40), noise, taken, eta=0.0)
    assert found.mean().item() == pytest.approx(Gaussian.mean, abs=0.1)
    assert found.std().item() == pytest.approx(Gaussian.deviation, rel=0.1)


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(**SCHEDULE), ScaledDDIMScheduler()], ids=["plain", "scaled"]
)
def test_ten_steps_are_nearer_to_the_flow_than_ten_of_the_published_sampler(scheduler, name):
    model = Gaussian(scheduler)
    noise = draw_noise(generators(), SHAPE)
    last = len(model.signal) - 1
    exact = model.flow(noise * (model.signal[last] ** 2 + model.noise[last] ** 2).sqrt(), last)
    solver, ddim = (
        (sample(model, prepare_sampler(scheduler, s, 10), noise, generators(), eta=0.0) - exact).norm()
        for s in (name, "ddim")
    )
    assert solver < ddim / 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_rows_do_not_depend_on_each_other_and_draw_in_order(name):
    scheduler = DDIMScheduler(**SCHEDULE)
    steps = 4
    model = Gaussian(scheduler)

    def run(rows):
        taken = [torch.Generator().manual_seed(row) for row in rows]
        noise = draw_noise(taken, SHAPE)
        latents = sample(model, prepare_sampler(scheduler, name, steps), noise, taken, eta=1.0)
        return latents, taken

    both, taken = run([5, 6])
    assert torch.equal(both[1:], run([6])[0])
    draws = {"ddim": steps, "lcm": steps - 1}.get(name, 0)
    expected = torch.Generator().manual_seed(6)
    for _ in range(1 + draws):
        torch.randn((1, *SHAPE), generator=expected)
    assert torch.equal(taken[1].get_state(), expected.get_state())


def test_refused_samplers_and_steps():
    scheduler = DDIMScheduler(**SCHEDULE)
    with pytest.raises(ValueError, match="sampler is 'heun'; allowed are 'ddim', 'dpm\\+\\+'"):
        prepare_sampler(scheduler, "heun", 10)
    with pytest.raises(ValueError, match="num_inference_steps is 51; allowed are 1 to 50"):
        prepare_sampler(scheduler, "lcm", 51)
    for name in SAMPLERS:
        with pytest.raises(ValueError, match="num_inference_steps is 0; allowed are 1 to"):
            prepare_sampler(scheduler, name, 0)


# ---- Through the pipeline ------------------------------------------------------------------------


@pytest.fixture
def own(model_path) -> StyleCrafterPipeline:
    """A pipeline of its own, which a test may change."""
    return StyleCrafterPipeline.from_pretrained(model_path)


@pytest.fixture
def render(references):
    def run(pipeline, **settings):
        return pipeline("a dog", references[0], seed=3, **SMALL | settings).frames

    return run


@pytest.mark.parametrize("name", OTHERS)
def test_samplers_of_the_pipeline(pipeline, render, name):
    latents = render(pipeline, sampler=name)
    assert torch.isfinite(latents).all()
    assert torch.equal(latents, render(pipeline, sampler=name))
    assert not torch.allclose(latents, render(pipeline))


def test_sampler_of_the_model_directory(pipeline, render, monkeypatch):
    expected = render(pipeline, sampler="unipc")
    monkeypatch.setitem(pipeline.generation_config, "sampler", "unipc")
    assert torch.equal(render(pipeline), expected)


def test_guidance_interval(pipeline, render, monkeypatch):
    branches = []
    forward = type(pipeline.unet).forward

    def counted(unet, *arguments, **keywords):
        branches.append(1)
        return forward(unet, *arguments, **keywords)

    monkeypatch.setattr(type(pipeline.unet), "forward", counted)
    counts = {}
    for interval in ((0.0, 1.0), (0.0, 0.5), (0.5, 0.5)):
        branches.clear()
        latents = render(pipeline, guidance_interval=interval, batch_guidance=False)
        counts[interval] = len(branches), latents
    assert [count for count, _ in counts.values()] == [9, 7, 3]
    assert torch.equal(counts[0.0, 1.0][1], render(pipeline, batch_guidance=False))
    unguided = render(pipeline, text_guidance_scale=1.0, style_guidance_scale=None)
    assert torch.equal(counts[0.5, 0.5][1], unguided)


@pytest.mark.parametrize("interval", [(0.5, 0.4), (-0.1, 1.0), (0.0, 1.1)])
def test_impossible_intervals_are_refused(pipeline, render, interval):
    with pytest.raises(ValueError, match=r"guidance_interval is .*; allowed are 0 <= start <= end <= 1"):
        render(pipeline, guidance_interval=interval)


# ---- Speed options -------------------------------------------------------------------------------


def test_defaults_change_nothing(pipeline, own, render):
    apply_speed_options(own, SpeedOptions())
    assert torch.equal(render(own), render(pipeline))
    assert not own.unet.is_cache_enabled


def test_slicing_and_small_tiles_change_no_frame(pipeline, own, golden, check):
    expected = pipeline.decode_latents_to_float(golden["vae.z"])
    apply_speed_options(own, SpeedOptions(vae_slicing=True, vae_tiling=True))
    assert own.vae.use_slicing and own.vae.use_tiling
    check(own.decode_latents_to_float(golden["vae.z"]), expected, ROUNDING)


def test_tiles_of_large_frames_are_blended(own, golden):
    expected = own.decode_latents_to_float(golden["vae.z"])
    apply_speed_options(own, SpeedOptions(vae_tiling=True))
    assert own.vae.tile_latent_min_size == 32
    own.vae.tile_latent_min_size, own.vae.tile_sample_min_size = 8, 8 * own.vae_scale_factor
    tiled = own.decode_latents_to_float(golden["vae.z"])
    assert tiled.shape == expected.shape
    assert not torch.equal(tiled, expected)


def test_channels_last(pipeline, own, render, check):
    apply_speed_options(own, SpeedOptions(channels_last=True))
    assert own.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    check(render(own), render(pipeline), ROUNDING)


def test_fp8_weights(pipeline, own, render):
    apply_speed_options(own, SpeedOptions(fp8_weights=True))
    weights = own.unet.down_blocks[0].resnets[0].conv1.weight
    assert weights.dtype == torch.float8_e4m3fn
    assert own.unet.down_blocks[0].resnets[0].norm1.weight.dtype == torch.float32
    before, after = render(pipeline), render(own)
    assert weights.dtype == torch.float8_e4m3fn
    assert 0 < (after - before).norm() / before.norm() < 1


@pytest.mark.slow
@torch.no_grad()
def test_compiled(monkeypatch):
    """Traced in one graph; the backend that makes code of it is torch's affair and takes minutes."""
    unet = StyleCrafterUNet(
        block_out_channels=(32,),
        down_block_types=(ATTENTION_DOWN,),
        up_block_types=(ATTENTION_UP,),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=16,
    ).eval()
    channels = unet.style_layer_channels
    adapter = StyleAdapter(image_dim=16, context_dim=16, num_layers=1, layer_channels=channels)
    inputs = torch.randn(1, 4, 2, 4, 4), 500, torch.randn(1, 7, 16), adapter.condition(torch.randn(1, 8, 16))
    expected = unet(*inputs).sample
    compiled = type(unet).compile
    monkeypatch.setattr(type(unet), "compile", lambda unet: compiled(unet, backend="eager", fullgraph=True))
    apply_speed_options(SimpleNamespace(unet=unet), SpeedOptions(compile=True))
    assert torch.allclose(unet(*inputs).sample, expected, atol=1e-5)


def test_attention_broadcast_of_one_step_changes_nothing(pipeline, own, render, check):
    apply_speed_options(own, SpeedOptions(attention_broadcast=(1, 1, 1)))
    check(render(own), render(pipeline), ROUNDING)


def test_attention_broadcast(pipeline, own, render, monkeypatch):
    apply_speed_options(own, SpeedOptions(attention_broadcast=(2, 4, 6)))
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments, **keywords):
        calls.append(1)
        return attend(*arguments, **keywords)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    counts = {}
    for name, used in (("plain", pipeline), ("broadcast", own)):
        calls.clear()
        latents = render(used, num_inference_steps=10, batch_guidance=True)
        counts[name] = len(calls), latents
    assert counts["broadcast"][0] < 0.7 * counts["plain"][0]
    error = (counts["broadcast"][1] - counts["plain"][1]).norm() / counts["plain"][1].norm()
    assert 0 < error < 1


def test_attention_broadcast_forgets_other_runs(own, render):
    apply_speed_options(own, SpeedOptions(attention_broadcast=(2, 4, 6)))
    settings = {"num_inference_steps": 5, "guidance_interval": (0.0, 0.5)}
    first = render(own, **settings)
    render(own, text_guidance_scale=3.0, **settings)
    assert torch.equal(render(own, **settings), first)


def test_impossible_broadcasts_are_refused():
    with pytest.raises(ValueError, match=r"attention_broadcast is \(2, 0, 6\)"):
        SpeedOptions(attention_broadcast=(2, 0, 6))
