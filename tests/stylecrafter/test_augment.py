"""Where the pixels of target and reference come from, on pictures whose colours are their coordinates."""

import numpy as np
import pytest

from stylecrafter.augment import centre_crop, decoupled_pair, reference_crop

TALL, WIDE = 100, 200


def coordinates(tall: int = TALL, wide: int = WIDE) -> np.ndarray:
    """Red is the column, green the row, both in shares of the picture from 0 to 250."""
    down, right = np.meshgrid(np.arange(tall) + 0.5, np.arange(wide) + 0.5, indexing="ij")
    return np.stack([250 * right / wide, 250 * down / tall, 0 * right], axis=-1).round().astype(np.uint8)


def extent(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what a crop shows, in shares of the whole picture."""
    height, width = picture.shape[:2]
    columns, rows = picture[height // 2, :, 0] / 250, picture[:, width // 2, 1] / 250
    half_column, half_row = ((x[-1] - x[0]) / (len(x) - 1) / 2 for x in (columns, rows))
    return (
        columns[0] - half_column,
        rows[0] - half_row,
        columns[-1] + half_column,
        rows[-1] + half_row,
    )


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (50, 50, (0.25, 0, 0.75, 1)),
        (200, 200, (0.25, 0, 0.75, 1)),
        (50, 100, (0, 0, 1, 1)),
        (20, 80, (0, 0.25, 1, 0.75)),
        (40, 64, (0.1, 0, 0.9, 1)),
    ],
)
def test_target_is_the_middle_of_the_picture_and_all_of_one_side(height, width, expected):
    target = centre_crop(coordinates(), height, width)
    assert target.shape == (height, width, 3)
    assert target.dtype == np.uint8
    assert extent(target) == pytest.approx(expected, abs=0.02)


def test_a_picture_of_the_right_size_stays_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    assert np.array_equal(centre_crop(picture, 40, 64), picture)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_reference_is_a_detail_of_the_published_size(size):
    generator = np.random.default_rng(0)
    found = []
    for _ in range(50):
        reference = reference_crop(coordinates(), size, generator)
        assert reference.shape == (size, size, 3)
        left, top, right, bottom = extent(reference)
        # 512 of 800 pixels along the short side, and the same number of pixels along the long one.
        assert bottom - top == pytest.approx(512 / 800, abs=0.03)
        assert right - left == pytest.approx(512 / 800 * TALL / WIDE, abs=0.03)
        assert min(left, top) > -0.02
        assert max(right, bottom) < 1.02
        found.append((left, top))
    # Every place is possible, the corners included.
    assert np.ptp(found, axis=0) == pytest.approx([1 - 0.32, 1 - 0.64], abs=0.08)


def test_pair_is_two_views_of_the_same_picture():
    target, reference = decoupled_pair(coordinates(), 32, 48, 64, np.random.default_rng(1))
    assert extent(target) == pytest.approx((0.125, 0, 0.875, 1), abs=0.02)
    assert np.array_equal(target, centre_crop(coordinates(), 32, 48))
    left, top, right, bottom = extent(reference)
    assert (right - left, bottom - top) == pytest.approx((0.32, 0.64), abs=0.03)


def test_randomness_comes_from_the_generator_alone():
    pairs = [decoupled_pair(coordinates(), 32, 32, 64, np.random.default_rng(seed))[1] for seed in (3, 3, 4)]
    assert np.array_equal(pairs[0], pairs[1])
    assert not np.array_equal(pairs[0], pairs[2])
    # The switch does not shift what is drawn next.
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    decoupled_pair(coordinates(), 32, 32, 64, one)
    decoupled_pair(coordinates(), 32, 32, 64, other, augment=False)
    assert one.random() == other.random()


def test_without_augmentation_the_reference_shows_what_the_target_shows():
    target, reference = decoupled_pair(coordinates(), 32, 32, 64, np.random.default_rng(0), augment=False)
    assert extent(reference) == pytest.approx(extent(target), abs=0.02)
    assert np.array_equal(reference, centre_crop(coordinates(), 64, 64))


def test_all_frames_of_a_clip_are_cut_alike_and_one_is_the_reference():
    clip = np.stack([coordinates()] * 4)
    clip[..., 2] = (np.arange(4) * 60)[:, None, None]
    seen = set()
    for seed in range(30):
        target, reference = decoupled_pair(clip, 32, 48, 64, np.random.default_rng(seed))
        assert target.shape == (4, 32, 48, 3)
        assert reference.shape == (64, 64, 3)
        assert np.unique(reference[..., 2]).size == 1
        seen.add(int(reference[0, 0, 2]))
    assert seen == {0, 60, 120, 180}
    for frame, index in zip(target, range(4), strict=True):
        assert np.array_equal(frame, centre_crop(clip[index], 32, 48))


def test_reduction_smooths():
    stripes = np.zeros((128, 128, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(centre_crop(stripes, 32, 32)[:, 2:-2].astype(int) - 127).max() < 20


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((8, 8, 3), dtype=np.float32), "pixels are float32 of shape"),
        (np.zeros((8, 8), dtype=np.uint8), r"pixels are uint8 of shape \(8, 8\)"),
        (np.zeros((8, 8, 4), dtype=np.uint8), "with 3 colours"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "pixels are uint8 of shape"),
    ],
)
def test_what_is_no_picture_is_refused(pixels, message):
    with pytest.raises(ValueError, match=message):
        centre_crop(pixels, 8, 8)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="height is 0; allowed are 1 or more pixels"):
        decoupled_pair(coordinates(), 0, 8, 8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="height is 0"):
        reference_crop(coordinates(), 0, np.random.default_rng(0))
