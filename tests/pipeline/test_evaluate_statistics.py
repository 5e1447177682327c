"""Bootstrap intervals and paired differences against known answers."""

import numpy as np
import pytest

from pipeline.evaluate_statistics import mean_interval, paired_difference


def test_the_interval_of_independent_values_is_that_of_theory():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    found = mean_interval(values, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.012)
    assert found.high == pytest.approx(values.mean() + half, abs=0.012)
    assert found.count == 400


def test_values_that_share_a_style_count_as_one():
    styles = np.repeat(np.arange(10), 40)
    values = np.random.default_rng(1).normal(size=10)[styles]  # forty times the same
    alone = mean_interval(values)
    found = mean_interval(values, (styles,), resamples=4000)
    half = 1.96 * values.std() / np.sqrt(10)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.12)
    assert found.high - found.low > 5 * (alone.high - alone.low)


def test_labels_that_all_differ_or_all_agree_are_no_groups():
    values = np.random.default_rng(2).normal(size=50)
    assert mean_interval(values, (np.arange(50), np.zeros(50))) == mean_interval(values)


def test_missing_values_do_not_count():
    found = mean_interval(np.array([1.0, np.nan, 1.0]))
    assert (found.mean, found.low, found.high, found.count) == (1.0, 1.0, 1.0, 2)
    assert mean_interval(np.array([np.nan])).count == 0
    assert str(mean_interval(np.array([]))) == "–"


def test_a_paired_difference_is_seen_through_the_spread_of_the_rows():
    random = np.random.default_rng(3)
    rows = random.normal(0, 5, 60)
    step = random.normal(0.5, 1.0, 60)
    found = paired_difference(rows, rows + step)
    assert found.difference.mean == pytest.approx(step.mean())
    assert found.effect_size == pytest.approx(step.mean() / step.std(ddof=1))
    assert found.is_significant
    assert found.higher == (step > 0).mean()
    swapped = paired_difference(rows + step, rows)
    assert swapped.effect_size == pytest.approx(-found.effect_size)


def test_no_difference_is_not_significant_and_ties_count_half():
    rows = np.random.default_rng(4).normal(size=80)
    found = paired_difference(rows, rows)
    assert not found.is_significant
    assert np.isnan(found.effect_size)
    assert found.higher == 0.5


def test_rows_that_one_run_lacks_count_for_nothing():
    found = paired_difference(np.array([1.0, np.nan, 3.0]), np.array([2.0, 5.0, np.nan]))
    assert (found.first, found.second, found.difference.count) == (1.0, 2.0, 1)
