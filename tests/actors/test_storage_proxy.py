"""A real S3 server behind a proxy that fails: what is retried, and that no half object passes for a whole one."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from actors import storage_s3
from actors.storage import (
    AccessDenied,
    ObjectNotFound,
    Storage,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
)
from examples.s3_server import S3Server
from schemas.run import FetchLimits
from tests.support import faulty_proxy
from tests.support.faulty_proxy import Fault, FaultyProxy

DATA = bytes(range(256)) * 40


@pytest.fixture
def proxy(s3_env: S3Server, short_pauses: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def uri() -> str:
    return f"s3://outputs/{uuid4().hex}"


def stored(server: S3Server, uri: str) -> bytes:
    """What the server really holds, asked without the code under test."""
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    body: bytes = server.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


PASSING: dict[str, Fault] = {
    "429": faulty_proxy.status(429, "TooManyRequests"),
    "500": faulty_proxy.status(500, "InternalError"),
    "502": faulty_proxy.status(502),
    "503": faulty_proxy.status(503, "SlowDown"),
    "dropped": faulty_proxy.drop,
    "answer lost": faulty_proxy.lose_answer,
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(proxy: FaultyProxy, s3_env: S3Server, uri: str, name: str) -> None:
    storage = Storage()
    for method, operation in {
        "PUT": lambda: storage.write_bytes(uri, DATA),
        "HEAD": lambda: storage.stat(uri),
        "GET": lambda: storage.list("s3://outputs"),
        "DELETE": lambda: storage.delete(uri),
    }.items():
        if method == "GET":  # of the object, and of a list
            proxy.first(2, PASSING[name], "GET", uri.rpartition("/")[2])
            assert storage.read_bytes(uri) == DATA
            proxy.first(2, PASSING[name], "GET", "list-type")
            assert uri in {stat.uri for stat in storage.list("s3://outputs")}
            continue
        if method == "DELETE":
            assert stored(s3_env, uri) == DATA
        proxy.first(2, PASSING[name], method)
        before = len(proxy.requests)
        operation()
        assert len(proxy.requests) == before + 3
    assert not storage.exists(uri)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faulty_proxy.status(403, "AccessDenied"), AccessDenied),
        (faulty_proxy.status(404, "NoSuchKey"), ObjectNotFound),
        (faulty_proxy.status(400, "InvalidRequest"), StorageUnavailable),
        (faulty_proxy.status(403, "InvalidAccessKeyId"), StorageUnavailable),
        (faulty_proxy.status(501, "NotImplemented"), StorageUnavailable),
    ],
)
def test_what_stays_is_not(proxy: FaultyProxy, uri: str, fault: Fault, error: type[StorageError]) -> None:
    proxy.first(99, fault)
    with pytest.raises(error):
        Storage(patience_s=60).read_bytes(uri)
    assert len(proxy.requests) == 1


def test_a_truncated_body_is_never_taken_for_the_object(proxy: FaultyProxy, uri: str) -> None:
    storage = Storage(FetchLimits(fetch_retries=2))
    storage.write_bytes(uri, DATA)
    proxy.first(2, faulty_proxy.truncate, "GET")
    assert storage.fetch(uri, None)[0] == DATA
    proxy.first(99, faulty_proxy.truncate, "GET")
    with pytest.raises(StorageUnavailable):
        storage.fetch(uri, None)
    with pytest.raises(StorageUnavailable), storage.open(uri) as file:
        file.read()


@pytest.mark.parametrize("fault", [faulty_proxy.drip, faulty_proxy.hang])
def test_a_slow_store_costs_no_more_than_the_time_limit(proxy: FaultyProxy, uri: str, fault: Fault) -> None:
    storage = Storage(FetchLimits(fetch_timeout_s=2))
    storage.write_bytes(uri, DATA)
    proxy.first(99, fault, "GET")
    started = time.monotonic()
    with pytest.raises(StorageTimeout):
        storage.read_bytes(uri)
    assert time.monotonic() - started < 15


def test_an_upload_spoilt_on_its_way_is_sent_again(proxy: FaultyProxy, s3_env: S3Server, uri: str) -> None:
    proxy.first(1, faulty_proxy.other_etag, "PUT")
    Storage().write_bytes(uri, DATA)
    assert stored(s3_env, uri) == DATA
    assert len(proxy.requests) == 2
    proxy.first(99, faulty_proxy.other_etag, "PUT")
    with pytest.raises(StorageUnavailable, match="other bytes than were sent"):
        Storage(FetchLimits(fetch_retries=1)).write_bytes(uri, DATA)


def test_an_upload_that_fails_leaves_what_was_there(proxy: FaultyProxy, s3_env: S3Server, uri: str) -> None:
    storage = Storage(FetchLimits(fetch_retries=0))
    storage.write_bytes(uri, b"before")
    proxy.first(99, faulty_proxy.drop, "PUT")
    with pytest.raises(StorageUnavailable):
        storage.write_bytes(uri, DATA)
    assert stored(s3_env, uri) == b"before"


def test_an_upload_in_parts_of_which_one_fails(
    proxy: FaultyProxy, s3_env: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage_s3, "_SINGLE_PUT_BYTES", 10 * 2**20)
    source = tmp_path / "large.bin"
    source.write_bytes(hashlib.sha256(b"seed").digest() * (12 * 2**20 // 32))
    storage = Storage(FetchLimits(fetch_retries=0))
    proxy.first(99, faulty_proxy.status(400, "InvalidRequest"), "PUT", "partNumber=2")
    with pytest.raises(StorageError):
        storage.upload(source, uri)
    assert not storage.exists(uri)
    proxy.first(1, faulty_proxy.status(503, "SlowDown"), "PUT", "partNumber=2")
    Storage().upload(source, uri)
    assert stored(s3_env, uri) == source.read_bytes()


def test_an_outage_is_waited_for_and_no_longer_than_allowed(proxy: FaultyProxy, uri: str) -> None:
    started = time.monotonic()
    proxy.faults = lambda method, path: faulty_proxy.drop if time.monotonic() - started < 3 else None
    Storage(FetchLimits(fetch_retries=0), patience_s=60).write_bytes(uri, DATA)
    assert time.monotonic() - started >= 3
    proxy.faults = lambda method, path: faulty_proxy.drop
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        Storage(FetchLimits(fetch_retries=0, fetch_timeout_s=0.5), patience_s=2).write_bytes(uri, DATA)
    assert time.monotonic() - started < 10
