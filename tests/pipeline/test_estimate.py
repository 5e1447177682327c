"""What a plan guesses a video costs."""

import pytest

from pipeline.estimate import video_seconds
from schemas.settings import RenderSettings


def seconds(**settings):
    return video_seconds(RenderSettings(**settings), 320, on_gpu=True, cores=1)


def test_steps_without_guidance_cost_a_third():
    assert seconds() == pytest.approx((3 * 50 * 10.92 + 25) / 350)
    assert seconds(guidance_end=0.5) == pytest.approx((2 * 50 * 10.92 + 25) / 350)
    assert seconds(guidance_start=0.25, guidance_end=0.25) == pytest.approx((50 * 10.92 + 25) / 350)
