"""The measured step: both forms compute the same, the count of FLOPs is the reference's, and the GPU's command runs."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size, unet_step
from stylecrafter.attention import DualCrossAttention


@torch.inference_mode()
def test_the_plain_form_computes_the_same_and_leaves_no_trace():
    step = unet_step.Step(channels=(64,) * 4, latents_BCTHW=(1, 4, 3, 8, 16))
    assert step.difference() < 1e-5
    blocks = [one.transformer_blocks[0] for one in step.unet.spatial_transformers()]
    assert all(isinstance(block.attn2.processor, DualCrossAttention) for block in blocks)


def test_the_plain_form_costs_what_the_reference_counted():
    with torch.device("meta"), torch.inference_mode():
        step = unet_step.Step()
        with FlopCounterMode(display=False) as counter:
            step.plain_forward()
    assert counter.get_total_flops() / 1e12 == pytest.approx(unet_step._REFERENCE_TFLOP, rel=0.01)


def test_figures_are_medians_of_ratios(monkeypatch, capsys):
    class Step:
        unet = None
        forward = ours = plain = staticmethod(torch.zeros)

        def difference(self):
            return 1e-7

    seconds = iter([0.2, 4.0, 8.0, 12.0, 0.1, 4.0, 8.0, 8.0, 0.2, 5.0, 9.0, 9.0])
    monkeypatch.setattr(unet_step, "Step", Step)
    monkeypatch.setattr(unet_step, "_seconds", lambda run: next(seconds))
    flops, plain = unet_step.measure(3, channels_last=False)
    assert (plain.name, plain.value, plain.spread) == ("unet_vs_plain_ratio", 1.0, (1.0, 1.5))
    assert flops.spread[1] == pytest.approx(0.2326e12 / 4 / (2 * 2048**3 / 0.2))
    assert "GFLOP/s" in capsys.readouterr().out


def test_a_form_that_computes_something_else_gives_no_figure(monkeypatch):
    monkeypatch.setattr(unet_step, "Step", lambda: SimpleNamespace(difference=lambda: 0.1))
    with pytest.raises(ValueError, match=r"differ by 0\.1"):
        unet_step.measure(1, channels_last=False)


def test_the_full_size_command_at_a_small_size():
    model = full_size.Model(
        torch.device("cpu"), torch.float32, channels=(64,) * 4, vae_channels=(32, 32, 32, 32)
    )
    options = SimpleNamespace(
        device="cpu", steps=2, frames=2, height=64, width=64, repeats=1, sequential=False
    )
    [figure] = full_size.measure(model, options)
    assert (figure.name, figure.n) == ("full_size_video_s", 1)
