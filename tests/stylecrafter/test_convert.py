"""Published files to a model directory: what is accepted, what is refused, and what the error says."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stylecrafter import architecture
from stylecrafter.checkpoint_files import DEEPSPEED_PREFIX, PublishedFiles, read_weights
from stylecrafter.conversion_plan import plan_parts, plan_problems, skipped_keys
from stylecrafter.convert import ConversionError, convert
from stylecrafter.model_directory import load_generation_config, read_fingerprint
from stylecrafter.published_params import published_params

RESNET_KEY = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"


class _Evil:
    def __reduce__(self):
        return (os.system, ("false",))


@pytest.fixture
def files(published, tmp_path) -> dict[str, Path]:
    """A copy of the published files, with their configs, to break."""
    folder = tmp_path / "published"
    shutil.copytree(published["checkpoint"].parent, folder)
    return {name: folder / path.name for name, path in published.items()}


@pytest.fixture
def edit(files):
    """edit(role, change): rewrite one file after `change` has altered its content in place."""

    def rewrite(role, change):
        content = torch.load(files[role], weights_only=True)
        content = change(content) or content
        torch.save(content, files[role])

    return rewrite


def _set(key, value):
    def change(content):
        content.get("state_dict", content)[key] = value

    return change


def _drop(*keys):
    def change(content):
        for key in keys:
            del content.get("state_dict", content)[key]

    return change


def test_files_of_different_models_are_refused(files, edit, tmp_path):
    def widen(content):
        for key in ("image_context_model.style_emb", "image_context_model.proj"):
            axis = 0 if key.endswith("proj") else -1
            content[key] = torch.cat([content[key], content[key]], dim=axis)

    edit("adapter", widen)
    (files["checkpoint"].parent / "config_video.json").unlink()
    with pytest.raises(ConversionError, match=r"image tokens: width 64, but .* expects 128"):
        convert(**files, output=tmp_path / "model")


def test_report_names_sources_and_skipped_keys(report, published):
    assert report.components["unet"] == (526, (published["checkpoint"], published["temporal"]))
    assert report.architecture_from[0].endswith("config_video.json")
    skipped = report.skipped[str(published["checkpoint"])]
    assert {"betas", "cond_stage_model.model.logit_scale"} <= set(skipped)
    assert "526 tensors" in report.describe()


@pytest.mark.parametrize(
    ("role", "key"),
    [
        ("checkpoint", RESNET_KEY),
        ("checkpoint", "first_stage_model.decoder.up.1.block.0.conv1.weight"),
        ("adapter", "scale_predictor.out.2.bias"),
        ("adapter", "kv_attn_layers.middle_block_1_transformer_blocks_0_attn2_processor.to_k_style.weight"),
        ("open_clip", "visual.ln_post.bias"),
    ],
)
def test_missing_key(files, edit, tmp_path, role, key):
    edit(role, _drop(key))
    with pytest.raises(ConversionError) as error:
        convert(**files, output=tmp_path / "model")
    assert key in str(error.value)
    assert str(files[role]) in str(error.value)
    assert "expected shape" in str(error.value)
    assert not (tmp_path / "model").exists()


def test_text_tower_may_come_from_either_file(files, edit):
    edit("checkpoint", _drop("cond_stage_model.model.ln_final.weight"))
    assert plan_problems(*_plan(files)) == []


def test_wrong_shape_names_found_and_expected(files, edit, tmp_path):
    edit("checkpoint", _set(RESNET_KEY, torch.zeros(32, 33, 3, 3)))
    with pytest.raises(ConversionError, match=r"\(32, 33, 3, 3\); expected \(32, 32, 3, 3\)") as error:
        convert(**files, output=tmp_path / "model")
    assert RESNET_KEY in str(error.value)


def test_all_problems_are_counted_and_twenty_shown(files, edit, tmp_path):
    def shrink(content):
        state = content["state_dict"]
        keys = [key for key in state if "input_blocks.1.0" in key or "input_blocks.3." in key]
        for key in keys:
            state[key] = torch.zeros(1)

    edit("checkpoint", shrink)
    with pytest.raises(ConversionError, match=r"and \d+ more") as error:
        convert(**files, output=tmp_path / "model")
    assert str(error.value).count("has shape") == 20


def test_keys_of_another_architecture_are_refused(files, edit, tmp_path):
    edit("checkpoint", _set("model.diffusion_model.label_emb.0.weight", torch.zeros(2, 2)))
    with pytest.raises(ConversionError, match=r"unexpected key model\.diffusion_model\.label_emb"):
        convert(**files, output=tmp_path / "model")


def test_known_unused_keys_are_skipped(files, edit):
    keys = ["model_ema.decay", "first_stage_model.loss.logvar"]
    for key in keys:
        edit("checkpoint", _set(key, torch.zeros(1)))
    plan = _plan(files)
    assert plan_problems(*plan) == []
    assert set(keys) <= set(skipped_keys(*plan)[str(files["checkpoint"])])


def test_temporal_file_must_be_complete(files, edit, tmp_path):
    edit("temporal", lambda content: content.pop("middle_block.2") and None)
    with pytest.raises(ConversionError, match=r"temporal: key middle_block\.2\.norm\.bias is missing"):
        convert(**files, output=tmp_path / "model")


@pytest.mark.parametrize(
    ("role", "wrap"),
    [
        ("checkpoint", lambda content: content["state_dict"]),
        (
            "checkpoint",
            lambda content: {
                "module": {DEEPSPEED_PREFIX + key: value for key, value in content["state_dict"].items()}
            },
        ),
        ("adapter", lambda content: {"state_dict": content, "epoch": 3}),
        ("temporal", lambda content: {"state_dict": content}),
    ],
)
def test_wrappers(files, edit, published, role, wrap):
    edit(role, wrap)
    _check_same(read_weights(files[role]), read_weights(published[role]))


def test_safetensors(published, tmp_path):
    tensors = read_weights(published["checkpoint"])
    save_file({key: value.clone() for key, value in tensors.items()}, tmp_path / "model.safetensors")
    _check_same(read_weights(tmp_path / "model.safetensors"), tensors)


def test_code_in_a_checkpoint_is_refused_and_named(files, tmp_path):
    torch.save({"state_dict": {}, "callbacks": _Evil()}, files["adapter"])
    with pytest.raises(ConversionError, match=r"refused, it refers to \w+\.system") as error:
        convert(**files, output=tmp_path / "model")
    assert str(files["adapter"]) in str(error.value)


def test_old_pickle_format_is_refused_too(files, tmp_path):
    files["adapter"].write_bytes(pickle.dumps(_Evil(), protocol=2))
    with pytest.raises(ConversionError, match="refused"):
        convert(**files, output=tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken"])
def test_other_files_are_refused(files, tmp_path, content):
    files["temporal"].write_bytes(content)
    with pytest.raises(ConversionError, match=r"temporal_v1_1\.pth"):
        convert(**files, output=tmp_path / "model")


def test_missing_file(files, tmp_path):
    files["open_clip"].unlink()
    with pytest.raises(ConversionError, match=r"open_clip_pytorch_model\.bin: no such file"):
        convert(**files, output=tmp_path / "model")


def test_existing_output_is_kept(files, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious.txt").write_text("")
    with pytest.raises(ConversionError, match="not an empty directory"):
        convert(**files, output=tmp_path / "model")


def test_shapes_tell_what_the_config_says(files):
    config, clip_config = _configs(files)
    content = PublishedFiles.read(**files)
    told, given = (
        published_params(content, *paths) for paths in ((None, clip_config), (config, clip_config))
    )
    assert architecture.unet_config(told) == architecture.unet_config(given)
    assert architecture.vae_config(told) == architecture.vae_config(given)
    assert architecture.text_config(told) == architecture.text_config(given)
    assert architecture.adapter_config(told, (1,)) == architecture.adapter_config(given, (1,))


def test_configs_elsewhere_and_in_hub_form(files, tmp_path, model_path):
    config, clip_config = _configs(files)
    config = config.rename(tmp_path / "inference.yaml")
    hub = tmp_path / "open_clip.json"
    hub.write_text(f'{{"model_cfg": {clip_config.read_text()}}}')
    clip_config.unlink()
    output = convert(**files, output=tmp_path / "model", architecture=config, open_clip_config=hub).output
    assert read_fingerprint(output) == read_fingerprint(model_path)


def test_unsupported_variant_in_the_config(files, tmp_path):
    config = files["checkpoint"].parent / "config_video.json"
    config.write_text(
        config.read_text().replace('"use_causal_attention": false', '"use_causal_attention": true')
    )
    with pytest.raises(ConversionError, match="use_causal_attention is True; supported is False"):
        convert(**files, output=tmp_path / "model")


def test_config_of_another_base(files, tmp_path):
    config = files["checkpoint"].parent / "config_video.json"
    config.write_text(config.read_text().replace('"temporal_conv": false', '"temporal_conv": true'))
    with pytest.raises(ConversionError, match=r"temopral_conv\.conv1\.0\.weight is missing"):
        convert(**files, output=tmp_path / "model")


def test_generation_settings(model_path):
    config = load_generation_config(model_path)
    assert (config["num_frames"], config["height"], config["width"]) == (8, 128, 128)
    assert (config["text_guidance_scale"], config["style_guidance_scale"]) == (15.0, 7.5)
    assert config["engine"] == "stylecrafter"


def _plan(files):
    content = PublishedFiles.read(**files)
    return content, plan_parts(content, published_params(content, *_configs(files)))


def _configs(files):
    folder = files["checkpoint"].parent
    return folder / "config_video.json", folder / "open_clip_config.json"


def _check_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], value) for key, value in expected.items())
