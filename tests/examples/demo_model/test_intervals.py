"""examples/demo_model/intervals: against known values."""

import numpy as np
import pytest

from examples.demo_model.intervals import bootstrap, wilson


def test_wilson_as_in_the_literature():
    # 15 of 148: [0.062, 0.160] in R. G. Newcombe, 1998, table I.
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def test_wilson_at_the_ends_stays_in_range():
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(20, 20) == pytest.approx((0.8389, 1), abs=1e-4)


@pytest.mark.parametrize(("right", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_cannot_be_counted(right, n):
    with pytest.raises(ValueError, match=f"right = {right} of n = {n}"):
        wilson(right, n)


def test_bootstrap_is_the_normal_interval_for_many_values():
    values = np.random.default_rng(1).normal(3, 2, size=400)
    half = 1.96 * values.std() / 20
    assert bootstrap(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert bootstrap(values) == bootstrap(values)


def test_bootstrap_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap([])
