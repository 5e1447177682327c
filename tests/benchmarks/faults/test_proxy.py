"""The schedule spoils every third request by the next fault that fits, and tells of it."""

import http.client
from urllib.parse import urlsplit

import pytest

from benchmarks.faults import proxy as module
from benchmarks.faults.fault import Fault
from benchmarks.faults.proxy import Schedule
from tests.support.faulty_proxy import FaultyProxy, drop, lose_answer
from tests.support.http_server import answer

BODY = b"0123456789" * 100


def request(proxy, method="GET"):
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
    try:
        connection.request(method, "/x")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def through(http_server, monkeypatch):
    """Three requests through a proxy with one fault; the third one meets it."""
    http_server.on("/x", answer(200, BODY))
    monkeypatch.setattr(module, "_SLOW_S", 0.04)

    def run(kind):
        claimed = []
        with FaultyProxy(http_server.url) as proxy:
            proxy.faults = Schedule([Fault("f", kind)], claimed.append, seed=0)
            for _ in range(2):
                assert request(proxy) == (200, BODY)
            assert not claimed
            try:
                return request(proxy)
            finally:
                assert [fault.kind for fault in claimed] == [kind]

    return run


@pytest.mark.parametrize(("kind", "statuses"), [("s3_5xx", {500, 502, 503}), ("s3_429", {429})])
def test_errors(through, kind, statuses):
    assert through(kind)[0] in statuses


@pytest.mark.parametrize("kind", ["s3_dropped", "s3_outage", "s3_truncated"])
def test_broken_connections(through, kind):
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        through(kind)


def test_slow_is_whole(through):
    assert through("s3_slow") == (200, BODY)


def test_what_needs_a_body_waits_for_a_request_that_has_one():
    claimed = []
    schedule = Schedule([Fault("t", "s3_truncated"), Fault("d", "s3_dropped")], claimed.append, seed=0)
    assert [schedule("PUT", f"/{index}") for index in range(2)] == [None, None]
    assert schedule("PUT", "/2") in (drop, lose_answer)
    assert [fault.id for fault in claimed] == ["d"]


def test_no_object_is_spoilt_more_than_twice():
    schedule = Schedule([Fault(str(index), "s3_429") for index in range(9)], lambda fault: None, seed=0)
    assert sum(schedule("GET", f"/same?part={index}") is not None for index in range(30)) == 2


def test_an_outage_lasts_as_long_as_its_fault_says(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    schedule = Schedule([Fault("o", "s3_outage", action="35")], lambda fault: None, seed=0)
    assert [schedule("GET", "/x") for _ in range(3)][2] is drop
    now[0] += 34
    assert schedule("PUT", "/y") is drop
    now[0] += 2
    assert schedule("PUT", "/y") is None
