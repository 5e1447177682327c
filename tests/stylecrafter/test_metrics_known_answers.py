"""Metrics on hand-made embeddings and frames whose answers are known."""

import numpy as np
import pytest
import torch

from stylecrafter.metric_models import load_flow
from stylecrafter.metrics import (
    clip_style_score,
    clip_temp_score,
    clip_text_score,
    content_leak,
    layout_embedding,
    style_rank,
    warping_error,
)


def independent(frames: np.ndarray, others: np.ndarray) -> float:
    """Mean cosine similarity in NumPy float64, pair by pair."""
    return float(np.mean([f @ o / np.linalg.norm(f) / np.linalg.norm(o) for f in frames for o in others]))


def test_scores_agree_with_an_independent_computation():
    random = np.random.default_rng(0)
    frames, references, prompt = (random.normal(size=shape) for shape in ((5, 16), (3, 16), (16,)))
    as_tensor = lambda array: torch.tensor(array, dtype=torch.float32)  # noqa: E731
    assert clip_text_score(as_tensor(frames), as_tensor(prompt)) == pytest.approx(
        independent(frames, prompt[None]), abs=1e-6
    )
    assert clip_style_score(as_tensor(frames), as_tensor(references)) == pytest.approx(
        independent(frames, references), abs=1e-6
    )
    steps = [independent(frames[i : i + 1], frames[i + 1 : i + 2]) for i in range(4)]
    assert clip_temp_score(as_tensor(frames)) == pytest.approx(np.mean(steps), abs=1e-6)


def test_style_rank_counts_the_styles_that_are_nearer():
    references = np.eye(3, 4)
    frames = np.array(
        [[0.9, 0.1, 0.0, 0.2], [0.5, 0.4, 0.1, 0.0], [0.3, 0.3, 0.3, 0.0], [0.4, 0.3, 0.2, 0.0]]
    )
    assert style_rank(frames, references, np.array([0, 1, 2, 2])).tolist() == [1, 2, 1, 3]


def test_content_leak_is_own_layout_beyond_that_of_others():
    references = np.eye(3)
    layouts = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.0, 1.0, 0.2]])
    assert content_leak(layouts, references, np.array([0, 1, 2])).tolist() == pytest.approx([1.0, 0.0, -0.3])


def grid(labels: list[list[int]], colors: np.ndarray) -> torch.Tensor:
    """Patches [1, L, P] of a picture in which patches of one label look alike."""
    return torch.tensor(colors[np.array(labels).ravel()], dtype=torch.float32)[None]


def test_layout_is_the_same_in_other_colours_and_not_in_another_arrangement():
    left_right, top_bottom = [[0, 0, 1, 1]] * 4, [[0] * 4] * 2 + [[1] * 4] * 2
    some, others = np.array([[1.0, 0.0, 0.1], [0.2, 1.0, 0.0]]), np.array([[0.0, 0.3, 1.0], [1.0, 0.0, 0.2]])
    first, repainted, moved = (
        layout_embedding(patches)[0]
        for patches in (grid(left_right, some), grid(left_right, others), grid(top_bottom, some))
    )
    assert float(first.norm()) == pytest.approx(1)
    assert float(first @ repainted) == pytest.approx(1, abs=1e-5)
    assert abs(float(first @ moved)) < 0.2


def shifted_frames() -> np.ndarray:
    """A texture that moves two pixels to the right each frame."""
    texture = np.random.default_rng(1).integers(0, 256, (12, 40, 3), dtype=np.uint8)
    return np.stack([texture[:, 10 - 2 * t : 30 - 2 * t] for t in range(4)])


def constant_flow(x: float):
    def flow(first, second):
        found = torch.zeros(1, 2, *first.shape[2:])
        found[:, 0] = x
        return found

    return flow


def test_warping_error_is_zero_for_the_true_flow():
    assert warping_error(shifted_frames(), constant_flow(2)) == pytest.approx(0, abs=1e-9)


def test_warping_error_is_the_mean_square_in_unit_colours():
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[1] = 51  # 0.2 of 255
    assert warping_error(frames, constant_flow(0)) == pytest.approx(0.04, abs=1e-6)
    assert warping_error(shifted_frames(), constant_flow(0)) > 0.05
    assert warping_error(frames[:1], constant_flow(0)) is None


def test_pixels_that_leave_the_picture_do_not_count():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[0, :, 5:] = 255  # what moves out to the right by 3
    assert warping_error(frames, constant_flow(3)) == pytest.approx(0, abs=1e-9)
    assert warping_error(frames, constant_flow(8)) is None


class _TwoPixels(torch.nn.Module):
    """Gives a list of flows, as RAFT does; the last is the one."""

    def forward(self, first, second):
        flow = torch.zeros_like(first[:, :2])
        return [flow, flow + torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)]


def test_a_flow_network_comes_from_an_exported_program(tmp_path):
    example = torch.zeros(1, 3, 12, 20)
    torch.export.save(torch.export.export(_TwoPixels(), (example, example)), tmp_path / "flow.pt2")
    flow, name = load_flow(tmp_path)
    assert warping_error(shifted_frames(), flow) == pytest.approx(0, abs=1e-9)
    assert name.startswith(f"{tmp_path.name}:")


def test_without_a_flow_network_the_error_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"no flow\.pt2 there.*docs/evaluation\.md"):
        load_flow(tmp_path)
