"""Depth guidance: parity with the published code, preprocessing of clips, and the way through the pipeline."""

import json
import shutil

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

from stylecrafter import StyleCrafterPipeline
from stylecrafter.convert import ConversionError, convert
from stylecrafter.depth import depth_features, new_depth_adapter, prepare_depth
from stylecrafter.meta_pipeline import meta_pipeline
from stylecrafter.model_directory import compute_fingerprint, read_fingerprint
from tests.support.golden import TINY_DEPTH, complete_files, convert_golden, golden_numbers

UNET_LIMIT, ADAPTER_LIMIT, TRAJECTORY_LIMIT = 3e-5, 1e-5, 1e-4
FEATURES = 4
SEED = 8785  # of the golden noise


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def depth_pipeline(tmp_path_factory) -> StyleCrafterPipeline:
    folder = tmp_path_factory.mktemp("depth")
    return convert_golden(TINY_DEPTH, folder, depth_adapter=TINY_DEPTH / "depth_adapter.pth")


@pytest.fixture(scope="module")
def numbers() -> dict[str, torch.Tensor]:
    return golden_numbers(TINY_DEPTH)


@pytest.fixture
def features(numbers):
    """features(prefix): the golden feature maps of that name."""

    def of(prefix="features"):
        return [numbers[f"{prefix}.{index}"] for index in range(FEATURES)]

    return of


@pytest.fixture
def predict(depth_pipeline, numbers):
    def run(x, features=(), styled=False, text=None, image_mode=False):
        text = numbers["unet.context"][:2] if text is None else text
        condition = depth_pipeline.style_adapter.condition
        style = condition(numbers["style.tokens"], numbers["style.scale"]) if styled else None
        unet = depth_pipeline.unet
        t = numbers["unet.t"]
        return unet(x, t, text, style, image_mode=image_mode, depth_features=features).sample

    return run


# ---- UNet ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("styled", [False, True])
@pytest.mark.parametrize("with_depth", [False, True])
@pytest.mark.parametrize("image_mode", [False, True])
def test_features(predict, numbers, features, check, styled, with_depth, image_mode):
    prefix = "image" if image_mode else "unet"
    maps = features("image.features" if image_mode else "features") if with_depth else ()
    name = f"{prefix}.eps_{'style' if styled else 'text'}{'_depth' if with_depth else ''}"
    actual = predict(numbers[f"{prefix}.x"], maps, styled, image_mode=image_mode)
    check(actual, numbers[name], UNET_LIMIT)


def test_features_reach_the_empty_prompt_too(predict, numbers, features, check):
    empty = numbers["unet.context"][2:].expand(2, -1, -1)
    check(predict(numbers["unet.x"], features(), text=empty), numbers["unet.eps_uncond_depth"], UNET_LIMIT)


@pytest.mark.parametrize("kept", range(FEATURES))
def test_each_feature_in_its_place(predict, numbers, features, check, kept):
    alone = [x if index == kept else torch.zeros_like(x) for index, x in enumerate(features())]
    check(predict(numbers["unet.x"], alone), numbers[f"unet.eps_text_only_feature_{kept}"], UNET_LIMIT)


def test_places_count_blocks_not_levels(pipeline, golden, numbers, check):
    """One layer per level: the only feature follows the strided convolution."""
    maps = [numbers["with_tiny_weights.features.0"]]
    inputs = golden["unet.x"], golden["unet.t"], golden["text.embedding"][:2]
    actual = pipeline.unet(*inputs, depth_features=maps).sample
    check(actual, numbers["with_tiny_weights.eps_text_depth"], UNET_LIMIT)
    style = pipeline.style_adapter.condition(golden["style.tokens"][:2], golden["style.scale"])
    actual = pipeline.unet(*inputs, style, depth_features=maps).sample
    check(actual, numbers["with_tiny_weights.eps_style_depth"], UNET_LIMIT)


def test_misfitting_features_are_refused(predict, numbers, features):
    with pytest.raises(ValueError, match=r"depth features have shapes .*; expected \[\(8, 32, 8, 16\)"):
        predict(numbers["unet.x"], features()[:3])
    with pytest.raises(ValueError, match="depth features have shapes"):
        predict(numbers["unet.x"], [*features()[1:], features()[0]])


# ---- Adapter and preprocessing -------------------------------------------------------------------


def test_published_way_from_network_output_to_prediction(predict, depth_pipeline, numbers, features, check):
    batch, _, frames, height, width = numbers["depth.condition"].shape
    clips = rearrange(numbers["depth.network_output"], "(b t) 1 h w -> b t h w", b=batch)
    depth_BTHW = torch.cat([prepare_depth(clip, frames, height, width, "frame") for clip in clips])
    check(depth_BTHW, numbers["depth.condition"][:, 0], ADAPTER_LIMIT)
    maps = depth_features(depth_pipeline.depth_adapter, depth_BTHW)
    for actual, expected in zip(maps, features("adapter.features"), strict=True):
        check(actual, expected, ADAPTER_LIMIT)
    check(predict(numbers["unet.x"], maps, styled=True), numbers["adapter.eps_style_depth"], UNET_LIMIT)


def test_clip_and_frame_normalisation():
    clip = torch.stack([torch.tensor([[0.0, 10.0]]), torch.tensor([[10.0, 20.0]])])
    clipwise = prepare_depth(clip, 2, 1, 2).flatten().tolist()
    assert clipwise == pytest.approx([-1, 0, 0, 1], abs=1e-6)
    assert prepare_depth(clip, 2, 1, 2, "frame").flatten().tolist() == pytest.approx([-1, 1, -1, 1], abs=1e-6)
    assert prepare_depth(torch.ones(2, 4, 4), 2, 4, 4).unique().tolist() == [-1]


def test_frames_are_chosen_evenly_from_first_to_last():
    clip = torch.arange(9.0)[:, None, None].expand(9, 2, 2)
    chosen = (prepare_depth(clip, 5, 2, 2)[0, :, 0, 0] + 1) * 4
    assert chosen.round().tolist() == [0, 2, 4, 6, 8]
    assert prepare_depth(clip[:1], 3, 2, 2).shape == (1, 3, 2, 2)


def test_kinds_of_clips_give_the_same_depth():
    grey = np.random.default_rng(0).integers(0, 256, (3, 8, 12), dtype=np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    size = (3, 16, 8)
    expected = prepare_depth(grey, *size)
    pictures = [Image.fromarray(frame) for frame in rgb]
    same = (
        rgb,
        grey[..., None],
        torch.from_numpy(grey),
        torch.from_numpy(rgb),
        pictures,
        [x.convert("L") for x in pictures],
        grey / 255.0 * 7 - 3,
        grey.astype(np.uint16) * 256,
        [Image.fromarray(frame.astype(np.uint16) * 256) for frame in grey],
    )
    for clip in same:
        assert torch.allclose(prepare_depth(clip, *size), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros((4, 4)), r"shape \(4, 4\)"),
        (np.zeros((2, 4, 4, 2)), r"shape \(2, 4, 4, 2\)"),
        (np.zeros((0, 4, 4)), "not empty"),
        (np.full((1, 4, 4), np.nan), "not finite"),
    ],
)
def test_bad_clips_are_named(clip, message):
    with pytest.raises(ValueError, match=message):
        prepare_depth(clip, 2, 4, 4)


def test_unknown_normalisation():
    with pytest.raises(ValueError, match="normalisation is 'video'; allowed are 'clip', 'frame'"):
        prepare_depth(np.zeros((1, 4, 4)), 1, 4, 4, "video")


# ---- Pipeline ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_guidance", [False, True])
def test_trajectory_with_both_guidances(depth_pipeline, numbers, features, check, batch_guidance):
    text, style = numbers["unet.context"][:1], numbers["style.tokens"][:1]
    _, _, frames, height, width = numbers["traj_depth.x_T"].shape
    factor = depth_pipeline.vae_scale_factor
    latents = depth_pipeline.denoise(
        text,
        numbers["unet.context"][2:],
        style,
        depth_pipeline.predict_fusion_scales(style, text),
        generators=[torch.Generator().manual_seed(SEED)],
        num_frames=frames,
        height=height * factor,
        width=width * factor,
        num_inference_steps=5,
        depth_features=[maps[:frames] for maps in features()],
        batch_guidance=batch_guidance,
    )
    check(latents, numbers["traj_depth.sample"], TRAJECTORY_LIMIT)


def small(pipeline: StyleCrafterPipeline, **changes: object) -> dict[str, object]:
    multiple = pipeline.size_multiple
    sizes = {"num_frames": 2, "height": multiple, "width": 2 * multiple, "num_inference_steps": 2}
    return sizes | {"output_type": "latent"} | changes


def test_call_with_depth(depth_pipeline, check):
    clips = [np.random.default_rng(row).random((3, 20, 30)) for row in range(2)]
    settings = small(depth_pipeline)
    prompts = ["a dog", "waves"]
    both = depth_pipeline(prompts, depth=clips, **settings).frames
    for row in range(2):
        alone = depth_pipeline(prompts[row], depth=clips[row], seed=row, **settings).frames
        check(both[row : row + 1], alone, ADAPTER_LIMIT)
    without = depth_pipeline(prompts, **settings).frames
    assert not torch.allclose(both, without, atol=1e-2)


def test_call_with_a_picture_in_image_mode(depth_pipeline):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8))
    settings = small(depth_pipeline, mode="image", num_frames=1)
    image = depth_pipeline("a dog", depth=[picture], **settings).frames
    assert not torch.allclose(image, depth_pipeline("a dog", **settings).frames, atol=1e-2)


def test_depth_without_adapter_is_refused(pipeline):
    with pytest.raises(ValueError, match="no depth adapter"):
        pipeline("a dog", depth=np.zeros((2, 4, 4)), **small(pipeline))
    with pytest.raises(ValueError, match="depth has 1 rows; the prompts have 2"):
        pipeline(["a", "b"], depth=[np.zeros((2, 4, 4))], **small(pipeline))


def test_new_adapter_fits_its_unet(pipeline):
    torch.manual_seed(0)
    adapter = new_depth_adapter(pipeline.unet.config, pipeline.vae_scale_factor)
    with_depth = StyleCrafterPipeline(**pipeline.components | {"depth_adapter": adapter.eval()})
    clip = np.random.default_rng(0).random((2, 8, 8))
    latents = with_depth("a dog", depth=clip, **small(pipeline)).frames
    assert not torch.allclose(latents, pipeline("a dog", **small(pipeline)).frames, atol=1e-3)


def test_new_adapter_at_full_size_has_the_published_number_of_parameters(parts):
    with torch.device("meta"):
        adapter = new_depth_adapter(parts["unet"].model.config, 8)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 77_000_640


def test_a_unet_without_halving_places_gets_no_adapter():
    config = {"block_out_channels": (32, 64, 64), "layers_per_block": 3}
    with pytest.raises(ValueError, match="layers_per_block is 3"):
        new_depth_adapter(config, 8)


# ---- Model directory -----------------------------------------------------------------------------


def test_save_and_load(depth_pipeline, tmp_path):
    depth_pipeline.save_pretrained(tmp_path / "copy")
    loaded = StyleCrafterPipeline.from_pretrained(tmp_path / "copy")
    clip = np.random.default_rng(0).random((2, 8, 8))
    frames = [p("a dog", depth=clip, **small(p)).frames for p in (depth_pipeline, loaded)]
    assert torch.equal(*frames)
    fingerprint = read_fingerprint(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "depth_adapter")
    assert compute_fingerprint(tmp_path / "copy") != fingerprint


def test_meta_pipeline_has_the_adapter(depth_pipeline, model_path, tmp_path):
    depth_pipeline.save_pretrained(tmp_path / "model")
    assert meta_pipeline(tmp_path / "model").depth_adapter.config == depth_pipeline.depth_adapter.config
    assert meta_pipeline(model_path).depth_adapter is None


def test_directories_from_before_depth_load(model_path, tmp_path):
    shutil.copytree(model_path, tmp_path / "old")
    index = tmp_path / "old" / "model_index.json"
    content = json.loads(index.read_text())
    del content["depth_adapter"]
    index.write_text(json.dumps(content))
    assert StyleCrafterPipeline.from_pretrained(tmp_path / "old").depth_adapter is None


# ---- Conversion ----------------------------------------------------------------------------------


@pytest.fixture
def convert_with(tmp_path):
    """convert_with(change): convert with a depth adapter whose tensors `change` has altered."""

    def run(change):
        tensors = torch.load(TINY_DEPTH / "depth_adapter.pth", weights_only=True)
        change(tensors)
        torch.save(tensors, tmp_path / "depth.pth")
        files = complete_files(TINY_DEPTH, tmp_path)
        return convert(**files, depth_adapter=tmp_path / "depth.pth", output=tmp_path / "model")

    return run


def test_missing_and_unexpected_keys_are_named(convert_with):
    with pytest.raises(ConversionError, match=r"depth_adapter: key body\.3\.block2\.bias is missing"):
        convert_with(lambda tensors: tensors.pop("body.3.block2.bias"))
    with pytest.raises(ConversionError, match="unexpected key extra"):
        convert_with(lambda tensors: tensors.update(extra=torch.zeros(1)))


def test_an_adapter_of_another_model_is_refused(convert_with):
    def shorten(tensors):
        for key in [key for key in tensors if key.startswith("body.7.")]:
            del tensors[key]

    with pytest.raises(ConversionError, match="it has 7 blocks; this UNet takes 4 feature maps"):
        convert_with(shorten)
    with pytest.raises(ConversionError, match=r"conv_in\.weight takes 60 channels"):
        convert_with(lambda tensors: tensors.update({"conv_in.weight": torch.zeros(32, 60, 3, 3)}))
