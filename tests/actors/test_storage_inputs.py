"""What a manifest row may make us read: schemes, roots, private addresses, redirects, sizes and times."""

import gzip
import hashlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from actors import storage_guard, storage_http
from actors.storage import (
    AccessDenied,
    ObjectNotFound,
    Storage,
    StorageError,
    StorageTimeout,
    StorageUnavailable,
    TooLarge,
    UriForbidden,
)
from schemas.run import FetchLimits
from tests.support.dns import resolving
from tests.support.http_server import (
    HttpServer,
    answer,
    chunked,
    dripping,
    dripping_headers,
    endless,
    endless_chunks,
    redirect,
    reset,
    silence,
)

_PUBLIC_ADDRESS = "93.184.215.14"


def _reader(server: HttpServer, **limits: Any) -> Storage:
    return Storage(FetchLimits(input_roots=(server.url,), **limits))


@pytest.mark.parametrize("uri", ["ftp://h/x", "gs://b/x", "data:image/png;base64,AA", "s3://b/x"])
def test_scheme_outside_the_config(uri: str) -> None:
    with pytest.raises(UriForbidden, match="is not allowed for inputs; allowed: file, http"):
        Storage(FetchLimits(input_schemes=("file", "http"))).check_input(uri)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fd00::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_addresses_that_are_not_public(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, address)
    with pytest.raises(UriForbidden, match="not a public address"):
        Storage().check_input("http://innocent.example/x.png")


def test_a_public_address_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, _PUBLIC_ADDRESS)
    Storage().check_input("https://example.com/x.png")
    assert asked == ["example.com"]


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "localhost"])
def test_spellings_of_loopback(host: str) -> None:
    with pytest.raises(UriForbidden):
        Storage().check_input(f"http://{host}:1/x")


def test_a_host_is_private_unless_a_root_names_it(http_server: HttpServer) -> None:
    url = http_server.on("/x", answer(200, b"ok"))
    with pytest.raises(UriForbidden, match="name it in limits"):
        Storage().read_bytes(url)
    with pytest.raises(UriForbidden, match="name it in limits"):
        Storage(FetchLimits(input_roots=("http://",))).read_bytes(url)
    assert http_server.requests == []
    assert _reader(http_server).read_bytes(url) == b"ok"


def test_a_name_that_changes_its_address_after_the_check(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when checked, loopback a moment later. The checked address is what is used."""
    http_server.on("/x", answer(200, b"secret"))
    port = http_server.url.rpartition(":")[2]
    asked = resolving(monkeypatch, _PUBLIC_ADDRESS, "127.0.0.1")
    connected: list[str] = []

    def connect(self: object, host: str, *args: object) -> None:
        connected.append(host)
        raise storage_http.httpcore.ConnectError("not in a test")

    monkeypatch.setattr(storage_http.httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(StorageUnavailable):
        Storage(FetchLimits(fetch_retries=0)).read_bytes(f"http://rebind.example:{port}/x")
    assert asked == ["rebind.example"]
    assert connected == [_PUBLIC_ADDRESS]
    assert http_server.requests == []


def test_redirects_are_checked(http_server: HttpServer) -> None:
    storage = Storage(FetchLimits(input_roots=(f"{http_server.url}/open",)))
    http_server.on("/closed", answer(200, b"secret"))
    http_server.on("/open/target", answer(200, b"ok"))
    assert storage.read_bytes(http_server.on("/open/1", redirect("/open/target"))) == b"ok"
    for target in ("/closed", "http://169.254.169.254/latest/", "file:///etc/passwd", "/open/../closed"):
        with pytest.raises(UriForbidden):
            storage.read_bytes(http_server.on("/open/2", redirect(target)))
    assert "GET /closed" not in http_server.requests


def test_at_most_three_redirects(http_server: HttpServer) -> None:
    url = http_server.on("/loop", redirect("/loop"))
    with pytest.raises(StorageUnavailable, match="more than 3 times"):
        _reader(http_server).read_bytes(url)
    assert len(http_server.requests) == 4


def test_http_roots_are_whole_origins_and_segments() -> None:
    storage = Storage(FetchLimits(input_roots=("http://127.0.0.1:8000/pictures",)))
    storage.check_input("http://127.0.0.1:8000/pictures/x.png?size=1")
    for uri in (
        "http://127.0.0.1:8000/pictures-secret/x.png",
        "http://127.0.0.1:8000/pictures/../x.png",
        "http://127.0.0.1:8000/pictures/%2e%2e/x.png",
        "http://127.0.0.1:8000/pictures/..%2fx.png",
        "http://127.0.0.1:8000@evil.example/pictures/x.png",
        "http://127.0.0.1:8001/pictures/x.png",
        "https://127.0.0.1:8000/pictures/x.png",
        "http://127.0.0.1.evil.example:8000/pictures/x.png",
        "http:///pictures/x.png",
        "http://127.0.0.1:99999/pictures/x.png",
    ):
        with pytest.raises(UriForbidden):
            storage.check_input(uri)


def test_s3_roots_are_whole_segments() -> None:
    storage = Storage(FetchLimits(input_roots=("s3://styles/public/",)))
    storage.check_input("s3://styles/public/x.png")
    for uri in (
        "s3://styles/public-not/x.png",
        "s3://styles/public/../private/x.png",
        "s3://styles2/public/x.png",
        "s3://styles/x.png",
        "s3://key:secret@styles/public/x.png",
        "s3:///x",
        "/styles/public/x.png",
    ):
        with pytest.raises(UriForbidden) as refused:
            storage.check_input(uri)
        assert "secret" not in str(refused.value)


def test_local_roots_hold_after_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "open" / "x").write_bytes(b"")
    (tmp_path / "open" / "link").symlink_to(tmp_path / "closed")
    (tmp_path / "way-in").symlink_to(tmp_path / "open")
    storage = Storage(FetchLimits(input_roots=(str(tmp_path / "way-in"),)))
    storage.check_input(str(tmp_path / "open" / "x"))
    storage.check_input((tmp_path / "way-in" / "x").as_uri())
    for uri in ("open/link/x", "open/../closed/x", "closed/x", "openly/x"):
        with pytest.raises(UriForbidden, match="outside the allowed input roots"):
            storage.check_input(f"{tmp_path}/{uri}")
    with pytest.raises(UriForbidden):
        storage.check_input("file:///etc/passwd")


@pytest.mark.parametrize(
    ("script", "version"),
    [
        (answer(200, b"body", ETag='"abc"'), "abc"),
        (answer(200, b"body", ETag='W/"abc"'), "W/abc"),
        (answer(200, b"body", Last_Modified="Mon, 01 Jan 2024"), "Mon, 01 Jan 2024/4"),
        (answer(200, b"body"), f"sha256-{hashlib.sha256(b'body').hexdigest()}"),
        (chunked(b"body", ETag='"abc"'), f"sha256-{hashlib.sha256(b'body').hexdigest()}"),
    ],
)
def test_http_version_is_the_same_from_stat_and_fetch(
    http_server: HttpServer, script: Any, version: str
) -> None:
    url = http_server.on("/x", script)
    storage = _reader(http_server)
    assert storage.stat(url) == (url, 4, version)
    assert storage.fetch(url, 100) == (b"body", (url, 4, version))


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [
        (404, ObjectNotFound, 1),
        (410, ObjectNotFound, 1),
        (401, AccessDenied, 1),
        (403, AccessDenied, 1),
        (418, StorageUnavailable, 1),
        (501, StorageUnavailable, 1),
        (500, StorageUnavailable, 3),
        (503, StorageUnavailable, 3),
        (429, StorageUnavailable, 3),
    ],
)
def test_http_statuses(
    http_server: HttpServer, short_pauses: None, status: int, error: type[StorageError], requests: int
) -> None:
    url = http_server.on("/x", answer(status))
    with pytest.raises(error, match=str(status)):
        _reader(http_server, fetch_retries=2).read_bytes(url)
    assert len(http_server.requests) == requests


def test_http_transient_then_success(http_server: HttpServer, short_pauses: None) -> None:
    url = http_server.on("/x", answer(503), reset(), answer(200, b"ok"))
    assert _reader(http_server).read_bytes(url) == b"ok"
    assert len(http_server.requests) == 3


@pytest.mark.parametrize("script", [dripping(), dripping_headers(), silence()])
def test_http_time_limit(http_server: HttpServer, script: Any) -> None:
    url = http_server.on("/x", script)
    started = time.monotonic()
    with pytest.raises(StorageTimeout, match="allowed"):
        _reader(http_server, fetch_timeout_s=0.6).read_bytes(url)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("script", [endless(), endless(announced=10), endless_chunks()])
def test_http_byte_limit(http_server: HttpServer, script: Any) -> None:
    url = http_server.on("/x", script)
    storage = _reader(http_server, fetch_timeout_s=10)
    with pytest.raises(TooLarge, match="at most 5 "):
        storage.fetch(url, 5)


def test_compressed_answers_are_not_unpacked(http_server: HttpServer) -> None:
    packed = gzip.compress(bytes(10_000_000))
    url = http_server.on("/x", answer(200, packed, Content_Encoding="gzip"))
    assert _reader(http_server).read_bytes(url, max_bytes=100_000) == packed
    assert http_server.headers[0]["Accept-Encoding"] == "identity"


def test_the_environment_s_proxy_is_not_used(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert _reader(http_server).read_bytes(http_server.on("/x", answer(200, b"ok"))) == b"ok"


def test_unreachable_and_unknown_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            Storage(FetchLimits(input_roots=(url,), fetch_retries=1)).read_bytes(f"{url}/x")

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(storage_guard.socket, "getaddrinfo", unknown)
    with pytest.raises(StorageUnavailable, match="no known address"):
        Storage().check_input("http://nowhere.example/x")
