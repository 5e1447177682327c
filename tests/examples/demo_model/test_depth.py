"""examples/demo_model: whether structure follows depth, and whether long videos have seams; on models that know nothing."""

import argparse
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from examples.demo_model import depth, gates, long_video
from examples.demo_model.segmenter import FILE, Segmenter, iou, load_or_train, own_iou, train, true_masks
from examples.demo_world.dataset import clip
from stylecrafter import StyleCrafterPipeline
from stylecrafter.depth import new_depth_adapter


@pytest.fixture(scope="module")
def segmenter_dir(tmp_path_factory):
    """The folder of a segmenter that has learned nothing."""
    folder = tmp_path_factory.mktemp("segmenter")
    torch.manual_seed(0)
    save_file(Segmenter().state_dict(), folder / FILE)
    return folder


@pytest.fixture(scope="module")
def model_with_depth(small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("depth") / "model"
    pipeline = StyleCrafterPipeline.from_pretrained(small_model)
    pipeline.register_modules(
        depth_adapter=new_depth_adapter(pipeline.unet.config, pipeline.vae_scale_factor)
    )
    pipeline.generation_config |= {"num_frames": 8}  # as the demo world's clips
    pipeline.save_pretrained(folder)
    return folder


def test_iou_of_masks():
    left, all_of_it = np.zeros((2, 4, 4), bool), np.ones((2, 4, 4), bool)
    left[:, :, :2] = True
    assert iou(left, all_of_it) == 0.5
    assert iou(left, ~left) == 0
    assert iou(left & False, left & False) == 1


def test_the_object_is_what_lies_nearest():
    sample = clip(0, 0)
    share = true_masks(sample).mean()
    assert true_masks(sample).shape == (8, 64, 64)
    assert 0.01 < share < 0.4


def test_a_segmenter_is_a_function_of_its_seed_and_kept(tmp_path, monkeypatch):
    first, second = (train(steps=2, pictures=8).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    monkeypatch.setattr("examples.demo_model.segmenter.train", lambda: train(steps=1, pictures=8))
    made = load_or_train(tmp_path)
    monkeypatch.setattr("examples.demo_model.segmenter.train", None)
    kept = load_or_train(tmp_path)
    assert all(
        torch.equal(one, other) for one, other in zip(made.parameters(), kept.parameters(), strict=True)
    )


def test_the_segmenter_in_the_repository_finds_the_object():
    assert own_iou(load_or_train(gates.WEIGHTS), 1, 4, "neutral") > 0.7


def test_the_gate_s_figures(model_with_depth, segmenter_dir):
    found = depth.depth_figures(model_with_depth, 2, segmenter_dir)
    assert set(gates.LEAST["depth"]) < set(found)
    assert all(-1 <= value <= 1 for value in found.values())


def test_everything_is_written(model_with_depth, segmenter_dir, tmp_path):
    options = argparse.Namespace(
        model=model_with_depth, output=tmp_path / "out", count=2, styled=True, judges=segmenter_dir
    )
    with_depth, without, gain = depth.measure(options)
    assert gain.value == pytest.approx(with_depth.value - without.value)
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [one["name"] for one in kept["figures"]] == [
        "depth_iou", "depth_iou_without_depth", "depth_iou_gain"]  # fmt: skip
    assert kept["how"]["look"] == "styled"
    assert (tmp_path / "out" / "pictures.png").is_file()


def test_a_model_without_depth_adapter_is_refused(small_model, segmenter_dir):
    with pytest.raises(ValueError, match="must have a depth adapter"):
        depth.depth_figures(small_model, 2, segmenter_dir)


def test_a_seam_is_where_windows_begin():
    cosines = np.array([0.9, 0.9, 0.9, 0.5, 0.9, 0.9, 0.9])  # 8 frames, windows of 4
    assert long_video.seam(cosines, 4) == pytest.approx(0.4)


def test_long_videos_are_measured(small_model, random_clip, tmp_path):
    options = argparse.Namespace(
        model=small_model, output=tmp_path / "out", frames=8, count=1, evaluation_clip=random_clip
    )
    figures = long_video.measure(options)
    assert [one.name for one in figures] == [
        "long_video_seam", "long_video_clip_temp", "long_video_clip_temp_without_windows"]  # fmt: skip
    assert (tmp_path / "out" / "strips.png").is_file()
    options.frames = 4
    with pytest.raises(ValueError, match="must be more than the model's own 4"):
        long_video.measure(options)
