"""Style phrases go, content stays."""

import pytest

from stylecrafter.captions import remove_style_phrases

CHANGED = [
    ("a painting of a dog", "a dog"),
    ("painting of two dogs on a beach", "two dogs on a beach"),
    ("a watercolor painting of a cat sitting on a chair", "a cat sitting on a chair"),
    ("watercolor illustration of a fox", "a fox"),
    ("an oil painting of a woman with a parasol", "a woman with a parasol"),
    ("a black and white photo of a man on a horse", "a man on a horse"),
    ("a black-and-white photograph of an old bridge", "an old bridge"),
    ("a photo of a train", "a train"),
    ("an image of a city at night", "a city at night"),
    ("a pencil drawing of a horse", "a horse"),
    ("a pencil sketch of a horse", "a horse"),
    ("a japanese woodblock print of a wave", "a wave"),
    ("an abstract painting of a tree", "a tree"),
    ("a colorful 3d rendering of a car", "a car"),
    ("a digital painting of a castle", "a castle"),
    ("a hand-drawn illustration of a bicycle", "a bicycle"),
    ("this is a painting of a dog", "a dog"),
    ("there is a drawing of a house", "a house"),
    ("a cartoon of two mice", "two mice"),
    ("a painting showing a river", "a river"),
    ("a painting depicting a battle", "a battle"),
    ("a painting of a painting of a dog", "a dog"),
    ("a pop art print of a can of soup", "a can of soup"),
    ("A drawing of a cat.", "A cat."),
    ("a dog, in the style of van gogh", "a dog"),
    ("a dog in the style of van gogh", "a dog"),
    ("a boat in the style of van gogh sitting on a chair", "a boat sitting on a chair"),
    ("a bridge, painted in the style of claude monet, at night", "a bridge, at night"),
    ("a village in the manner of the old masters", "a village"),
    ("a dog in the style of picasso and matisse with a bone", "a dog with a bone"),
    ("a horse in a cartoon style", "a horse"),
    ("a harbour in impressionist style", "a harbour"),
    ("a harbour in van gogh style", "a harbour"),
    ("a forest painted in watercolor", "a forest"),
    ("a girl drawn with colored pencils on paper", "a girl"),
    ("water lilies by Monet", "water lilies"),
    ("water lilies by monet", "water lilies"),
    ("the starry night by vincent van gogh", "the starry night"),
    ("a ship at sea, by Jane van der Berg", "a ship at sea"),
    ("a ship at sea by Ivan Aivazovsky, oil on canvas", "a ship at sea"),
    ("a dog by an unknown artist", "a dog"),
    ("a dog by artist jane doe", "a dog"),
    ("a castle, digital art", "a castle"),
    ("a castle digital art", "a castle"),
    ("a castle, concept art, highly detailed, trending on artstation", "a castle"),
    ("a forest, oil on canvas", "a forest"),
    ("a forest oil on canvas", "a forest"),
    ("oil painting, a ship at sea", "a ship at sea"),
    ("an anime girl with blue hair", "a girl with blue hair"),
    ("a cartoon elephant", "an elephant"),
    ("a cartoon-style owl", "an owl"),
    ("a cat, watercolor style", "a cat"),
    ("a watercolor painting of a dog, in the style of monet, 4k", "a dog"),
    ("a photo of an hourglass", "an hourglass"),
    ("a painting by monet", "a painting"),
]
UNCHANGED = [
    "a man painting a fence",
    "a painting on a wall",
    "a woman looking at a painting of a dog",
    "a woman is painting a picture of a dog",
    "a wall full of digital art",
    "a shop that sells digital art",
    "a girl holding a watercolor painting",
    "a child drawing on the street with chalk",
    "a black and white cat",
    "a dog, black and white",
    "a dog by the lake",
    "a woman standing by Lake Como",
    "a cabin by Lake Tahoe",
    "a temple surrounded by Japanese maples",
    "a cart pulled by horses",
    "a man reading by candlelight",
    "a house built in a victorian style",
    "a modern house with a swimming pool",
    "a japanese garden with a bridge",
    "an oil lamp on a table",
    "an oil tanker at sea",
    "a pencil on a sheet of paper",
    "ink spilled on a desk",
    "a photographer taking a photo of a bride",
    "a picture frame on a desk",
    "a portrait of a woman with red hair",
    "a bowl of watercolor paints",
    "an anime convention with many people",
    "a manga shop in tokyo",
    "a museum with paintings of horses",
    "a stylish woman in a red coat",
    "a hair style with braids",
    "people dancing in a modern style",
    "a desk with paper, a painting, and a lamp",
    "an art teacher in a classroom",
    "a canvas tent on a hill",
    "a van on a road",
    "a person using a sketch book",
    "digital art",
    "a painting",
    "the style of van gogh",
    "a field of sunflowers on a sunny day",
    "   ",
    "",
]


@pytest.mark.parametrize(("caption", "expected"), CHANGED)
def test_style_goes(caption, expected):
    assert remove_style_phrases(caption) == expected


@pytest.mark.parametrize("caption", UNCHANGED)
def test_content_stays(caption):
    assert remove_style_phrases(caption) == caption


@pytest.mark.parametrize("caption", [caption for caption, _ in CHANGED] + UNCHANGED)
def test_a_second_time_changes_nothing_and_something_is_left(caption):
    once = remove_style_phrases(caption)
    assert remove_style_phrases(once) == once
    assert bool(once.strip()) == bool(caption.strip())


def test_any_pile_of_phrases_leaves_something_and_is_idempotent():
    pieces = [
        "a painting of",
        "in the style of monet",
        ",",
        "digital art",
        "by Jane Doe",
        "a dog",
        "cartoon",
        "style",
    ]
    for first in pieces:
        for second in pieces:
            for third in pieces:
                caption = f"{first} {second} {third}"
                once = remove_style_phrases(caption)
                assert once.strip(), caption
                assert remove_style_phrases(once) == once, caption
