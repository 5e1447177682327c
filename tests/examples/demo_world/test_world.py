"""What the demo world holds, what it holds out, and that a number always means the same."""

from itertools import product

import numpy as np
import pytest

from examples.demo_world import world
from examples.demo_world.palettes import PALETTES
from examples.demo_world.shapes import SHAPES, shape_mask
from examples.demo_world.world import DIRECTIONS, FAMILIES, MOTIONS, SCENES, SPLITS, Split


def test_the_world_is_as_large_as_promised() -> None:
    assert len(SHAPES) >= 5
    assert len(SCENES) >= 3
    assert len(MOTIONS) >= 4
    assert len(FAMILIES) >= 8
    assert len(set(PALETTES)) == 12


def test_splits_share_no_content_and_leave_none_out() -> None:
    train, held_out = (set(world.content_combinations(split)) for split in SPLITS)
    assert train.isdisjoint(held_out)
    assert train | held_out == set(product(SHAPES, SCENES, MOTIONS))
    for place, names in enumerate((SHAPES, SCENES, MOTIONS)):
        assert {combination[place] for combination in held_out} == set(names)
        assert {combination[place] for combination in train} == set(names)
    assert {c[:2] for c in train} == set(product(SHAPES, SCENES)), "a still's content would be unseen"


def test_splits_share_no_style_and_leave_none_out() -> None:
    train, held_out = (set(world.style_combinations(split)) for split in SPLITS)
    assert train.isdisjoint(held_out)
    assert train | held_out == set(product(FAMILIES, PALETTES))
    assert {family for family, _ in held_out} == set(FAMILIES)
    assert {palette for _, palette in held_out} == set(PALETTES)


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_splits_own_combinations_come_and_all_of_them_do(split: Split) -> None:
    contents = {world.content(3, number, split).combination for number in range(600)}
    styles = {world.style(3, number, split).combination for number in range(160)}
    assert contents == set(world.content_combinations(split))
    assert styles == set(world.style_combinations(split))


def test_neighbouring_styles_take_turns_between_families() -> None:
    assert [world.style(0, number).family for number in range(16)] == [*FAMILIES, *FAMILIES]


def test_palettes_differ_within_a_class() -> None:
    count = len(world.style_combinations("train"))
    first, second = world.style(0, 5), world.style(0, 5 + count)
    assert first.combination == second.combination
    assert first.palette != second.palette
    assert len({world.style(0, number).palette for number in range(2000)}) == 2000


def test_a_number_means_the_same_whenever_it_is_asked_for() -> None:
    later_first = [world.content(7, number) for number in (5, 1)]
    assert later_first == [world.content(7, number) for number in (1, 5)][::-1]
    assert world.content(7, 1) != world.content(8, 1)
    assert world.content(7, 1, "held-out").layout != world.content(7, 1).layout
    assert world.style(7, 1) == world.style(7, 1)
    assert world.style(7, 1).grain != world.style(8, 1).grain


def test_other_content_has_another_shape_and_scene() -> None:
    for split in SPLITS:
        for number in range(100):
            one = world.content(0, number, split)
            other = world.content(0, number + 1000, split, unlike=one)
            assert other.shape != one.shape
            assert other.scene != one.scene
            assert other.combination in world.content_combinations(split)


def test_the_object_starts_near_the_middle_and_ends_inside_the_border() -> None:
    for number in range(200):
        content = world.content(1, number)
        path = world.positions(content, 8)
        assert np.abs(path[0] - 0.5).max() <= 0.05
        way = (path[-1] - path[0]) * DIRECTIONS[content.motion]
        assert way.sum() > 0.15
        assert (path[-1] - path[0] == 0).sum() == 1, "it moves along one axis only"
        edges = np.stack([path - content.size / 2, path + content.size / 2])
        assert edges.min() >= 0.02
        assert edges.max() <= 0.98
        assert np.allclose(np.diff(path, axis=0), path[1] - path[0])


def test_a_still_shows_a_moment_of_the_way() -> None:
    content = world.content(1, 4)
    start, *_, end = world.positions(content, 8)
    moment = world.positions(content, 1)[0]
    assert np.allclose(moment, start + (end - start) * content.progress)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_square(shape: str) -> None:
    mask_HW = shape_mask(shape, side_px=28, canvas_px=64)
    rows, columns = mask_HW.max(axis=1) > 0.5, mask_HW.max(axis=0) > 0.5
    assert 24 <= rows.sum() <= 29
    assert 24 <= columns.sum() <= 29
    assert abs(np.flatnonzero(rows).mean() - 31.5) <= 1.5
    assert abs(np.flatnonzero(columns).mean() - 31.5) <= 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0), "seed = -1: must be at least 0"),
        ((0, -2), "number = -2: must be at least 0"),
        ((0, 0, "test"), "split = 'test': must be one of train, held-out"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: tuple, message: str) -> None:
    for draw in (world.content, world.style, world.neutral_style):
        with pytest.raises(ValueError, match=message):
            draw(*arguments)
