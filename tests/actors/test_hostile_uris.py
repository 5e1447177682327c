"""Hostile addresses and servers: tricks with URLs, names and links, and answers that never end or do not add up."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from actors import silent_hosts, storage_guard
from actors.storage import (
    ObjectNotFound,
    Storage,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
    UriForbidden,
)
from schemas.run import FetchLimits
from tests.support.dns import resolving
from tests.support.http_server import (
    HttpServer,
    answer,
    dripping_headers,
    endless_headers,
    redirect,
    silence,
    slow,
)

_PUBLIC_ADDRESS = "93.184.215.14"


def _reader(server: HttpServer, **limits: Any) -> Storage:
    return Storage(FetchLimits(input_roots=(server.url,), **limits))


@pytest.mark.parametrize(
    "uri",
    [
        "http://h.example/pictures/%252e%252e/secret.png",  # decoded twice on the way
        "http://h.example/pictures/%25252e%25252e/secret.png",
        "http://h.example/pictures/..;x=1/secret.png",
        "http://h.example/pictures/..%5csecret.png",
        "http://h.example/pictures/..\\secret.png",
        "http://h.example/pictures%2fsecret.png",  # one segment, which is not "pictures"
        "http://h.example\\@evil.example/pictures/x.png",
        "http://evil.example\\.h.example/pictures/x.png",
        "http://h.example\t/pictures/x.png",
        "http://h.exa\nmple/pictures/x.png",
        "http://h.example /pictures/x.png",
        "http://[::1/pictures/x.png",
        "http://h.example:0/pictures/x.png",
        "http://h.example:port/pictures/x.png",
        "http:/pictures/x.png",
        "http://?/pictures/x.png",
    ],
)
def test_tricks_with_the_form_of_a_url(uri: str) -> None:
    storage = Storage(FetchLimits(input_roots=("http://h.example/pictures", "http://127.0.0.1/")))
    with pytest.raises(UriForbidden):
        storage.check_input(uri)


def test_encoded_characters_are_no_trick(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, _PUBLIC_ADDRESS)
    storage = Storage(FetchLimits(input_roots=("http://h.example/a b",)))
    storage.check_input("http://h.example/a%20b/o%2Fc..d/%25.png?next=..%2F")


@pytest.mark.parametrize(
    "address",
    [
        "fec0::1",
        "64:ff9b:1::7f00:1",
        "::7f00:1",
        "::ffff:169.254.169.254",
        "fe80::5efe:7f00:1",
        "2001:0:0:0:0:0:f5ff:fffe",
    ],
)
def test_more_wrappings_of_addresses_that_are_not_public(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, address)
    with pytest.raises(UriForbidden, match="not a public address"):
        Storage().check_input("http://innocent.example/x.png")


@pytest.mark.parametrize(
    "host", ["127.1", "0177.0.0.1", "0x7f000001", "017700000001", "[::ffff:7f00:1]", "0", "LocalHost"]
)
def test_more_spellings_of_loopback(host: str) -> None:
    with pytest.raises(UriForbidden):
        Storage().check_input(f"http://{host}:1/x")


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in (_PUBLIC_ADDRESS, "10.0.0.1")]

    monkeypatch.setattr(storage_guard.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(UriForbidden, match=r"10\.0\.0\.1"):
        Storage().check_input("http://innocent.example/x.png")


def test_a_redirect_may_rebind_no_more_than_the_first_hop(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The redirect's host is looked up when it is followed: a private address then is refused."""
    port = http_server.url.rpartition(":")[2]
    http_server.on("/secret", answer(200, b"secret"))
    url = http_server.on("/x", redirect(f"http://rebind.example:{port}/secret"))
    original = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        return original("127.0.0.1" if host == "rebind.example" else host, *args, **kwargs)

    monkeypatch.setattr(storage_guard.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(UriForbidden, match=r"rebind\.example is 127\.0\.0\.1"):
        Storage(FetchLimits(input_roots=(http_server.url, "http://"))).read_bytes(url)
    assert http_server.requests == ["GET /x"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "s3://bucket/x", "ftp://h/x", "gopher://h:70/x"])
def test_redirects_to_other_schemes(http_server: HttpServer, target: str) -> None:
    url = http_server.on("/x", redirect(target))
    with pytest.raises(UriForbidden, match="which is no http address"):
        Storage(FetchLimits(input_roots=(http_server.url, "/etc", "s3://bucket"))).read_bytes(url)


def test_a_redirect_to_a_giant_address(http_server: HttpServer) -> None:
    url = http_server.on("/x", redirect("/" + "?key" * 15_000))
    started = time.monotonic()
    with pytest.raises(UriForbidden, match="60001 characters"):
        _reader(http_server).read_bytes(url)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        (answer(200, b"body", Content_Length="100"), StorageError, "did not send|broke off"),
        (answer(200, b"body", Content_Length="-1"), StorageUnavailable, "broke off"),
        (answer(200, b"body", Content_Length="many"), StorageUnavailable, "broke off"),
        (answer(200, b"body", Content_Length="9" * 5000), StorageError, "x"),
        (answer(200, b"body\r\n", Transfer_Encoding="chunked"), StorageUnavailable, "broke off"),
        (answer(302, b"", Location="data:,x"), StorageUnavailable, "path must be empty"),
        (answer(302, b"", Location="http://[::1"), StorageError, "http"),
        (answer(204), StorageUnavailable, "answered 204"),
        (answer(206, b"part"), StorageUnavailable, "answered 206"),
    ],
)
def test_answers_that_contradict_themselves(
    http_server: HttpServer, script: Any, error: type[StorageError], said: str
) -> None:
    url = http_server.on("/x", script)
    with pytest.raises(error, match=said):
        _reader(http_server, fetch_retries=0, fetch_timeout_s=4).read_bytes(url, max_bytes=10**6)


def test_a_body_longer_than_announced_is_cut_where_it_was_announced(http_server: HttpServer) -> None:
    url = http_server.on("/x", answer(200, b"body and more", Content_Length="4"))
    assert _reader(http_server).read_bytes(url) == b"body"


@pytest.mark.parametrize("script", [endless_headers(), dripping_headers()])
def test_headers_without_end(http_server: HttpServer, script: Any) -> None:
    url = http_server.on("/x", script)
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):  # a StorageTimeout is one
        _reader(http_server, fetch_timeout_s=1, fetch_retries=0).read_bytes(url)
    assert time.monotonic() - started < 5


def test_the_time_limit_is_for_the_whole_fetch(http_server: HttpServer) -> None:
    """Redirects and retries that are each in time share one limit."""
    url = http_server.on("/x", slow(0.4, redirect("/y")))
    http_server.on("/y", slow(0.4, redirect("/z")))
    http_server.on("/z", slow(0.4, answer(503)))
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        _reader(http_server, fetch_timeout_s=1, fetch_retries=20).read_bytes(url)
    assert time.monotonic() - started < 3


def test_a_tls_handshake_that_never_comes(http_server: HttpServer) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            Storage(FetchLimits(input_roots=(url,), fetch_timeout_s=1, fetch_retries=0)).read_bytes(
                f"{url}/x"
            )
        assert time.monotonic() - started < 5


def test_a_look_up_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(storage_guard.socket, "getaddrinfo", lambda *args, **kwargs: [] * released.wait(30))
    started = time.monotonic()
    with pytest.raises(StorageTimeout, match="looking up the host"):
        Storage(FetchLimits(fetch_timeout_s=0.5, fetch_retries=0)).read_bytes("http://slow.example/x")
    assert time.monotonic() - started < 3
    released.set()


def test_a_host_that_never_answers_is_not_asked_for_ever(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of a million rows would wait for it, one after the other, up to its limit."""
    monkeypatch.setattr(silent_hosts, "_FAILURES", 3)
    url = http_server.on("/silent", silence())
    http_server.on("/gone", answer(404))
    storage = Storage(FetchLimits(input_roots=(http_server.url,), fetch_retries=0, fetch_timeout_s=0.3))
    with pytest.raises(StorageTimeout):
        storage.read_bytes(url)
    with pytest.raises(ObjectNotFound):  # an answer: counting begins anew
        storage.read_bytes(f"{http_server.url}/gone")
    for _ in range(3):
        with pytest.raises(StorageTimeout):
            storage.read_bytes(url)
    asked = len(http_server.requests)
    for uri in (url, f"{http_server.url}/gone"):
        with pytest.raises(StorageUnavailable, match="failed 3 times in a row and is not asked for 120 s"):
            storage.stat(uri)
    assert len(http_server.requests) == asked
    monkeypatch.setattr(silent_hosts, "_REST_S", 0)
    with pytest.raises(ObjectNotFound):
        storage.read_bytes(f"{http_server.url}/gone")


def test_no_patience_with_web_servers(http_server: HttpServer, short_pauses: None) -> None:
    url = http_server.on("/x", answer(503))
    storage = Storage(FetchLimits(input_roots=(http_server.url,), fetch_retries=1), patience_s=60)
    with pytest.raises(StorageUnavailable):
        storage.read_bytes(url)
    assert len(http_server.requests) == 2


def test_links_that_lead_out_or_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "open"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "device").symlink_to("/dev/zero")
    (root / "process").symlink_to("/proc/self/environ")
    storage = Storage(FetchLimits(input_roots=(str(root),)))
    for name in ("up/secret", "up/open/../secret", "device", "process"):
        with pytest.raises(UriForbidden, match="outside the allowed input roots"):
            storage.check_input(f"{root}/{name}")
    storage.check_input(f"{root}/up/open/x")  # out and in again
    with pytest.raises(StorageError):
        storage.read_bytes(f"{root}/loop")
    for uri in (f"file://{root}/%2e%2e/secret", f"file://{root}/..%2fsecret", f"file:{root}%2f..%2fsecret"):
        with pytest.raises(UriForbidden):
            storage.check_input(uri)
    for uri in ("file://evil.example/etc/passwd", "file:////evil/x", f"file://{root}/x%00.png", "file:"):
        with pytest.raises(UriForbidden):
            storage.check_input(uri)
