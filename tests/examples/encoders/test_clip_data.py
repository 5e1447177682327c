"""examples/encoders/clip_data.py: which captions are true of which samples."""

import numpy as np
import pytest

from examples.demo_world.captions import parse_caption
from examples.encoders.clip_data import UNKNOWN, VALUES, Caption, ClipData, demo_data, every_word
from examples.encoders.train_clip import parser
from stylecrafter.tokenizer import PUBLISHED_MERGES, tokenizer_from_merges


@pytest.fixture(scope="module")
def data():
    return demo_data(10, seed=3, size=32)


def test_captions_say_what_their_labels_say(data):
    for sample, captions in enumerate(data.captions):
        assert len({one.text for one in captions}) > 3
        for one in captions:
            parsed = parse_caption(one.text)
            for name in ("shape", "scene", "motion"):
                value = getattr(parsed, name)
                assert one.named.get(name, UNKNOWN) == (VALUES[name].index(value) if value else UNKNOWN)
            assert all(data.labels[name][sample] == number for name, number in one.named.items())


def test_the_last_samples_are_neutral_and_never_name_a_style(data):
    assert list(data.labels["family"] == UNKNOWN) == [False] * 7 + [True] * 3
    assert not any("family" in one.named for captions in data.captions[7:] for one in captions)
    assert any("palette" in one.named for captions in data.captions[:7] for one in captions)


def test_a_caption_fits_every_sample_that_it_does_not_contradict():
    labels = {"shape": np.array([0, 0, 1]), "family": np.array([2, UNKNOWN, 2])}
    samples = ClipData(np.zeros((3, 1, 8, 8, 3), np.uint8), [], labels)
    captions = [
        Caption("ring", {"shape": 0}),
        Caption("ring, ink", {"shape": 0, "family": 2}),
        Caption("a thing"),
    ]
    assert samples.fitting([0, 1, 2], captions).tolist() == [
        [True, True, True],
        [True, False, True],
        [False, False, True],
    ]


def test_without_labels_equal_captions_fit():
    samples = ClipData(np.zeros((3, 1, 8, 8, 3), np.uint8), [])
    fits = samples.fitting([0, 1, 2], [Caption("a"), Caption("b"), Caption("a")])
    assert fits.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_no_two_words_of_the_demo_world_share_an_id_in_the_folded_vocabulary():
    defaults = parser().parse_args(["--output", "x"])
    whole = tokenizer_from_merges(PUBLISHED_MERGES, 49_408, defaults.prompt_length)
    folded = tokenizer_from_merges(PUBLISHED_MERGES, defaults.vocabulary, defaults.prompt_length)
    words = sorted(every_word())
    pairs = {
        (before, after)
        for before, after in zip(
            whole.prompt_ids(words).flatten().tolist(),
            folded.prompt_ids(words).flatten().tolist(),
            strict=True,
        )
    }
    assert len(words) > 40
    assert len({before for before, _ in pairs}) == len({after for _, after in pairs}) == len(pairs)


def test_no_caption_of_the_demo_world_is_cut():
    defaults = parser().parse_args(["--output", "x"])
    tokenizer = tokenizer_from_merges(PUBLISHED_MERGES, defaults.vocabulary, defaults.prompt_length)
    texts = [one.text for captions in demo_data(96, seed=0, size=16).captions for one in captions]
    longest = "over the hills a cross drifts right in the style of pen and ink drawing"
    ids_BS = tokenizer.prompt_ids(
        [*texts, longest, "watercolor painting of a ring moving down over the hills"]
    )
    end = defaults.vocabulary - 1
    assert int((ids_BS == end).int().argmax(1).max()) < defaults.prompt_length - 1
