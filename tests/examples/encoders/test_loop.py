"""examples/encoders/loop.py: an interrupted run goes on as if it had not been."""

import json

import pytest
import torch
from torch import nn

from examples.encoders.loop import Loop, train


class InterruptionError(Exception):
    pass


def run(work, steps_until_interrupted=None, evaluate=None):
    torch.manual_seed(1)
    model = nn.Linear(3, 1)

    def loss_of(step):
        if step == steps_until_interrupted:
            raise InterruptionError
        inputs = torch.randn(8, 3)
        return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean(), {"more": 1.0}

    loop = Loop(work, steps=12, learning_rate=0.05, warmup_steps=3, log_every=1, checkpoint_every_s=0.0)
    found = train(model, loss_of, loop, evaluate)
    return model, found


def losses(work):
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def test_an_interrupted_run_repeats_no_step_and_ends_with_the_same_weights(tmp_path):
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(InterruptionError):
        run(tmp_path / "parts", steps_until_interrupted=7)
    resumed, _ = run(tmp_path / "parts")
    assert torch.equal(whole.weight, resumed.weight)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert [step for step, _ in losses(tmp_path / "parts")] == list(range(1, 13))


def test_lines_beyond_the_state_are_dropped(tmp_path):
    run(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 99, "loss": 1.0}) + "\n")
    run(tmp_path)
    assert max(step for step, _ in losses(tmp_path)) == 12


def test_the_loss_falls_and_the_last_evaluation_is_returned(tmp_path):
    _, found = run(tmp_path, evaluate=lambda: {"score": 3.0})
    curve = [loss for _, loss in losses(tmp_path)]
    assert curve[-1] < curve[0]
    assert found == {"score": 3.0}


def test_the_rate_warms_up_and_ends_at_zero(tmp_path):
    loop = Loop(tmp_path, steps=10, learning_rate=1.0, warmup_steps=4)
    assert [loop.rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert loop.rate(10) == pytest.approx(0)


@pytest.mark.parametrize("name, value", [("steps", 0), ("learning_rate", 0.0), ("ema_decay", 1.0)])
def test_a_field_out_of_range_is_named(tmp_path, name, value):
    fields = {"work": tmp_path, "steps": 1, "learning_rate": 0.1, name: value}
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Loop(**fields)
