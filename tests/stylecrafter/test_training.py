"""The stages of training: what learns and what does not, what the loss is, and what dropping a condition does."""

import copy
import functools
import re

import pytest
import torch

from examples.untrained_model import build_untrained_pipeline
from stylecrafter import StyleCrafterPipeline
from stylecrafter.depth import new_depth_adapter
from stylecrafter.style_adapter import FUSIONS
from stylecrafter.style_encoder import image_tokens
from stylecrafter.training import STAGES, TrainingModel, TrainingOptions, draw, validation_draws

PIXELS = (16, 32)
NO_DROPS = {"drop_text": 0.0, "drop_style": 0.0}


@pytest.fixture(scope="module")
def untrained() -> StyleCrafterPipeline:
    return build_untrained_pipeline(seed=4, channels=(32, 64), layers_per_block=1)


@pytest.fixture
def make(untrained):
    """make(stage, fusion, options): a model with weights of its own, and a depth adapter."""

    def build(stage, fusion="adaptive", prediction_type="epsilon", **options):
        components = {
            name: copy.deepcopy(part) if isinstance(part, torch.nn.Module) else part
            for name, part in untrained.components.items()
        }
        if fusion != "adaptive":
            components["style_adapter"] = components["style_adapter"].with_fusion(fusion)
        scheduler = untrained.scheduler
        components["scheduler"] = scheduler.from_config(scheduler.config, prediction_type=prediction_type)
        torch.manual_seed(5)
        components["depth_adapter"] = new_depth_adapter(untrained.unet.config, untrained.vae_scale_factor)
        pipeline = StyleCrafterPipeline(**components)
        return TrainingModel(pipeline, stage, TrainingOptions(**NO_DROPS | options))

    return build


@pytest.fixture
def batch(untrained):
    """batch(model, frames): arguments of `forward` for two rows."""

    def build(model, frames, styled=None, positions=(0, 1)):
        generator = torch.Generator().manual_seed(7)
        target = torch.randint(0, 256, (2, frames, *PIXELS, 3), generator=generator, dtype=torch.uint8)
        reference = torch.randn(2, 3, 224, 224, generator=generator)
        ids = untrained.tokenizer.prompt_ids(["a red dog", "two boats"])
        kind = "image" if frames == 1 else "video"
        draws = draw(3, kind, positions, model.latent_shape(frames, *PIXELS), model.options, 1000)
        with_style = model.stage not in ("base", "depth") if styled is None else styled
        arguments = [target, ids, reference if with_style else None, draws]
        return [*arguments, False, target.flip(3)] if model.stage == "depth" else arguments

    return build


def component(name: str) -> str:
    """What a parameter belongs to, told from its name without the code under test."""
    if name.startswith("unet."):
        return "temporal" if "transformer_in" in name or "temp_attentions" in name else "spatial"
    return "adapter" if name.startswith("style_adapter.") else name.split(".")[0]


TRAINS = {
    "base": {"spatial", "temporal"},
    "style": {"adapter"},
    "temporal": {"temporal"},
    "joint": {"temporal", "adapter"},
    "depth": {"depth_adapter"},
}
LEARNS = {
    ("base", 1): {"spatial"},
    ("base", 2): {"spatial", "temporal"},
    ("style", 1): {"adapter"},
    ("temporal", 1): {"temporal"},
    ("temporal", 2): {"temporal"},
    ("joint", 1): {"temporal", "adapter"},
    ("joint", 2): {"temporal", "adapter"},
    ("depth", 1): {"depth_adapter"},
    ("depth", 2): {"depth_adapter"},
}


IDLE = re.compile(r"attn\d\.(to_q|to_k|processor\.keys_RD)")


@pytest.mark.parametrize(("stage", "frames"), LEARNS)
def test_one_step_changes_exactly_what_the_stage_trains(make, batch, stage, frames):
    model = make(stage)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.Adam(model.trainable_parameters().values(), lr=1e-3)
    model(*batch(model, frames)).mean().backward()
    optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    learns = {name for name in before if component(name) in LEARNS[stage, frames]}
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name in before if component(name) in TRAINS[stage]}
    # Over a single frame softmax gives 1 whatever query and key are: these get a gradient of zero.
    idle = {name for name in learns if frames == 1 and component(name) == "temporal" and IDLE.search(name)}
    assert changed == learns - idle


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_whole_adapter_of_every_fusion_learns(make, batch, fusion):
    model = make("style", fusion)
    model(*batch(model, 1)).mean().backward()
    trainable = model.trainable_parameters()
    assert set(trainable) == {f"style_adapter.{name}" for name, _ in model.style_adapter.named_parameters()}
    assert all(parameter.grad.abs().max() > 0 for parameter in trainable.values())


def test_text_encoder_learns_up_to_the_layer_that_is_read(make, batch):
    model = make("base", train_text_encoder=True)
    model(*batch(model, 2)).mean().backward()
    learning = {name for name, p in model.text_encoder.named_parameters() if p.grad is not None}
    unused = {
        name
        for name, _ in model.text_encoder.named_parameters()
        if ".layers.2." in name or name.startswith("text_projection")
    }
    assert learning == {name for name, _ in model.text_encoder.named_parameters()} - unused
    assert all(f"text_encoder.{name}" not in model.trainable_parameters() for name in unused)


def test_temporal_layers_learn_from_videos_without_references(make, batch):
    model = make("temporal")
    model(*batch(model, 2, styled=False)).mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.trainable_parameters().values())


@pytest.mark.parametrize(("stage", "frames", "idle"), [("base", 1, "temporal"), ("joint", 2, "adapter")])
def test_every_batch_gives_every_trainable_parameter_a_gradient(make, batch, stage, frames, idle):
    # Workers of one step may hold batches of different kinds.
    model = make(stage)
    arguments = batch(model, frames, styled=False)
    model(*arguments).mean().backward()
    for name, parameter in model.trainable_parameters().items():
        assert bool((parameter.grad == 0).all()) == (component(name) == idle), name
    assert torch.equal(model(*arguments), model(*arguments, plain=True))


def _note(ran: set[torch.nn.Module], module: torch.nn.Module, *_: object) -> None:
    ran.add(module)


def test_sharding_units_take_part_in_every_batch(make, batch):
    for stage in STAGES:
        model = make(stage)
        units = model.sharding_units()
        for frames, styled in ((1, stage not in ("base", "depth")), (2, stage == "style")):
            ran: set[torch.nn.Module] = set()
            note = functools.partial(_note, ran)
            handles = [unit.register_forward_hook(note) for unit in units]
            model(*batch(model, frames, styled))
            for handle in handles:
                handle.remove()
            assert ran == set(units)


def test_style_projections_start_as_the_texts_when_asked(make):
    for stage in ("style", "joint"):
        model = make(stage, copy_text_projections=True)
        for layer, transformer in zip(
            model.style_adapter.layers, model.unet.spatial_transformers(), strict=True
        ):
            attention = transformer.transformer_blocks[0].attn2
            assert torch.equal(layer.to_k.weight, attention.to_k.weight)
            assert torch.equal(layer.to_v.weight, attention.to_v.weight)
    untouched = make("style").style_adapter.layers[0].to_k.weight
    assert not torch.equal(untouched, model.style_adapter.layers[0].to_k.weight)


def test_frozen_parts_are_in_eval_mode_and_the_rest_trains(make):
    model = make("temporal")
    for mode in (True, False):
        model.train(mode)
        assert not any(m.training for m in (model.vae, model.text_encoder, model.style_adapter))
        assert not any(transformer.training for transformer in model.unet.spatial_transformers())
        assert all(module.training is mode for module in model.unet.transformer_in.modules())
        assert model.training is mode


# ---- The loss ----


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_loss_of_a_styled_image_from_its_parts(make, batch, prediction_type):
    model = make("style", prediction_type=prediction_type)
    target, ids, reference, draws = batch(model, 1)
    with torch.no_grad():
        pixels = target[:, 0].permute(0, 3, 1, 2) / 127.5 - 1
        posterior = model.vae.encode(pixels).latent_dist
        clean = 0.18215 * (posterior.mean + posterior.std * draws.posterior_BCTHW[:, :, 0])
        signal = model.scheduler.alphas_cumprod[draws.timestep_B][:, None, None, None]
        noise = draws.noise_BCTHW[:, :, 0]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        hidden = model.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        text = model.text_encoder.text_model.final_layer_norm(hidden)
        style = model.style_adapter(image_tokens(model.image_encoder, reference), text)
        predicted = model.unet(noisy[:, :, None], draws.timestep_B, text, style, image_mode=True).sample[
            :, :, 0
        ]
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        wanted = noise if prediction_type == "epsilon" else velocity
        expected = (predicted - wanted).square().mean(dim=(1, 2, 3))
    loss = model(target, ids, reference, draws)
    assert loss.shape == (2,)
    assert torch.allclose(loss, expected, rtol=1e-4)


def test_images_skip_the_temporal_layers_only_where_these_do_not_train(make, batch):
    for stage, skipped in (("base", True), ("style", True), ("temporal", False), ("joint", False)):
        model = make(stage)
        arguments = batch(model, 1)
        before = model(*arguments)
        with torch.no_grad():
            for transformer in model.unet.temporal_transformers():
                transformer.proj_out.bias.add_(1.0)
        assert torch.equal(model(*arguments), before) is skipped


def test_min_snr_weighs_rows_and_plain_does_not(make, batch):
    plain, weighted = make("style"), make("style", min_snr_gamma=0.5)
    target, ids, reference, _ = batch(plain, 1)
    draws = validation_draws(0, "image", range(2), 2, plain.latent_shape(1, *PIXELS), 1000)
    expected = plain(target, ids, reference, draws)
    cumulative = plain.scheduler.alphas_cumprod[draws.timestep_B]
    snr = cumulative / (1 - cumulative)
    loss = weighted(target, ids, reference, draws)
    assert torch.allclose(loss, expected * snr.clamp(max=0.5) / snr, rtol=1e-4)
    assert torch.allclose(weighted(target, ids, reference, draws, plain=True), expected)


def test_scale_penalty_is_the_mean_square_of_the_scales_of_styled_rows(make, batch):
    free, bound = make("style"), make("style", scale_penalty=0.5)
    target, ids, reference, draws = batch(free, 1)
    draws.drop_style_B[1] = True
    with torch.no_grad():
        style = bound.style_adapter.encode(image_tokens(bound.image_encoder, reference))
        hidden = bound.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        text = bound.text_encoder.text_model.final_layer_norm(hidden)
        scales = bound.style_adapter.predict_scales(style, text)
    difference = bound(target, ids, reference, draws) - free(target, ids, reference, draws)
    assert difference[0].item() == pytest.approx(0.5 * scales[0].square().mean().item(), rel=1e-3)
    assert difference[1].item() == 0
    assert torch.equal(bound(target, ids, reference, draws, plain=True), free(target, ids, reference, draws))


# ---- Dropped conditions ----


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("frames", [1, 2])
def test_a_row_that_loses_its_style_has_the_loss_of_text_alone(make, batch, fusion, frames):
    model = make("joint", fusion)
    target, ids, reference, draws = batch(model, frames)
    styled, plain = model(target, ids, reference, draws), model(target, ids, None, draws)
    draws.drop_style_B[1] = True
    mixed = model(target, ids, reference, draws)
    assert torch.allclose(mixed, torch.stack([styled[0], plain[1]]), rtol=1e-5)
    assert abs(styled[1] - plain[1]) > 1e-4
    if fusion != "append":
        draws.drop_style_B[0] = True
        assert torch.equal(model(target, ids, reference, draws), plain)


def test_a_row_that_loses_its_text_has_the_loss_of_the_empty_prompt(make, batch, untrained):
    model = make("style")
    target, ids, reference, draws = batch(model, 1)
    draws.drop_text_B[1] = True
    dropped = model(target, ids, reference, draws)
    draws.drop_text_B[1] = False
    ids_with_empty = torch.cat([ids[:1], untrained.tokenizer.prompt_ids([""])])
    assert torch.equal(dropped, model(target, ids_with_empty, reference, draws))
    assert abs(dropped[1] - model(target, ids, reference, draws)[1]) > 1e-4


def test_a_rows_loss_does_not_depend_on_its_batch(make, batch):
    model = make("style")
    target, ids, reference, draws = batch(model, 1)
    alone = batch(model, 1, positions=[1])[3]
    loss = model(target[1:], ids[1:], reference[1:], alone)
    assert torch.allclose(loss, model(target, ids, reference, draws)[1:], rtol=1e-4)


# ---- How it is run ----


@pytest.mark.parametrize(("stage", "frames"), LEARNS)
def test_gradient_checkpointing_gives_equal_gradients(make, batch, stage, frames):
    model = make(stage)
    runs = []
    modules = [model.unet.transformer_in, model.unet.mid_block.attentions[0]]
    for module in modules:
        module.register_forward_pre_hook(lambda module, _: runs.append(module))

    def gradients():
        model.zero_grad()
        runs.clear()
        model(*batch(model, frames)).mean().backward()
        return {name: parameter.grad for name, parameter in model.trainable_parameters().items()}

    plain = gradients()
    once = len(runs)
    model.unet.enable_gradient_checkpointing()
    recomputed = gradients()
    # The middle and the input's transformer are recomputed too; before depth comes in, nothing needs a gradient.
    assert len(runs) == 2 * once - (stage == "depth" and frames > 1)
    assert plain.keys() == recomputed.keys()
    assert all(torch.allclose(plain[name], recomputed[name], atol=1e-6) for name in plain)


@pytest.mark.parametrize("stage", STAGES)
def test_autocast(make, batch, stage):
    model = make(stage)
    arguments = batch(model, 1)
    exact = model(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(*arguments)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, exact, rtol=0.05)
    loss.mean().backward()
    gradients = [p.grad for p in model.trainable_parameters().values() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() and gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_autocast_of_every_fusion(make, batch, fusion):
    model = make("style", fusion)
    arguments = batch(model, 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(*arguments)
    assert torch.allclose(loss, model(*arguments), rtol=0.05)
    loss.mean().backward()
    assert all(p.grad.abs().max() > 0 for p in model.trainable_parameters().values())


def test_frames_may_be_encoded_in_chunks_of_any_size(make, batch):
    one, many = make("temporal", vae_chunk_frames=1), make("temporal", vae_chunk_frames=8)
    arguments = batch(one, 3)
    assert torch.allclose(one(*arguments), many(*arguments), rtol=1e-4)


def test_no_graph_is_kept_without_gradients(make, batch):
    model = make("joint")
    with torch.no_grad():
        assert not model(*batch(model, 1)).requires_grad


def test_the_pipeline_renders_between_steps(untrained, batch):
    components = {
        n: copy.deepcopy(p) for n, p in untrained.components.items() if isinstance(p, torch.nn.Module)
    }
    pipeline = StyleCrafterPipeline(**untrained.components | components)
    model = TrainingModel(pipeline, "temporal", TrainingOptions())
    size = {"height": PIXELS[0], "width": PIXELS[1], "num_frames": 2, "num_inference_steps": 1}
    before = pipeline("a dog", output_type="latent", **size).frames
    optimiser = torch.optim.SGD(model.trainable_parameters().values(), lr=1.0)
    model(*batch(model, 2)).mean().backward()
    optimiser.step()
    after = pipeline("a dog", output_type="latent", **size).frames
    assert not torch.allclose(before, after)
    assert model(*batch(model, 2)).requires_grad


@pytest.mark.parametrize(
    ("stage", "fusion", "options", "message"),
    [
        ("second", "adaptive", {}, "stage is 'second'; allowed are 'base', 'style', 'temporal', 'joint'"),
        ("style", "adaptive", {"train_text_encoder": True}, "train_text_encoder is true in the style stage"),
        (
            "temporal",
            "adaptive",
            {"copy_text_projections": True},
            "copy_text_projections is True in the temporal",
        ),
        ("base", "adaptive", {"scale_penalty": 0.1}, "scale_penalty is 0.1 in the base stage"),
        ("style", "fixed", {"scale_penalty": 0.1}, "only adaptive fusion predicts scales"),
    ],
)
def test_options_without_effect_are_refused(make, stage, fusion, options, message):
    with pytest.raises(ValueError, match=message):
        make(stage, fusion, **options)


def test_misfitting_batches_are_refused(make, batch):
    base, style, depth = make("base"), make("style"), make("depth")
    with pytest.raises(ValueError, match="reference_B3HW is given in the base stage; allowed is None"):
        base(*batch(base, 1, styled=True))
    with pytest.raises(ValueError, match="depth_BTHWC is missing in the depth stage"):
        depth(*batch(depth, 1)[:4])
    with pytest.raises(ValueError, match="depth_BTHWC is given in the base stage"):
        base(*batch(base, 1), depth_BTHWC=batch(base, 1)[0])
    with pytest.raises(ValueError, match=r"depth_BTHWC has shape \(2, 1, .*; its targets have \(2, 2, "):
        depth(*batch(depth, 2)[:5], depth_BTHWC=batch(depth, 1)[0])
    with pytest.raises(ValueError, match="reference_B3HW is None in the style stage"):
        style(*batch(style, 1, styled=False))
    target, ids, reference, _ = batch(style, 1)
    with pytest.raises(
        ValueError, match=r"noise_BCTHW has shape \(2, 4, 2, 2, 4\); .* need \(2, 4, 1, 2, 4\)"
    ):
        style(target, ids, reference, batch(style, 2)[3])


def test_the_schedulers_prediction_type_must_be_known(make):
    with pytest.raises(ValueError, match="prediction_type is 'sample'"):
        make("base", prediction_type="sample")


def test_depth_that_is_the_targets_own_is_worth_learning_from(make, batch):
    model = make("depth")
    target, *rest = batch(model, 2)
    optimiser = torch.optim.Adam(model.trainable_parameters().values(), lr=1e-3)
    losses = []
    for _ in range(15):
        loss = model(target, *rest[:4], depth_BTHWC=target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_a_model_without_depth_adapter_has_no_depth_stage(untrained):
    with pytest.raises(ValueError, match="no depth adapter to train"):
        TrainingModel(untrained, "depth", TrainingOptions())
