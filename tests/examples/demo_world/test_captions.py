"""Captions say what is shown, and style only where asked for."""

from itertools import product

import pytest

from examples.demo_world import captions
from examples.demo_world.dataset import clip, still
from examples.demo_world.shapes import SHAPES
from examples.demo_world.world import FAMILIES, MOTIONS, NEUTRAL_FAMILY, SCENES, content, style


def test_captions_round_trip() -> None:
    for number, variant in product(range(60), range(len(captions.MOVING))):
        thing = content(0, number)
        moving = captions.caption(thing, variant, moving=True)
        assert captions.parse_caption(moving) == thing.combination
        standing = captions.caption(thing, variant, moving=False)
        assert captions.parse_caption(standing) == (thing.shape, thing.scene, None)


def test_no_label_is_a_word_of_a_template_or_another_label() -> None:
    words = " ".join([*captions.MOVING, *captions.STILL]).replace("{", " {").split()
    labels = [*SHAPES, *SCENES, *MOTIONS]
    assert len(set(labels)) == len(labels)
    assert set(labels).isdisjoint(words)


def test_a_number_draws_many_captions() -> None:
    seen = {clip(0, index, size=16, frames=1).labels.caption for index in range(300)}
    assert len(seen) > 150
    assert len({still(0, index, size=16).labels.caption for index in range(300)}) > 50


@pytest.mark.parametrize("number", range(8))
def test_a_styled_caption_also_names_the_style(number: int) -> None:
    thing, look = content(0, number), style(0, number)
    for variant in range(20):
        text = captions.styled_caption(thing, look, variant, moving=True)
        assert captions.parse_caption(text) == thing.combination
        plain = captions.caption(thing, variant // len(captions.STYLED), moving=True)
        assert plain in text
        assert captions._STYLE_NAMES[look.family] in text


def test_each_family_has_its_own_name() -> None:
    assert set(captions._STYLE_NAMES) == {*FAMILIES, NEUTRAL_FAMILY}
    assert len(set(captions._STYLE_NAMES.values())) == len(captions._STYLE_NAMES)


def test_a_caption_without_labels_names_nothing() -> None:
    assert captions.parse_caption("A starling, a seal and uptown") == (None, None, None)
