"""Depth from videos: one array per video, larger nearer, what is there stays, what fails costs itself only."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DPTConfig, DPTForDepthEstimation

from actors.depth_estimator import DepthEstimator
from actors.video_codec import encode_mp4
from pipeline.extract_depth import extract_depth
from schemas.depth_run import ExtractDepthRun
from schemas.run import UsageError


@pytest.fixture(scope="module")
def depth_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A depth estimation model with random weights."""
    folder = tmp_path_factory.mktemp("depth_model")
    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    DPTForDepthEstimation(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def write_video(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    encode_mp4(frames, path, fps=5, crf=20)


def test_every_video_gets_its_depth_once(depth_model_dir: Path, tmp_path: Path) -> None:
    videos, output = tmp_path / "videos", tmp_path / "depth"
    write_video(videos / "a.mp4", 1)
    write_video(videos / "more" / "b.mp4", 2)
    (videos / "broken.mp4").write_bytes(b"no video")
    (videos / "notes.txt").write_text("no video either")
    run = ExtractDepthRun(videos=str(videos), depth_model=str(depth_model_dir), output=str(output))
    found = {Path(one.video).name: one for one in extract_depth(run)}
    assert set(found) == {"a.mp4", "b.mp4", "broken.mp4"}
    assert "cannot be decoded" in (found["broken.mp4"].error or "")
    for name in ("a.npy", "more/b.npy"):
        depth = np.load(output / name)
        assert (depth.shape, depth.dtype) == ((5, 32, 48), np.float16)
        assert (depth.min(), depth.max()) == (0, 1)
    again = {Path(one.video).name: one.is_new for one in extract_depth(run) if one.error is None}
    assert again == {"a.mp4": False, "b.mp4": False}


def test_distances_are_turned_round(depth_model_dir: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    near = DepthEstimator(depth_model_dir, "cpu", batch_size=2).depth(frames)
    far = DepthEstimator(depth_model_dir, "cpu", invert=True).depth(frames)
    np.testing.assert_allclose(near.astype(float), 1 - far.astype(float), atol=2e-3)


def test_what_cannot_be_used_is_told(depth_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no video is there"):
        list(extract_depth(ExtractDepthRun(videos=str(tmp_path), depth_model="m", output=str(tmp_path))))
    write_video(tmp_path / "a.mp4", 1)
    run = ExtractDepthRun(videos=str(tmp_path / "a.mp4"), depth_model=str(tmp_path), output=str(tmp_path))
    with pytest.raises(UsageError, match="no transformers depth estimation model"):
        list(extract_depth(run))
    write_video(tmp_path / "a.mov", 1)
    run = ExtractDepthRun(videos=str(tmp_path), depth_model=str(depth_model_dir), output=str(tmp_path))
    with pytest.raises(UsageError, match=r"same depth file .*a\.npy"):
        list(extract_depth(run))
