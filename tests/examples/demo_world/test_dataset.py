"""Samples: the same everywhere, with true labels and depth, and told apart by their pixels."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from examples.demo_world.dataset import LOOKS, Look, clip, reference, still
from examples.demo_world.draw import draw_clip, draw_still
from examples.demo_world.palettes import PALETTES
from examples.demo_world.scenes import DEPTHS
from examples.demo_world.shapes import SHAPES
from examples.demo_world.world import (
    FAMILIES,
    MOTIONS,
    SCENES,
    SPLITS,
    content,
    neutral_style,
    style,
)

ROOT = Path(__file__).parents[3]
DIGEST = """
import hashlib
from examples.demo_world.dataset import clip, still
digest = hashlib.sha256()
for index in reversed(range(16)):
    sample = clip(11, index)
    digest.update(sample.frames_THWC.tobytes() + sample.depth_THW.tobytes())
    digest.update(still(11, index, split="held-out", look="neutral").frames_THWC.tobytes())
print(digest.hexdigest())
"""


def test_another_process_draws_the_same_in_any_order() -> None:
    for index in range(16):  # fills what this process caches
        clip(12, index)
    digest = hashlib.sha256()
    for index in reversed(range(16)):
        sample = clip(11, index)
        digest.update(sample.frames_THWC.tobytes() + sample.depth_THW.tobytes())
        digest.update(still(11, index, split="held-out", look="neutral").frames_THWC.tobytes())
    other = subprocess.run(
        [sys.executable, "-c", DIGEST], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest.hexdigest()


def test_the_drawing_is_frozen() -> None:
    """Trained weights and judges belong to these pictures: whoever changes them has to train all again."""
    frozen = json.loads((Path(__file__).parent / "frozen.json").read_text(encoding="utf-8"))
    assert {(one["split"], one["look"]) for one in frozen} == set(product(SPLITS, LOOKS))
    for one in frozen:
        sample = clip(0, one["index"], split=one["split"], look=one["look"])
        assert sample.labels.caption == one["caption"]
        # Means of 16 x 16 pixels of the last frame: another build of numpy may round a pixel differently.
        means = sample.frames_THWC[-1].reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))
        assert np.abs(means - np.array(one["means"])).max() < 1, one


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(("size", "frames"), [(64, 8), (32, 3), (96, 1)])
def test_shapes_and_types(look: Look, size: int, frames: int) -> None:
    sample = clip(0, 3, look=look, size=size, frames=frames)
    assert sample.frames_THWC.shape == (frames, size, size, 3)
    assert sample.depth_THW.shape == (frames, size, size)
    assert sample.frames_THWC.dtype == sample.depth_THW.dtype == np.uint8


def test_every_label_appears_and_agrees_with_what_is_drawn() -> None:
    samples = [still(0, index, size=16) for index in range(240)]
    labels = [sample.labels for sample in samples]
    assert {label.shape for label in labels} == set(SHAPES)
    assert {label.scene for label in labels} == set(SCENES)
    assert {label.motion for label in labels} == set(MOTIONS)
    assert {label.family for label in labels} == set(FAMILIES)
    assert {label.palette for label in labels} == set(PALETTES)
    for sample in samples:
        assert (sample.labels.shape, sample.labels.scene, sample.labels.motion) == sample.content.combination
        assert (sample.labels.family, sample.labels.palette) == sample.style.combination


def test_clip_still_and_reference_of_a_number_share_the_style() -> None:
    for split in SPLITS:
        for index in range(40):
            arguments = {"split": split, "size": 16, "styles": 7}
            target, picture = clip(0, index, **arguments), still(0, index, **arguments)
            assert target.style == picture.style == still(0, index + 7, **arguments).style
            assert target.labels.style_id == picture.labels.style_id is not None
            for of, sample in (("clip", target), ("still", picture)):
                other = reference(0, index, of=of, **arguments)
                assert other.style == sample.style
                assert other.content.shape != sample.content.shape
                assert other.content.scene != sample.content.scene


def test_neutral_samples_share_no_style() -> None:
    assert clip(0, 0, look="neutral", size=16).labels.style_id is None
    assert (
        clip(0, 0, look="neutral", size=16).style.palette != clip(0, 1, look="neutral", size=16).style.palette
    )


@pytest.mark.parametrize("look", LOOKS)
def test_depth_is_that_of_the_drawn_object(look: Look) -> None:
    for index in range(20):
        sample = clip(2, index, look=look)
        object_THW = sample.depth_THW == DEPTHS["object"]
        assert sample.depth_THW[~object_THW].max() < DEPTHS["object"], "the scene is behind the object"
        assert len(np.unique(sample.depth_THW)) >= 4
        assert 0.05 < object_THW.mean() < 0.25
        # What changes from frame to frame is where the object was or is (its halo and contour reach further).
        changed_HW = (sample.frames_THWC[0].astype(int) - sample.frames_THWC[-1]).__abs__().max(axis=2) > 60
        near_HW = _grown(object_THW[0] | object_THW[-1], by=6)
        assert changed_HW[near_HW].any()
        assert not changed_HW[~near_HW].any()


def test_the_object_moves_to_the_named_side_by_its_depth() -> None:
    sides = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    for index in range(20):
        sample = clip(3, index)
        y, x = zip(*(np.argwhere(d == DEPTHS["object"]).mean(axis=0) for d in sample.depth_THW), strict=True)
        way_x, way_y = x[-1] - x[0], y[-1] - y[0]
        along_x, along_y = sides[sample.labels.motion]
        assert way_x * along_x + way_y * along_y > 8
        assert abs(way_x * along_y) < 1
        assert abs(way_y * along_x) < 1


def test_neutral_objects_stand_out_from_the_scene() -> None:
    for index in range(60):
        sample = clip(4, index, look="neutral", frames=1)
        object_HW = sample.depth_THW[0] == DEPTHS["object"]
        colour = np.median(sample.frames_THWC[0][object_HW], axis=0)
        around_HW = _grown(object_HW, by=4) & ~_grown(object_HW, by=1)
        distance = np.abs(sample.frames_THWC[0][around_HW] - colour).sum(axis=1)
        assert np.median(distance) > 60, index


def test_shapes_and_scenes_are_told_by_the_nearest_template() -> None:
    """The mean edge picture of each class, from other contents in other colours, names nearly all neutral stills."""
    style_of: Callable = lambda number: neutral_style(1, number)  # noqa: E731
    assert _template_accuracy("shape", SHAPES, style_of, centred=True) >= 0.95
    assert _template_accuracy("scene", SCENES, style_of, centred=False) >= 0.9


def test_each_family_draws_the_same_content_differently() -> None:
    pictures = {}
    for number, family in enumerate(FAMILIES):
        look = replace(style(0, 0), family=family)
        pictures[family] = draw_still(content(0, 5), look).astype(float)
        assert style(0, number).family == family
    for family, picture in pictures.items():
        others = [np.abs(picture - other).mean() for name, other in pictures.items() if name != family]
        assert min(others) > 12, family


def test_a_style_is_the_same_on_any_content() -> None:
    """Mean colours of two contents in one style are closer than those of one content in two styles."""
    means = np.array(
        [[draw_still(content(0, c), style(0, s)).mean(axis=(0, 1)) for c in range(6)] for s in range(24)]
    )
    within = means.std(axis=1).mean()
    between = means.mean(axis=1).std(axis=0).mean()
    assert between > 3 * within


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": 0}, "frames = 0: must be at least 1"),
        ({"size": 33}, "size = 33: must be an even number of pixels, at least 16"),
        ({"size": 8}, "size = 8: must be an even number of pixels, at least 16"),
        ({"styles": 0}, "styles = 0: must be at least 1"),
        ({"look": "plain"}, "look = 'plain': must be one of neutral, styled"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip(0, 0, **arguments)


def _grown(mask_HW: np.ndarray, by: int) -> np.ndarray:
    grown = np.zeros_like(mask_HW)
    for dy in range(-by, by + 1):
        for dx in range(-by, by + 1):
            grown |= np.roll(mask_HW, (dy, dx), axis=(0, 1))
    return grown


def _template_accuracy(label: str, names: tuple[str, ...], style_of: Callable, centred: bool) -> float:
    def edges(number: int) -> tuple[str, np.ndarray]:
        thing = content(1, number)
        if centred:  # the object in the middle, so that one template serves
            thing = replace(thing, start=(0.5, 0.5), progress=0.0)
        grey_HW = draw_clip(thing, style_of(number), frames=1)[0][0].mean(axis=2)
        picture = np.hypot(np.diff(grey_HW, axis=0)[:, 1:], np.diff(grey_HW, axis=1)[1:]).clip(0, 40)
        if centred:
            picture = picture[14:49, 14:49]
        else:  # phases vary, so only how much line there is in each row and direction counts
            across, down = np.diff(grey_HW, axis=1)[1:].__abs__(), np.diff(grey_HW, axis=0)[:, 1:].__abs__()
            picture = np.concatenate([across.clip(0, 40).mean(axis=1), down.clip(0, 40).mean(axis=1)])
        return getattr(thing, label), picture.reshape(-1)

    known, asked = [edges(number) for number in range(400)], [edges(number) for number in range(400, 560)]
    means = np.stack([np.mean([p for name, p in known if name == one], axis=0) for one in names])
    right = [names[np.linalg.norm(means - p, axis=1).argmin()] == name for name, p in asked]
    return float(np.mean(right))
