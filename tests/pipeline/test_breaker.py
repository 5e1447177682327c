"""When most rows fail in one way, it is not the rows."""

import pytest

from actors.storage import Storage
from pipeline.breaker import Breaker, CircuitOpen, open_circuits
from pipeline.ledger import redo_after


@pytest.fixture
def breaker(tmp_path):
    return Breaker(Storage(), str(tmp_path), "run-1", window=10)


def record(error_class=None):
    return {"row_id": "r", "error_class": error_class, "error": error_class and "the encoder is missing"}


def test_it_opens_when_more_than_half_of_the_last_rows_share_a_class(breaker, tmp_path):
    for error_class in ["encode_failed", None] * 5:
        breaker.saw(record(error_class))
    with pytest.raises(
        CircuitOpen, match=r"6 of the last 10 rows failed with encode_failed, .*'r': the encoder"
    ):
        for _ in range(3):
            breaker.saw(record("encode_failed"))
    assert open_circuits(Storage(), str(tmp_path)) == {("run-1", "encode_failed")}


def test_a_few_rows_do_not_open_it(breaker):
    for _ in range(9):
        breaker.saw(record("encode_failed"))


def test_many_ways_to_fail_do_not_open_it(breaker):
    for error_class in ["encode_failed", "render_failed", "non_finite"] * 50:
        breaker.saw(record(error_class))


def test_failures_that_opened_it_do_not_count_as_done(breaker, tmp_path):
    with pytest.raises(CircuitOpen):
        for _ in range(10):
            breaker.saw(record("encode_failed"))
    redo = redo_after(open_circuits(Storage(), str(tmp_path)))
    assert redo("failed", "encode_failed", "run-1")
    assert not redo("failed", "encode_failed", "run-2")
    assert not redo("failed", "render_failed", "run-1")
    assert redo("failed", "asset_timeout", "run-2")


def test_a_plan_in_which_most_rows_fail_in_one_way_is_stopped(breaker):
    breaker.saw_plan([record("asset_not_found")] * 5, 5, 5)  # a handful
    breaker.saw_plan([record("asset_not_found")] * 50, 50, 100)  # half
    with pytest.raises(CircuitOpen, match=r"51 of 100 unfinished rows failed with asset_not_found"):
        breaker.saw_plan([record("asset_not_found")] * 51, 51, 100)
    breaker.saw_plan([record("asset_not_found"), record("uri_forbidden")] * 30, 60, 100)


def test_what_the_config_accepts_does_not_open_it(tmp_path):
    breaker = Breaker(Storage(), str(tmp_path), "run-1", accepted=0.9, window=10)
    breaker.saw_plan([record("asset_not_found")] * 90, 90, 100)
    for _ in range(3):
        for error_class in ["encode_failed"] * 9 + [None]:
            breaker.saw(record(error_class))
    with pytest.raises(CircuitOpen):
        breaker.saw_plan([record("asset_not_found")] * 91, 91, 100)
