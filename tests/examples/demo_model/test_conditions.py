"""examples/demo_model/conditions: what the model is asked for."""

import numpy as np

from examples.demo_model.conditions import EVALUATION_SEED, GATE_SEED, condition, judged_right
from examples.demo_model.judges import VALUES
from examples.demo_world.captions import parse_caption
from examples.demo_world.world import content_combinations, style_combinations


def test_everything_asked_for_is_held_out():
    for index in range(30):
        one = condition(EVALUATION_SEED, index)
        labels = one.labels
        assert (labels.shape, labels.scene, labels.motion) in content_combinations("held-out")
        assert (labels.family, labels.palette) in style_combinations("held-out")
        assert parse_caption(one.prompt) == (labels.shape, labels.scene, labels.motion)


def test_a_condition_is_a_function_of_seed_and_number():
    one, again, other = (condition(seed, 3) for seed in (EVALUATION_SEED, EVALUATION_SEED, GATE_SEED))
    assert np.array_equal(one.reference_HWC, again.reference_HWC)
    assert not np.array_equal(one.reference_HWC, other.reference_HWC)
    assert one.prompt == again.prompt
    assert one.reference_HWC.shape == (64, 64, 3)
    assert one.frames_THWC.shape == (8, 64, 64, 3)


def test_what_the_judges_see_is_compared_with_what_was_asked():
    class Knowing:
        """Sees the right value everywhere but in the first clip."""

        def probabilities(self, frames_NTHWC):
            import torch

            found = {}
            for name in ("shape", "motion"):
                wanted = [VALUES[name].index(getattr(one.labels, name)) for one in asked]
                wanted[0] = (wanted[0] + 1) % len(VALUES[name])
                found[name] = torch.eye(len(VALUES[name]))[wanted]
            return found

    asked = [condition(EVALUATION_SEED, i) for i in range(4)]
    frames_NTHWC = np.stack([one.frames_THWC for one in asked])
    right = judged_right(Knowing(), frames_NTHWC, asked, ("shape", "motion"))
    assert right["shape"].tolist() == right["motion"].tolist() == [False, True, True, True]
