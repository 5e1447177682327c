"""A base without an adapter: everything as in the full conversion, and a new adapter that is always the same."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from stylecrafter import StyleCrafterPipeline
from stylecrafter.checkpoint_files import PublishedFiles
from stylecrafter.conversion_plan import plan_parts, plan_problems
from stylecrafter.convert import ConversionError, ConversionReport, convert
from stylecrafter.model_directory import read_fingerprint
from stylecrafter.published_params import published_params


@pytest.fixture(scope="module")
def base_report(published, tmp_path_factory) -> ConversionReport:
    torch.manual_seed(11)  # what the caller has drawn before makes no difference
    output = tmp_path_factory.mktemp("base") / "model"
    return convert(**published | {"adapter": None}, output=output)


@pytest.fixture(scope="module")
def base(base_report) -> StyleCrafterPipeline:
    return StyleCrafterPipeline.from_pretrained(base_report.output)


def tensors(folder):
    files = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    return {name: tensor for file in files for name, tensor in file.items()}


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "image_encoder"])
def test_other_components_equal_the_full_conversions(base_report, model_path, component):
    ours, full = (tensors(folder / component) for folder in (base_report.output, model_path))
    assert ours.keys() == full.keys()
    assert all(torch.equal(ours[name], full[name]) for name in full)


def test_text_alone_renders_the_same_frames(base, pipeline, references):
    settings = {"style_scale": 0.0, "num_frames": 2, "height": 32, "width": 32, "num_inference_steps": 2}
    frames, full = (p("A wolf.", references[0], **settings).frames for p in (base, pipeline))
    assert (frames == full).all()


def test_style_keys_and_values_are_copies_of_the_texts(base):
    before = {name: value.clone() for name, value in base.style_adapter.state_dict().items()}
    base.style_adapter.copy_text_projections(base.unet)
    after = base.style_adapter.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before["style_transformer.queries"].std() > 0


def test_converting_twice_gives_one_fingerprint_and_leaves_the_generator(published, base_report, tmp_path):
    torch.manual_seed(12)
    expected = torch.rand(3)
    torch.manual_seed(12)
    again = convert(**published | {"adapter": None}, output=tmp_path / "again")
    assert torch.equal(torch.rand(3), expected)
    assert read_fingerprint(again.output) == read_fingerprint(base_report.output)


def test_report_settings_and_card_say_that_the_adapter_is_new(base_report, base, report, pipeline):
    assert base.generation_config["trained"] is False
    assert base.generation_config["new_adapter"] is True
    assert "untrained" in (base_report.output / "README.md").read_text()
    said = base_report.describe()
    assert "91 new tensors" in said
    assert "UNTRAINED: jobs.train_style trains it" in said
    assert "new_adapter" not in pipeline.generation_config
    assert "UNTRAINED" not in report.describe()


def test_hyperparameters_are_the_published_ones_unless_the_architecture_says_otherwise(
    published, base, tmp_path
):
    assert base.style_adapter.config.num_style_tokens == 4  # what config_video.json says
    files = PublishedFiles.read(
        **{role: path for role, path in published.items() if role in ("checkpoint", "open_clip")}
    )
    params = published_params(files, None, None)
    assert params.style == {"in_dim": 64, "out_dim": 48, "num_tokens": 8, "n_layers": 3, "num_heads": 8}
    assert params.scales == {"hidden": 32, "n_layers": 2, "num_heads": 8}
    assert plan_problems(files, plan_parts(files, params)) == []


def test_the_full_size_base_gets_the_published_adapter(files, params, parts):
    paths, known = ({role: d[role] for role in d if role != "adapter"} for d in (files.paths, files.tensors))
    base = PublishedFiles(paths, known)
    new = published_params(base, None, None)
    assert (new.style, new.scales) == (params.style, params.scales)
    (adapter,) = (part for part in plan_parts(base, new) if part.name == "style_adapter")
    assert adapter.model.config == parts["style_adapter"].model.config
    assert adapter.problems() == []
    assert adapter.unused() == []


def test_missing_and_unexpected_keys_are_still_refused(published, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(published["checkpoint"].parent, broken)
    content = torch.load(broken / "model.ckpt", weights_only=True)
    state = content["state_dict"]
    key = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    state["model.diffusion_model.middle_block.1.extra"] = state[
        "model.diffusion_model.middle_block.1.norm.bias"
    ]
    state["model.diffusion_model.out.0.weight"] = torch.zeros(1)
    del state[key.replace("to_k", "to_v")]
    torch.save(content, broken / "model.ckpt")
    roles = {"checkpoint": broken / "model.ckpt", "open_clip": broken / "open_clip_pytorch_model.bin"}
    with pytest.raises(ConversionError) as error:
        convert(**roles, adapter=None, temporal=None, output=tmp_path / "model")
    for said in ("unexpected key", "attn2.to_v.weight is missing", "out.0.weight"):
        assert said in str(error.value)
    assert not (tmp_path / "model").exists()


def test_heads_that_do_not_divide_the_width_are_refused(published, tmp_path):
    config = tmp_path / "config.json"
    text = (published["checkpoint"].parent / "config_video.json").read_text()
    config.write_text(text.replace('"num_heads": 8', '"num_heads": 7'))
    with pytest.raises(ConversionError, match="num_heads = 7 does not divide its width 64"):
        convert(**published | {"adapter": None}, architecture=config, output=tmp_path / "model")
