"""Faults of the object store: what is retried, for how long, what the message says, and what it never says."""

import errno
import os
import time
from pathlib import Path
from uuid import uuid4

import pytest

from actors import storage_local
from actors.retries import RetryPolicy, TransientError
from actors.storage import (
    AccessDenied,
    ObjectNotFound,
    Storage,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
    TooLarge,
    UriForbidden,
    redact,
)
from examples.s3_server import S3Server
from schemas.run import FetchLimits
from tests.support.http_server import HttpServer, answer, dripping, endless, reset

_ETAG = "5d41402abc4b2a76b9719d911017c592"  # of b"hello"


@pytest.fixture
def fake_s3(
    s3_env: S3Server, http_server: HttpServer, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> HttpServer:
    """A scripted server where S3 is expected."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", http_server.url)
    return http_server


def _seconds(started: float) -> float:
    return time.monotonic() - started


def test_transient_then_success(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", answer(503), answer(500), reset(), answer(200, b"hello", ETag=f'"{_ETAG}"'))
    assert Storage().fetch("s3://b/k", 100) == (b"hello", ("s3://b/k", 5, _ETAG))
    assert fake_s3.requests == ["GET /b/k"] * 4


def test_transient_until_the_retries_end(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", answer(503, b"<Error><Code>SlowDown</Code></Error>"))
    with pytest.raises(StorageUnavailable, match=r"503 SlowDown, also after retries; check AWS_ENDPOINT_URL"):
        Storage(FetchLimits(fetch_retries=2)).read_bytes("s3://b/k")
    assert len(fake_s3.requests) == 3


def test_patience_outlasts_an_outage_that_retries_do_not(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", *[answer(503)] * 4, answer(200, b"hello", ETag=f'"{_ETAG}"'))
    assert Storage(FetchLimits(fetch_retries=0), patience_s=30).read_bytes("s3://b/k") == b"hello"


def test_forbidden_is_not_retried(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", answer(403, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(AccessDenied):
        Storage().read_bytes("s3://b/k")
    assert fake_s3.requests == ["GET /b/k"]


def test_absence_is_not_retried(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", answer(404, b"<Error><Code>NoSuchKey</Code></Error>"))
    with pytest.raises(ObjectNotFound):
        Storage().read_bytes("s3://b/k")
    assert fake_s3.requests == ["GET /b/k"]


def test_a_dripping_store_times_out(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", dripping())
    started = time.monotonic()
    with pytest.raises(StorageTimeout, match="within the time allowed"):
        Storage(FetchLimits(fetch_timeout_s=1)).read_bytes("s3://b/k")
    assert _seconds(started) < 15  # it would drip for hours


def test_the_byte_limit_holds_whatever_is_sent(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", endless(announced=10**9))
    with pytest.raises(TooLarge):
        Storage().read_bytes("s3://b/k", max_bytes=1_000_000)


def test_an_upload_that_arrives_damaged_is_sent_again(fake_s3: HttpServer) -> None:
    fake_s3.on("/b/k", answer(200, ETag=f'"{"0" * 32}"'), answer(200, ETag=f'"{_ETAG}"'))
    Storage().write_bytes("s3://b/k", b"hello")
    assert fake_s3.requests == ["PUT /b/k"] * 2
    fake_s3.on("/b/damaged", answer(200, ETag=f'"{"0" * 32}"'))
    with pytest.raises(StorageUnavailable, match="other bytes than were sent"):
        Storage(FetchLimits(fetch_retries=1)).write_bytes("s3://b/damaged", b"hello")


def test_an_encrypting_store_is_verified_by_size(fake_s3: HttpServer) -> None:
    encrypted = {"x-amz-server-side-encryption": "aws:kms", "ETag": f'"{"0" * 32}"'}
    fake_s3.on("/b/k", answer(200, **encrypted), answer(200, b"hello", **encrypted))
    Storage().write_bytes("s3://b/k", b"hello")
    assert fake_s3.requests == ["PUT /b/k", "HEAD /b/k"]


def test_unreachable_endpoint(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(
        StorageUnavailable, match=r"http://127\.0\.0\.1:1 cannot be reached; check AWS_ENDPOINT_URL"
    ):
        Storage().stat("s3://styles/x")
    assert _seconds(started) < 20


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_bad_credentials(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "wrong-wrong-wrong")
    uri = f"s3://outputs/{uuid4().hex}"
    storage = Storage()
    started = time.monotonic()
    for attempt in (
        lambda: storage.stat(uri),
        lambda: storage.exists(uri),
        lambda: storage.read_bytes(uri),
        lambda: storage.write_bytes(uri, b""),
        lambda: list(storage.list(uri)),
    ):
        with pytest.raises(StorageUnavailable, match=r"credentials are not accepted .*check AWS_") as failed:
            attempt()
        assert "wrong-wrong-wrong" not in str(failed.value)
    assert _seconds(started) < 15


def test_no_credentials(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageUnavailable, match=r"no usable S3 credentials .*check AWS_ACCESS_KEY_ID"):
        Storage().stat("s3://styles/x")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageUnavailable, match="profile"):
        Storage().stat("s3://styles/x")


def test_credentials_from_a_profile(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = s3_env.credentials
    profile = f"[team]\naws_access_key_id = {keys.access_key}\naws_secret_access_key = {keys.secret_key}\n"
    (tmp_path / "credentials").write_text(profile)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert not Storage().exists("s3://styles/absent")


def test_a_reader_may_not_write(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_env.environment(s3_env.reader).items():
        monkeypatch.setenv(name, value)
    storage = Storage()
    assert not storage.exists("s3://styles/absent")
    for uri in ("s3://styles/x", "s3://outputs/x"):
        with pytest.raises(AccessDenied, match="may not be written"):
            storage.write_bytes(uri, b"")
    with pytest.raises(AccessDenied, match="may not be read"):
        storage.stat("s3://outputs/x")


def test_missing_buckets_and_bad_names(s3_env: S3Server) -> None:
    storage = Storage()
    with pytest.raises(ObjectNotFound):
        storage.read_bytes("s3://no-such-bucket/x")
    with pytest.raises(StorageUnavailable, match="bucket does not exist"):
        storage.write_bytes("s3://no-such-bucket/x", b"")
    with pytest.raises(ObjectNotFound, match="cannot exist"):
        storage.read_bytes("s3://Not A Bucket!/x")
    for uri in ("s3://", "s3://bucket", "s3://bucket/", "s3://k:s@bucket/x"):
        with pytest.raises(UriForbidden):
            storage.read_bytes(uri)


@pytest.mark.slow
def test_an_outage_and_a_restart(s3_env: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server(tmp_path / "own") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        storage = Storage(FetchLimits(fetch_retries=0))
        storage.write_bytes("s3://outputs/x", b"before")
        server.kill()
        with pytest.raises(StorageUnavailable):
            storage.read_bytes("s3://outputs/x")
        server.start()
        assert storage.read_bytes("s3://outputs/x") == b"before"


@pytest.mark.parametrize(
    ("number", "error", "sentence"),
    [
        (errno.EACCES, AccessDenied, "check its owner and mode"),
        (errno.EROFS, AccessDenied, "check its owner and mode"),
        (errno.EIO, StorageUnavailable, "Input/output error"),
        (errno.ENAMETOOLONG, ObjectNotFound, "was not found"),
    ],
)
def test_what_the_system_says_of_a_file(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[StorageError], sentence: str
) -> None:
    def refuse(path: str, *args: object) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(storage_local.os, "open", refuse)
    with pytest.raises(error, match=sentence):
        Storage().read_bytes("/some/file")


def test_retries_wait_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    attempts: list[float] = []

    def fail(limit_s: float) -> None:
        attempts.append(limit_s)
        raise TransientError(StorageUnavailable("down", "s3://b/k"))

    with pytest.raises(StorageUnavailable, match="down"):
        RetryPolicy(retries=5).run(fail, timeout_s=60)
    assert len(attempts) == 6
    for pause, longest in zip(pauses, (0.25, 0.5, 1, 2, 4), strict=True):
        assert longest / 2 <= pause <= longest
    assert all(limit_s <= 60 for limit_s in attempts)


def test_retries_end_with_the_time_limit() -> None:
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        RetryPolicy(retries=20).run(_always_down, timeout_s=0.5)
    assert _seconds(started) < 1


def _always_down(limit_s: float) -> None:
    raise TransientError(StorageUnavailable("down", "s3://b/k"))


SECRET, TOKEN = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEBYaDH"


@pytest.mark.parametrize(
    "text",
    [
        f"s3://AKIAEXAMPLE12345:{SECRET}@bucket/key.png not found",
        f"https://user:{SECRET}@host.example/x.png",
        f"https://{TOKEN}@host.example/x.png",
        f"https://h.example/x.png?X-Amz-Date=1&X-Amz-Signature={TOKEN}&X-Amz-Expires=5",
        f"https://h.example/x.png?AWSAccessKeyId=AKIAEXAMPLE12345&Signature={TOKEN}: refused",
        f"https://h.example/x.png?x-amz-security-token={TOKEN}",
        f"https://h.example/x.png?sv=1&sig={TOKEN}",
        f"https://h.example/x.png?access_token={TOKEN};api_key={TOKEN}",
        f"InvalidAccessKeyId {SECRET} in environment",
        "key=wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCYEXAMPLEKEY",
    ],
)
def test_redaction(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE12345")
    for shown in (redact(text), str(StorageError(text, text)), StorageError("", text).uri):
        for secret in (SECRET, TOKEN, "AKIAEXAMPLE12345", "wJalr", "EXAMPLEKEY"):
            assert secret not in shown
        assert "***" in shown or shown == ""


def test_redaction_keeps_the_rest() -> None:
    for text in (
        "s3://bucket/a@2x.png",
        "http://127.0.0.1:8000/a@2x.png",
        "https://h.example/x.png?size=3&monkey=7",
        "mail a@b.example",
    ):
        assert redact(text) == text
    shown = redact("https://u:p@h.example/x.png?X-Amz-Signature=abc&size=3: gone")
    assert shown == "https://***@h.example/x.png?X-Amz-Signature=***&size=3: gone"


@pytest.mark.parametrize("part", ["x", "a://", "s3://x:", "?key", "?", "http://a:b/", "&sig=", "a:b@"])
def test_redaction_of_long_hostile_text_takes_no_time(part: str) -> None:
    started = time.process_time()
    redact(part * (100_000 // len(part)))
    assert time.process_time() - started < 5  # quadratic matching takes a minute or more
