"""Longer videos: windows cover every frame and are blended without seams, and noise repeats in another order."""

import pytest
import torch

from stylecrafter.long_video import over_windows, reschedule_noise, stride_of, window_starts

WINDOW = 8


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("frames", "starts"), [(9, [0, 1]), (12, [0, 2, 4]), (13, [0, 2, 4, 5])])
def test_windows_cover_the_whole_video_and_end_with_it(frames, starts):
    assert window_starts(frames, WINDOW) == starts


@pytest.mark.parametrize("frames", [9, 16, 64])
def test_what_all_windows_say_alike_is_kept(frames):
    x_NCHW = torch.randn(2 * frames, 3, 2, 2)
    sizes = []

    def twice(part, count):
        sizes.append((len(part), count))
        return 2 * part

    torch.testing.assert_close(over_windows(twice, x_NCHW, frames, WINDOW), 2 * x_NCHW)
    assert set(sizes) == {(2 * WINDOW, WINDOW)}


def test_from_one_window_to_the_next_there_is_no_jump():
    """Windows that disagree by 1 each: the blend never changes by more than a part of that from frame to frame."""
    said = iter(range(100))
    x_NCHW = torch.zeros(64, 1, 1, 1)
    blended = over_windows(lambda part, count: torch.full_like(part, next(said)), x_NCHW, 64, WINDOW)
    steps = blended.flatten().diff()
    assert steps.min() >= 0
    assert steps.max() <= 1


def test_later_noise_is_earlier_noise_in_another_order():
    noise = torch.randn(2, 4, 30, 2, 2)
    found = reschedule_noise(noise, generators(1, 2), WINDOW)
    assert torch.equal(found[:, :, :WINDOW], noise[:, :, :WINDOW])
    stride = stride_of(WINDOW)
    for start in range(WINDOW, 30, stride):
        for row in range(2):
            before = found[row, :, start - WINDOW : start - WINDOW + stride].unbind(1)
            after = found[row, :, start : start + stride].unbind(1)
            assert all(any(torch.equal(one, other) for other in before) for one in after)
    assert torch.equal(found, reschedule_noise(noise, generators(1, 2), WINDOW))
    assert not torch.equal(found, reschedule_noise(noise, generators(3, 4), WINDOW))
    alone = reschedule_noise(noise[1:], generators(2), WINDOW)
    assert torch.equal(alone[0], found[1]), "a row's noise depends on nothing beside it"


@pytest.fixture
def render(pipeline):
    def run(frames, window, **more):
        return pipeline(
            "a cat", generators=generators(5), num_frames=frames, height=64, width=64,
            num_inference_steps=2, output_type="latent", frame_window=window, **more,
        ).frames  # fmt: skip

    return run


def test_a_window_as_long_as_the_video_changes_nothing(render):
    assert torch.equal(render(4, 4), render(4, None))
    assert torch.equal(render(4, 9), render(4, None))


def test_sixty_four_frames_of_a_model_for_few(render):
    windowed = render(64, 8)
    assert windowed.shape[2] == 64
    assert torch.isfinite(windowed).all()
    assert not torch.allclose(windowed, render(64, None))


def test_what_has_no_meaning_is_refused(pipeline, render, monkeypatch):
    with pytest.raises(ValueError, match="frame_window is 1; allowed are 2 or more"):
        render(4, 1)
    monkeypatch.setattr(type(pipeline.unet), "is_cache_enabled", True)
    with pytest.raises(ValueError, match="with attention broadcast only None"):
        render(4, 2)
